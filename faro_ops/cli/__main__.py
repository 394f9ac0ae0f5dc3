"""`python -m faro_ops.cli` is the same as the command `faro`."""

import sys

from faro_ops.cli import main

if __name__ == "__main__":
    sys.exit(main())
