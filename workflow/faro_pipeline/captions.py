"""Captions of figures for `snakemake --report`, which reads reStructuredText with templates."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path


def rst(title: str, caption: str, sources: Sequence[str]) -> str:
    """The text of a caption, in which no character has a special meaning.

    >>> print(rst("Loss", "A *best* of {{x}}.", ["a_b.csv"]), end="")
    {% raw %}**Loss.** A \\*best\\* of {{x}}.
    <BLANKLINE>
    From a\\_b.csv.{% endraw %}
    """
    text = f"**{_escaped(title)}.** {_escaped(caption)}"
    if sources:
        text += f"\n\nFrom {', '.join(map(_escaped, sources))}."
    return f"{{% raw %}}{text}{{% endraw %}}\n"


def write_captions(
    folder: Path, texts: Mapping[str, Mapping[str, str]], sources: Mapping[str, Sequence[str]]
) -> None:
    """Write one caption `<figure>.rst` per figure of `texts`, which has titles and captions."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        caption = rst(text["title"], text["caption"], sources.get(name, ()))
        (folder / f"{name}.rst").write_text(caption)


def _escaped(text: str) -> str:
    """The text on one line, with a backslash before each character of the markup."""
    one_line = " ".join(text.split()).replace("{% endraw", "{ % endraw")
    return re.sub(r"([\\*`_|])", r"\\\1", one_line)
