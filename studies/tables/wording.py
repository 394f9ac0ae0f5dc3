"""Text for captions, findings and pages: lists of words in English, tables in Markdown."""

from collections.abc import Container, Iterable, Iterator, Sequence


def and_list(words: Iterable[object]) -> str:
    """The words as a list in English.

    >>> and_list([36, 32, 16]), and_list(["a"])
    ('36, 32 and 16', 'a')
    """
    *most, last = map(str, words)
    return f"{', '.join(most)} and {last}" if most else last


def markdown_table(
    heads: Sequence[str], rows: Iterable[Sequence[object]], right: Container[str] = ()
) -> str:
    """A table in Markdown. The columns in `right` are aligned right.

    >>> print(markdown_table(["job", "replicas"], [("a", 3)], right=["replicas"]))
    | job | replicas |
    | --- | ---: |
    | a | 3 |
    """
    return "\n".join(markdown_lines(heads, rows, right))


def markdown_lines(
    heads: Sequence[str], rows: Iterable[Sequence[object]], right: Container[str] = ()
) -> Iterator[str]:
    """The lines of `markdown_table`, each as soon as its row is known."""
    rule = ["---:" if head in right else "---" for head in heads]
    for cells in (heads, rule):
        yield f"| {' | '.join(cells)} |"
    for row in rows:
        yield f"| {' | '.join(map(str, row))} |"
