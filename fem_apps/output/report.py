"""The HTML report of a run: one file with its case, numbers, pictures and an interactive view."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fem_apps.errors import CaseError
from fem_apps.output import report_page as page
from fem_apps.output.files import write_whole
from fem_apps.output.plot_field import read_frames
from fem_apps.output.plot_style import colours
from fem_apps.output.report_view import view_apart
from fem_apps.output.summary import read_summary

FIRST = ("history", "field", "evolution", "animation")


def write(folder: Path, out: Path | None = None) -> list[str]:
    """Write the report of a run folder.

    Args:
        folder: of the run.
        out: the file; `report.html` in the folder if left out.

    Returns:
        lines that say what was left out and why, and what was written.

    Raises:
        CaseError: no run folder, or the file cannot be written.
    """
    summary = read_summary(folder / "summary.json")
    notes: list[str] = []
    name = summary.get("title") or summary.get("name") or folder.name
    parts = [_head(name, summary, folder)]
    parts += _view(folder, notes)
    parts.append("<h2>Metrics</h2>")
    parts.append(page.table(("metric", "value"), _rows(summary.get("metrics", {}))))
    for text in summary.get("notes", []):
        parts.append(f'<p class="note">{page.escape(text)}</p>')
    pictures = sorted(
        (p for p in folder.iterdir() if p.suffix in page.SUFFIXES),
        key=lambda p: (FIRST.index(p.stem) if p.stem in FIRST else len(FIRST), p.name),
    )
    if pictures:
        parts.append("<h2>Pictures</h2>")
        parts += [page.picture_file(p) for p in pictures]
    else:
        notes.append(f"no pictures in {folder}: `fem-apps plot` draws them")
    parts += _case_and_versions(folder, summary)
    return [*notes, save(page.page(name, parts), out or folder / "report.html")]


def save(content: str, file: Path) -> str:
    """Write a page; returns its name. Raises CaseError."""
    try:
        write_whole(file, content.encode())
    except OSError as e:
        raise CaseError(f"cannot write {file}: {e.strerror}") from None
    return str(file)


def _head(name: str, summary: dict[str, Any], folder: Path) -> str:
    status = summary.get("status", "unknown")
    mark = "" if status == "done" else ' class="failed"'
    total = summary.get("wall_time", {}).get("total")
    facts = [
        summary.get("kind", ""),
        f"{summary['ranks']} rank(s)" if "ranks" in summary else "",
        f"{total:.1f} s" if total is not None else "",
        summary.get("finished", ""),
        str(folder),
    ]
    said = " · ".join(page.escape(f) for f in facts if f)
    message = summary.get("message", "")
    return (
        f"<h1>{page.escape(name)}</h1>\n<p><span{mark}>{page.escape(status)}</span> · {said}</p>"
        + (f"\n<p>{page.escape(message)}</p>" if message else "")
    )


def _view(folder: Path, notes: list[str]) -> list[str]:
    content, why = view_apart(folder)
    if why:
        notes.append(f"no interactive view: {why}")
        return []
    frames = read_frames(folder / "frames.npz")
    bar = page.colour_bar(*colours(frames.values[-1]), frames.label)
    text = f"t = {frames.times[-1]:.6g}; turn with the mouse, zoom with the wheel"
    return [
        "<h2>Last field</h2>",
        page.frame(content, "last field"),
        bar,
        f'<p class="note">{page.escape(text)}</p>',
    ]


def _rows(metrics: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(k, _shown(v)) for k, v in metrics.items()]


def _shown(value: Any) -> Any:
    """Values as a table shows them: long lists are cut."""
    if not isinstance(value, list | dict):
        return "none" if value is None else value
    text = str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _case_and_versions(folder: Path, summary: dict[str, Any]) -> list[str]:
    parts = []
    case = folder / "case.toml"
    if case.is_file():
        text = case.read_text(encoding="utf-8")
        parts += ["<h2>Case</h2>", f"<pre>{page.escape(text)}</pre>"]
    wall = [(k, float(v)) for k, v in summary.get("wall_time", {}).items()]
    if wall:
        parts += ["<h2>Wall time</h2>", page.table(("phase", "seconds"), wall)]
    versions = list(summary.get("versions", {}).items())
    if versions:
        parts += ["<h2>Versions</h2>", page.table(("package", "version"), versions)]
    return parts
