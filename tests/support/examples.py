"""How much a test tries: all of it in `make test-all`, a quarter in `make test`."""

import os

from hypothesis import settings

SHARE = 1 if os.environ.get("FARO_ALL_EXAMPLES") else 1 / 4


def examples(count: int) -> settings:
    """Settings of a property test that tries `count` examples in `make test-all`."""
    return settings(max_examples=round(SHARE * count))
