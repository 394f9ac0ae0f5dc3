"""A hint for an unknown name: what it is called now, or the nearest accepted name."""

import difflib
from collections.abc import Iterable

# Settings and columns that were renamed: old name -> new name.
RENAMED = {
    "percentile": "quantile",
    "start_s": "cold_start_s",
    "places": "max_ongoing_requests",
    "most_rps": "max_rps",
    "sizes": "capacities",
    "replicas": "capacity",
    "queue": "ongoing",
    "model": "import_path",
    "options": "args",
    "lost_utility_excl_overrun": "lost_utility",
}


def nearest(word: str, accepted: Iterable[str]) -> str:
    """A hint for an unknown word: its new name, the nearest accepted word, or all accepted words.

    >>> nearest("trails", ["trials", "sizes"])
    "did you mean 'trials'?"
    >>> nearest("x", ["trials", "sizes"])
    'accepted: trials, sizes'
    >>> nearest("sizes", ["policies", "capacities"])
    "it is now called 'capacities'"
    """
    accepted = list(accepted)
    if RENAMED.get(word) in accepted:
        return f"it is now called {RENAMED[word]!r}"
    lower = {name.lower(): name for name in accepted}
    close = difflib.get_close_matches(str(word).lower(), lower, 1)
    if close:
        return f"did you mean {lower[close[0]]!r}?"
    return f"accepted: {', '.join(accepted)}"
