"""Say clearly when the Python that make found is too old, instead of failing in the middle of an installation."""

import sys

if sys.version_info < (3, 11):
    sys.exit(f"Dragoman needs Python 3.11 or newer, this is {sys.version.split()[0]}; say which to use: make PYTHON=python3.12 ...")
