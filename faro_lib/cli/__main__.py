"""`python -m faro_lib.cli` is the same as the command `faro`."""

import sys

from faro_lib.cli import main

if __name__ == "__main__":
    sys.exit(main())
