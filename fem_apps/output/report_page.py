"""What HTML reports are put together from: one file, nothing fetched, readable without scripts."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px; }
th, td { padding: .2rem .7rem .2rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid #e4e4e4; }
th { font-weight: 600; } thead th { cursor: pointer; }
td.n, th.n { text-align: right; white-space: nowrap; }
pre { background: #f6f6f6; padding: .8rem; overflow-x: auto; font-size: 13px; }
img { max-width: 100%; } .whole { overflow-x: auto; } .wide { overflow: auto; max-height: 32rem; }
.note { color: #666; } .failed { color: #b03000; font-weight: 600; }
figure { margin: 1rem 0; } figcaption { color: #666; font-size: 13px; }
.pair { display: flex; flex-wrap: wrap; gap: 1rem; } .pair figure { margin: 0; flex: 1 1 20rem; }
iframe { width: 100%; height: 30rem; border: 1px solid #e4e4e4; }
.bar { display: flex; align-items: center; gap: .6rem; font-size: 13px; }
.bar div { height: .8rem; flex: 1; }
"""
# a click on a column's head sorts the rows by it
SORT = """
for (const head of document.querySelectorAll("thead th")) head.onclick = () => {
  const table = head.closest("table"), body = table.tBodies[0], i = head.cellIndex;
  const falling = head.dataset.falling !== "yes";
  head.dataset.falling = falling ? "yes" : "no";
  const text = r => r.cells[i].textContent, number = r => parseFloat(text(r));
  const key = r => isNaN(number(r)) ? text(r) : number(r);
  const less = (a, b) => key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0;
  for (const r of [...body.rows].sort((a, b) => falling ? less(b, a) : less(a, b))) body.append(r);
};
"""
# rows of a table that scrolls
LONG = 60
SUFFIXES = {".png": "image/png", ".gif": "image/gif"}


def escape(text: Any) -> str:
    """Text as HTML."""
    return html.escape(str(text))


def page(title: str, parts: Iterable[str]) -> str:
    """The whole file."""
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width">\n<title>{escape(title)}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n" + "\n".join(parts) + "\n"
        f"<script>{SORT}</script>\n</body>\n</html>\n"
    )


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table; numbers to the right."""
    rows = [[_cell(v) for v in row] for row in rows]
    right = [
        bool(rows) and all(cell[1] or not cell[0] for cell in column)
        for column in zip(*rows, strict=True)
    ] or [False] * len(columns)
    kind = [' class="n"' if r else "" for r in right]
    head = "".join(f"<th{k}>{escape(c)}</th>" for c, k in zip(columns, kind, strict=True))
    body = "\n".join(
        "<tr>" + "".join(f"<td{k}>{c[0]}</td>" for c, k in zip(row, kind, strict=True)) + "</tr>"
        for row in rows
    )
    place = "wide" if len(rows) > LONG else "whole"
    return (
        f'<div class="{place}"><table><thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _cell(value: Any) -> tuple[str, bool]:
    """Text of a value, and whether it is a number."""
    if value is None:
        return "", False
    if isinstance(value, bool):
        return str(value).lower(), False
    if isinstance(value, float):
        return f"{value:.8g}", True
    return escape(value), isinstance(value, int)


def picture(content: bytes, caption: str, suffix: str = ".png") -> str:
    """A picture inside the file."""
    data = base64.b64encode(content).decode()
    return (
        f'<figure><img alt="{escape(caption)}" src="data:{SUFFIXES[suffix]};base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def picture_file(path: Path) -> str:
    """A picture file inside the file."""
    return picture(path.read_bytes(), path.stem.replace("_", " "), path.suffix)


def frame(content: str, title: str) -> str:
    """A page inside the page."""
    return f'<iframe title="{escape(title)}" srcdoc="{html.escape(content)}"></iframe>'


def colour_bar(cmap: str, limits: tuple[float, float], label: str) -> str:
    """The colours of a view, with their ends."""
    import matplotlib as mpl

    stops = mpl.colormaps[cmap](np.linspace(0, 1, 17))
    colours = ", ".join(mpl.colors.to_hex(c) for c in stops)
    low, high = (f"{v:.4g}" for v in limits)
    return (
        f'<div class="bar"><span>{escape(label)}</span><span>{low}</span>'
        f'<div style="background: linear-gradient(to right, {colours})"></div>'
        f"<span>{high}</span></div>"
    )
