"""A hint for an unknown name: the nearest accepted name."""

import difflib
from collections.abc import Iterable


def nearest(word: str, accepted: Iterable[str]) -> str:
    """A hint for an unknown word: the nearest accepted word, or all accepted words.

    >>> nearest("trails", ["trials", "sizes"])
    "did you mean 'trials'?"
    >>> nearest("x", ["trials", "sizes"])
    'accepted: trials, sizes'
    """
    accepted = list(accepted)
    lower = {name.lower(): name for name in accepted}
    close = difflib.get_close_matches(str(word).lower(), lower, 1)
    if close:
        return f"did you mean {lower[close[0]]!r}?"
    return f"accepted: {', '.join(accepted)}"
