"""Marks store the middle of a graph; explain and visualize tell what would happen, and compute nothing."""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import dask
import dask.array as da
import dask.bag as db
import numpy as np
import pytest
import xarray as xr
from test_fingerprints import digest
from workloads import ddf, inc, ran, runs, total

import cacheness_dask as cd
from cacheness import MissingExtra, UnifiedCache


def counted(df: Any) -> Any:
    if len(df) > 2:
        ran()
    return df


MARKED: dict[str, tuple[Any, Any]] = {
    "delayed": (lambda: dask.delayed(inc)(1), lambda x: dask.delayed(lambda n: n * 3)(x)),
    "array": (lambda: da.from_array(np.arange(8.0), chunks=4).map_blocks(inc), lambda x: (x * 2).sum()),
    "bag": (
        lambda: db.from_sequence(range(6), npartitions=2).map(inc),
        lambda x: x.filter(lambda n: n % 2).map(lambda n: n * 3),
    ),
    "item": (lambda: db.from_sequence(range(6), npartitions=2).map(inc).sum(), lambda x: x.apply(lambda n: n * 2)),
    "dataframe": (lambda: ddf().map_partitions(counted), lambda x: x.a.sum()),
    "series": (lambda: ddf().map_partitions(counted).a, lambda x: x.max()),
    "dataarray": (
        lambda: xr.DataArray(da.from_array(np.arange(8.0), chunks=4).map_blocks(inc), dims="x"),
        lambda x: x.sum(),
    ),
    "dataset": (
        lambda: xr.Dataset({"t": ("x", da.from_array(np.arange(8.0), chunks=4).map_blocks(inc))}),
        lambda x: x.t.mean(),
    ),
}


@pytest.mark.parametrize("kind", MARKED)
def test_a_mark_stores_the_middle_of_a_graph(cache: UnifiedCache, kind: str) -> None:
    make, then = MARKED[kind]
    (plain,) = dask.compute(then(make()), scheduler="sync")
    with cd.caching(cache, scheduler="sync", which="marked") as run:
        marked = cd.mark(make())
        assert type(marked) is type(make())
        (first,) = dask.compute(then(marked))
        assert run.history[-1].stored > 0
        runs()
        (second,) = dask.compute(then(cd.mark(make())))
        assert runs() == 0
    assert np.array_equal(first, plain)
    assert np.array_equal(second, plain)


@pytest.mark.parametrize("kind", ["delayed", "array", "bag", "item"])
def test_a_mark_changes_no_key(kind: str) -> None:
    make, then = MARKED[kind]
    assert digest(then(cd.mark(make()))) == digest(then(make()))


def test_only_collections_can_be_marked() -> None:
    with pytest.raises(TypeError, match="list cannot be marked"):
        cd.mark([1, 2])


def graph() -> Any:
    shared = dask.delayed(inc)(1)
    return dask.delayed(total)([shared, dask.delayed(inc)(shared), dask.delayed(open)(__file__)])


def test_explain_says_what_would_happen_and_computes_nothing(cache: UnifiedCache) -> None:
    collection = dask.delayed(total)([dask.delayed(inc)(i) for i in range(3)])
    cold = cd.explain(collection, cache)
    assert [row.status for row in cold] == ["miss"] * 4
    assert cold[0].why == "no earlier entry of `inc`"
    with cd.caching(cache, scheduler="sync"):
        collection.compute()
        runs()
        warm = cd.explain(collection)
    assert runs() == 0
    assert {row.name: row.status for row in warm} == {"inc": "skipped", "total": "hit"}
    assert str(warm).startswith("hit: 1, skipped: 3")
    assert "<table>" in warm._repr_html_()


def test_explain_needs_a_cache_and_a_collection(cache: UnifiedCache) -> None:
    with pytest.raises(ValueError, match="no cache is in use here"):
        cd.explain(graph())
    with pytest.raises(TypeError, match="int is not a Dask collection"):
        cd.explain(5, cache)


def test_a_picture_shows_hits_and_misses(cache: UnifiedCache, tmp_path: Path) -> None:
    with cd.caching(cache, scheduler="sync", which="all"):
        dask.delayed(inc)(1).compute()
    picture = cd.visualize(graph(), tmp_path / "graph.svg", cache)
    root = ET.parse(tmp_path / "graph.svg").getroot()
    titles = [title.text for title in root.iter("{http://www.w3.org/2000/svg}title")]
    assert len(titles) == 4
    assert sum("hit: loaded" in str(title) for title in titles) == 1
    assert picture._repr_svg_().startswith("<svg")


def test_a_picture_of_too_much_is_refused(cache: UnifiedCache, tmp_path: Path) -> None:
    many = dask.delayed(total)([dask.delayed(inc)(i) for i in range(500)])
    with pytest.raises(ValueError, match="501 nodes"):
        cd.visualize(many, tmp_path / "graph.svg", cache)
    with pytest.raises(ValueError, match=r"graph.pdf is not an .svg or .png file"):
        cd.visualize(graph(), tmp_path / "graph.pdf", cache)


def test_a_picture_can_be_a_png(cache: UnifiedCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = cd.visualize(graph(), tmp_path / "graph.PNG", cache)
    data = (tmp_path / "graph.PNG").read_bytes()
    assert data.startswith(b"\x89PNG")
    width, height = (int(ET.fromstring(picture.svg).attrib[name]) for name in ("width", "height"))
    assert struct.unpack(">II", data[16:24]) == (2 * width, 2 * height)
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(MissingExtra, match="pip install resvg-py"):
        cd.visualize(graph(), tmp_path / "other.png", cache)
    assert not (tmp_path / "other.png").exists()


def test_the_history_reads_well(cache: UnifiedCache) -> None:
    with cd.caching(cache, scheduler="sync") as run:
        dask.delayed(inc)(1).compute()
        dask.delayed(inc)(1).compute()
    assert [(record.hits, record.misses) for record in run.history] == [(0, 1), (1, 0)]
    assert "1 hit" in str(run)
    assert "<table>" in run._repr_html_()
