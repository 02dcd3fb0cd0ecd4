"""Which cases a sweep has: axes, grids, samples, shards; what is wrong with a command line."""

import tomllib

import numpy as np
import pytest
from sweeps import CASE

from fem_apps.errors import CaseError
from fem_apps.sweep.axes import parse_over, parse_shard
from fem_apps.sweep.plan import make_plan

RAW = {**tomllib.loads(CASE), "name": "small", "folder": "."}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a.b=1,2,3", (1, 2, 3)),
        ("a=0.5,word,true", (0.5, "word", True)),
        ('a="exp(-x, 2)",y', ("exp(-x, 2)", "y")),
        ("a=[1, 2],[3, 4]", ([1, 2], [3, 4])),
        ("a=where(x > 0, 1, 2),z", ("where(x > 0, 1, 2)", "z")),
        ("a=0:1:5", (0.0, 0.25, 0.5, 0.75, 1.0)),
        ("seed=1:9:3", (1, 5, 9)),
        ("a=1:2:1", (1,)),
        ("a=-1:1:3", (-1, 0, 1)),
    ],
)
def test_values(text, values):
    axis = parse_over(text)
    assert axis.values == values
    assert [type(v) for v in axis.values] == [type(v) for v in values]


def test_logarithmic_range():
    axis = parse_over("a=1e-3:10:5:log")
    np.testing.assert_allclose(axis.values, [1e-3, 1e-2, 1e-1, 1, 10])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a", "give table.key"),
        ("=1", "give table.key"),
        ("a=", "no values"),
        ("a=1,,2", "empty"),
        ("a=1,2,1", "twice"),
        ("a=2:1:5", "empty"),
        ("a=1:1:5", "empty"),
        ("a=0:1:0", "empty"),
        ("a=0:1:5:log", "above 0"),
        ("a=0:1:2.5", "whole number"),
        ("a=0:1:2:3", "whole number"),
    ],
)
def test_wrong_values(text, said):
    with pytest.raises(CaseError, match=said):
        parse_over(text)


@pytest.mark.parametrize("text", ["3/2", "0/2", "1/0", "1", "a/b", "-1/2"])
def test_wrong_shard(text):
    with pytest.raises(CaseError, match="--shard"):
        parse_shard(text)


def test_grid_has_every_combination_once_and_shards_divide_it():
    over = ["time.end=1,2,3", "diffusion.0.coefficient=0.1:0.5:5"]
    plan = make_plan(RAW, over)
    points = list(plan.points())
    pairs = [tuple(p.parameters.values()) for p in points]
    assert len(set(pairs)) == len(pairs) == plan.size == 15
    assert {a for a, _ in pairs} == {1, 2, 3}
    parts = [list(make_plan(RAW, over, shard=(i, 4)).points()) for i in (1, 2, 3, 4)]
    assert sorted((p for part in parts for p in part), key=lambda p: p.id) == points
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_cases_have_their_values():
    plan = make_plan(RAW, ["time.end=1,2", "interaction.0.width=0.1,0.4"])
    for point in plan.points():
        case = plan.case(point)
        assert case.time.end == point.parameters["time.end"]
        assert case.interaction[0].width == point.parameters["interaction.0.width"]
        assert case.name == f"small-{point.id:06d}"
    assert RAW["time"]["end"] == 0.5


def test_latin_hypercube_has_one_point_in_every_stratum():
    n = 32
    over = ["time.end=0:4", "diffusion.0.coefficient=0.01:1:log"]
    with pytest.raises(CaseError, match=r"time\.end"):  # 0 is not allowed
        make_plan(RAW, over, sample=n)
    over[0] = "time.end=2:4"
    points = list(make_plan(RAW, over, sample=n, seed=3).points())
    end = np.array([p.parameters["time.end"] for p in points])
    log = np.log10([p.parameters["diffusion.0.coefficient"] for p in points])
    assert sorted(np.floor((end - 2) / 2 * n)) == list(range(n))
    assert sorted(np.floor((log + 2) / 2 * n)) == list(range(n))
    again = list(make_plan(RAW, over, sample=n, seed=3).points())
    other = list(make_plan(RAW, over, sample=n, seed=4).points())
    assert again == points
    assert other != points


def test_sobol_points_are_balanced_and_their_shards_agree():
    over = ["time.end=1.0:3.0", "diffusion.0.coefficient=0.1:0.9"]
    points = list(make_plan(RAW, over, sample=64, method="sobol").points())
    u = np.array([list(p.parameters.values()) for p in points])
    cells, counts = np.unique(np.floor((u - [1, 0.1]) / [2, 0.8] * 4), axis=0, return_counts=True)
    assert len(cells) == 16
    assert (counts == 4).all()
    shard = list(make_plan(RAW, over, sample=64, method="sobol", shard=(2, 3)).points())
    assert shard == points[1::3]


def test_sampled_whole_numbers_and_words():
    over = ["seed=0:9", 'scheme.mobility="upwind","logarithmic"', "time.end=1:2"]
    over[1] = "diffusion.0.exponent=1,2"
    points = list(make_plan(RAW, over, sample=60).points())
    seeds = [p.parameters["seed"] for p in points]
    assert all(isinstance(s, int) for s in seeds)
    assert set(seeds) == set(range(10))
    assert sorted(p.parameters["diffusion.0.exponent"] for p in points) == [1] * 30 + [2] * 30


@pytest.mark.parametrize(
    ("over", "more", "said"),
    [
        ([], {}, "--over"),
        (["time.endd=1,2"], {}, r"time\.endd"),
        (["nothing=1,2"], {}, "nothing"),
        (["time.end=-1,1"], {}, r"time\.end"),
        (["time.end=soon"], {}, r"time\.end"),
        (["diffusion.3.exponent=1,2"], {}, "3"),
        (["time.end=1,2", "time.end=3,4"], {}, "twice"),
        (["time.end=1:2"], {}, "--sample"),
        (["time.end=1:2"], {"sample": 0}, "--sample"),
        (["time.end=1:2:1001", "seed=0:1000:1001"], {}, "more than"),
    ],
)
def test_wrong_plans(over, more, said):
    with pytest.raises(CaseError, match=said):
        make_plan(RAW, over, **more)
