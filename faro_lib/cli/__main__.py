"""`python -m faro_lib.cli`."""

import sys

from faro_lib.cli import main

if __name__ == "__main__":
    sys.exit(main())
