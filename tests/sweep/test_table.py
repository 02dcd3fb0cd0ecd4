"""Tables and pictures of a sweep: filters, order, exports that read back exactly, plots."""

import csv
import io
import tomllib

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sweeps import CASE

from fem_apps.errors import CaseError
from fem_apps.sweep.pictures import picture
from fem_apps.sweep.plan import make_plan
from fem_apps.sweep.record import Outcome, Record
from fem_apps.sweep.report import write
from fem_apps.sweep.table import default_columns, load, select, text, write_csv, write_parquet

RAW = {**tomllib.loads(CASE), "name": "small", "folder": "."}


def make(out, over, **more):
    """A record with known metrics: a = end^2, b = 1/(1 + end), every seventh case failed."""
    plan = make_plan(RAW, over, **more)
    with Record(out, plan, {"kind": "k", "axes": {"time.end": "final time [s]"}}) as record:
        outcomes = []
        for p in plan.points():
            end = p.parameters["time.end"]
            metrics = {"a": end**2, "b": 1 / (1 + end), "list": [1, 2], "wall": 3.0}
            failed = p.id % 7 == 6
            outcomes.append(
                Outcome(p.id, "failed", {}, 0.1, 1, "Newton failed")
                if failed
                else Outcome(p.id, "done", {**metrics, "more": {"c": p.id}}, 0.1, 1)
            )
        record.store(outcomes)
    return load(out)


@pytest.fixture
def table(tmp_path):
    return make(tmp_path / "s", ["time.end=1:2:11", "diffusion.0.coefficient=0.1:0.3:3"])


def test_columns(table):
    assert table.keys == ("time.end", "diffusion.0.coefficient")
    assert table.metrics == ("a", "b", "list", "metrics.wall", "more.c")
    assert table.column("end") == "time.end"
    assert table.column("c") == "more.c"
    assert table.values("list")[0] == "[1, 2]"
    with pytest.raises(CaseError, match="no column 'nothing'"):
        table.column("nothing")
    with pytest.raises(CaseError, match="not of numbers"):
        table.numbers("error")


def test_select_and_sort(table):
    ends = np.array([v if v is not None else np.nan for v in table.values("time.end")])
    done = np.array([s == "done" for s in table.values("status")])
    for where in (
        "status = 'done' and time.end > 1.45",
        "end > 1.45 and status='done'",
        "a is not null and not end <= 1.45",
    ):
        found = select(table, where)
        assert found.values("id") == list(np.flatnonzero(done & (ends > 1.45)))
    falling = select(table, "status = 'done'", ["-a", "id"]).values("a")
    assert falling == sorted(falling, reverse=True)
    for where in ("nothing > 1", "end >", "1; drop table t", "end > 1) or (delete from t"):
        with pytest.raises(CaseError, match="--where"):
            select(table, where)


def test_text(table):
    lines = text(table, default_columns(table), limit=5).splitlines()
    assert len(lines) == 7
    assert lines[0].split()[:3] == ["id", "time.end", "diffusion.0.coefficient"]
    assert "28 more rows" in lines[-1]


def test_exports_read_back_exactly(table, tmp_path):
    write_csv(table, tmp_path / "t.csv")
    rows = list(csv.DictReader((tmp_path / "t.csv").open()))
    write_parquet(table, tmp_path / "t.parquet")
    columns = pq.read_table(tmp_path / "t.parquet").to_pydict()
    assert list(columns) == list(rows[0]) == list(table.columns)
    for name in ("id", "time.end", "a", "b"):
        assert columns[name] == table.values(name)
        assert [float(r[name]) if r[name] else None for r in rows] == table.values(name)


def test_shards_are_one_table(tmp_path):
    over = ["time.end=1:2:10"]
    for i in (2, 1, 3):
        make(tmp_path, over, shard=(i, 3))
    assert load(tmp_path).values("id") == list(range(10))


def size(png):
    return Image.open(io.BytesIO(png)).size


def test_pictures(table, tmp_path):
    for columns, how in (
        (("end", "a", None), "auto"),
        (("end", "a", None), "scatter"),
        (("end", "coefficient", "b"), "auto"),
        (("end", "coefficient", "b"), "contour"),
    ):
        name, png = picture(table, columns, how=how)
        assert min(size(png)) > 400
        assert columns[1] in name or "coefficient" in name
    sampled = make(
        tmp_path / "sampled", ["time.end=1:9:log", "diffusion.0.coefficient=0.1:0.3"], sample=30
    )
    for columns in (("end", "a", None), ("end", "coefficient", "b")):
        assert min(size(picture(sampled, columns)[1])) > 400


@pytest.mark.parametrize(
    ("columns", "how", "said"),
    [
        (("end", None, None), "auto", "--y"),
        (("end", "nothing", None), "auto", "nothing"),
        (("end", "error", None), "auto", "numbers"),
        (("end", "a", None), "heat", "--z"),
        (("end", "coefficient", "a"), "line", "heat or contour"),
        (("end", "b", "a"), "auto", "same"),
        (("coefficient", "a", None), "auto", "cannot be told apart"),
    ],
)
def test_wrong_pictures(columns, how, said, table):
    with pytest.raises(CaseError, match=said):
        picture(table, columns, how=how)


def test_nothing_to_draw(table):
    with pytest.raises(CaseError, match="nothing to draw"):
        picture(select(table, "id < 0"), ("end", "a", None))
    with pytest.raises(CaseError, match="no number"):
        picture(select(table, "status = 'failed'"), ("end", "a", None))


def test_report(table, tmp_path):
    said = write(tmp_path / "s")
    page = (tmp_path / "s" / "report.html").read_text()
    assert said[-1].endswith("report.html")
    assert page.count("data:image/png;base64,") >= 2
    assert "Newton failed" in page
    assert "final time [s]" in page
    assert 'src="http' not in page
    assert 'href="http' not in page
