"""Lists of words as English text, for captions and findings."""

from collections.abc import Iterable


def and_list(words: Iterable[object]) -> str:
    """The words as a list in English.

    >>> and_list([36, 32, 16]), and_list(["a"])
    ('36, 32 and 16', 'a')
    """
    *most, last = map(str, words)
    return f"{', '.join(most)} and {last}" if most else last
