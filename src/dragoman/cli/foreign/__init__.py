"""Other servers' start commands: their flags, files and variables under their own names, turned into our settings. Called by `dragoman`.

One module per server; what they share is in flags.py and starting.py.
"""

from dragoman.cli.foreign import mlserver, tfserving, triton

FOREIGN = {each.name: each for each in (tfserving.COMMAND, triton.COMMAND, mlserver.COMMAND)}
