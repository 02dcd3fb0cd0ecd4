"""Reports and comparisons of runs: one file each, looked at in a browser."""

import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fem_apps.errors import CaseError
from fem_apps.output import compare
from fem_apps.output.report import write
from fem_apps.output.report_view import view_apart

BROWSER = next(
    (b for b in ("chromium", "chromium-browser", "google-chrome") if shutil.which(b)), None
)


def square(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Points and triangles of the unit square."""
    x = np.linspace(0, 1, n)
    points = np.stack(np.meshgrid(x, x), axis=-1).reshape(-1, 2)
    i = np.arange(n * n).reshape(n, n)
    a, b, c, d = i[:-1, :-1].ravel(), i[:-1, 1:].ravel(), i[1:, 1:].ravel(), i[1:, :-1].ravel()
    return points, np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])


def make_run(folder: Path, factor: float = 1.0) -> Path:
    """A run folder as an application leaves it, with a field that grows from left to right."""
    folder.mkdir()
    points, cells = square(12)
    values = factor * points[:, 0]
    np.savez(
        folder / "frames.npz",
        points=points,
        cells=cells,
        cell_type="triangle",
        times=np.array([0.0, 1.0]),
        values=np.stack([0 * values, values]).astype(np.float32),
        label="density",
        stride=1,
    )
    (folder / "history.csv").write_text("step,time,mass,a\n0,0,1,1\n1,0.5,1,2\n2,1,1,4\n")
    (folder / "case.toml").write_text(f'kind = "x"\nname = "n"\nfactor = {factor}\n')
    summary = {
        "status": "done",
        "kind": "x",
        "title": "A <title>",
        "metrics": {"a": factor, "many": list(range(500)), "none": None},
        "ranks": 2,
        "wall_time": {"total": 1.5},
        "versions": {"python": "3"},
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def screenshot(page: Path, out: Path) -> np.ndarray:
    """What a browser without a display and without a network shows, (rows, columns, 3)."""
    assert BROWSER is not None
    subprocess.run(
        [
            BROWSER,
            *("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"),
            *("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
            *("--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={out.parent}/profile"),
            *("--window-size=1000,800", "--virtual-time-budget=8000"),
            f"--screenshot={out}",
            page.as_uri(),
        ],
        check=True,
        capture_output=True,
        timeout=100,
    )
    return np.asarray(Image.open(out).convert("RGB")).astype(int)


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    folder = make_run(tmp_path_factory.mktemp("report") / "run")
    assert write(folder)[-1] == str(folder / "report.html")
    return folder / "report.html"


def test_report_is_one_file(report):
    text = report.read_text()
    assert "A &lt;title&gt;" in text
    assert "factor = 1.0" in text
    assert "<iframe" in text
    outside = re.sub(r'srcdoc="[^"]*"', "", text)
    assert not re.search(r'(src|href)="(?!data:)', outside)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here: apt-get install chromium")
def test_report_in_a_browser(report, tmp_path):
    image = screenshot(report, tmp_path / "shot.png")
    # the view: viridis over a square, dark violet on the left and yellow on the right
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    violet = (red > 50) & (red < 90) & (green < 40) & (blue > 60) & (blue < 120)
    yellow = (red > 220) & (green > 200) & (blue < 90)
    rows = np.arange(len(image)) < 620  # above the colour bar
    left, right = (np.flatnonzero((mask & rows[:, None]).sum(axis=0)) for mask in (violet, yellow))
    assert len(left) > 10
    assert len(right) > 10
    assert left.mean() < right.mean()


def test_view_says_why_there_is_none(tmp_path):
    folder = make_run(tmp_path / "run")
    (folder / "frames.npz").write_bytes(b"no")
    page, why = view_apart(folder)
    assert page == ""
    assert "frames.npz is damaged" in why


def test_compare(tmp_path):
    a, b = make_run(tmp_path / "a"), make_run(tmp_path / "b", 1.5)
    said = list(compare.lines(a, b))
    assert any(line.split() == ["factor", "1", "1.5"] for line in said)
    assert any(line.split() == ["a", "1", "1.5", "0.5", "0.33"] for line in said)
    assert compare.draw(a, b, tmp_path / "c.png") == [str(tmp_path / "c.png")]
    image = Image.open(io.BytesIO((tmp_path / "c.png").read_bytes()))
    assert min(image.size) > 500
    for run in (a, b):
        (run / "frames.npz").unlink()
        (run / "history.csv").unlink()
    with pytest.raises(CaseError, match="nothing to compare"):
        compare.draw(a, b, tmp_path / "d.png")
