"""A page with one figure, which commands write with --plot FILE.html."""

import base64
import html
import io

from matplotlib.figure import Figure

SINGLE = """<!doctype html><html lang="en"><meta charset="utf-8">\
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>\
<link rel="icon" href="data:,"><body style="font: 16px/1.5 system-ui, sans-serif; margin: 1rem">\
<h1>{title}</h1>\
<img style="max-width: 100%" alt="{title}" src="data:image/png;base64,{png}">\
<pre style="overflow-x: auto" tabindex="0">{text}</pre></body></html>"""


def page_of(figure: Figure, title: str, text: str) -> str:
    """The HTML of a self-contained page with one figure and a text below it."""
    png = io.BytesIO()
    figure.savefig(png, format="png")
    encoded = base64.b64encode(png.getvalue()).decode("ascii")
    return SINGLE.format(title=html.escape(title), text=html.escape(text), png=encoded)
