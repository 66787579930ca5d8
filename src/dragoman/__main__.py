"""`python -m dragoman` is the `dragoman` command."""

import gc

gc.disable()  # what is imported stays: to look through it for garbage again and again takes a tenth of the start

from dragoman.cli import main  # noqa: E402 # behind the line above

gc.enable()
main()
