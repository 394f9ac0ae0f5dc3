"""Saving the figures of a stage with their titles and captions, which the report reads."""

import json
from pathlib import Path

from faro_lib.figures.style import save
from studies.figures.drawing import Drawings


def save_all(drawings: Drawings, captions: str | Path) -> None:
    """Write titles and captions to the JSON file `captions`, and the figures to its folder."""
    texts = {}
    for name, one in drawings.items():
        save(one.figure, Path(captions).parent, name)
        texts[name] = {"title": one.title, "caption": one.caption, "recorded": one.recorded}
    Path(captions).write_text(json.dumps(texts, indent=1, ensure_ascii=False) + "\n")
