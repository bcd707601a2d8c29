"""What other programs read is what the cache holds."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caches import CLASS_NAMES, MAP_SHAPE, RECIPE, make_batch, make_row, write_cache
from headstart.backbones.vgg16 import VGG16
from headstart.cache.reader import open_cache
from headstart.cache.writer import ShardWriter
from headstart.errors import CacheError, DataError, HeadstartError, MissingExtraError
from headstart.exchange import export_features
from headstart.exchange.export_features import WRITERS, convert
from headstart.types import FeatureBatch, ImageRef

pytestmark = pytest.mark.slow

N = 150  # more than two batches

#: The value of every row, by its column.
EXPECTED = {
    "paths": [make_row(number).ref.path for number in range(N)],
    "labels": [make_row(number).ref.label or "" for number in range(N)],
    "split": [make_row(number).ref.split or "" for number in range(N)],
    "group": [make_row(number).ref.group or "" for number in range(N)],
    "sha256": [make_row(number).sha256 for number in range(N)],
}
Y = [(*CLASS_NAMES, None).index(make_row(number).ref.label) if number % 3 < 2 else -1 for number in range(N)]

#: Reads a portable file with h5py alone, and prints it.
READ = """
import json, sys, h5py
with h5py.File(sys.argv[1]) as file:
    found = {name: (file[name].asstr()[:] if file[name].dtype.kind == "S" else file[name][:]).tolist() for name in file}
    found |= {"attributes": {name: value.decode() for name, value in file.attrs.items()}, "type": file["X"].dtype.str}
assert "hdf5plugin" not in sys.modules
print(json.dumps(found))
"""


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return write_cache(tmp_path / "a.h5", range(N))


def maps() -> np.ndarray:
    return make_batch(range(N)).features.astype(np.float16).astype(np.float32)


def test_npz_holds_everything_and_no_pickle(cache: Path, tmp_path: Path) -> None:
    written = convert(cache, tmp_path / "b.npz", features=("avg", "max"))
    assert (written.n_samples, written.n_features) == (N, 8)
    with np.load(tmp_path / "b.npz", allow_pickle=False) as data:
        assert data["X"].dtype == np.float32
        np.testing.assert_array_equal(data["X"][:, :4], maps().mean(axis=(1, 2), dtype=np.float32))
        np.testing.assert_array_equal(data["X"][:, 4:], maps().max(axis=(1, 2)))
        assert data["y"].tolist() == Y
        assert {name: data[name].tolist() for name in EXPECTED} == EXPECTED
        assert data["class_names"].tolist() == list(CLASS_NAMES)
        assert data["feature_names"].tolist() == [f"{name}_{i}" for name in ("avg", "max") for i in range(4)]
        assert json.loads(str(data["recipe"])) == json.loads(RECIPE.to_json())
        assert "map_shape" not in data


def test_plain_hdf5_is_read_without_a_plug_in(cache: Path, tmp_path: Path) -> None:
    convert(cache, tmp_path / "b.h5", features=("flatten",))
    command = [sys.executable, "-c", READ, str(tmp_path / "b.h5")]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    np.testing.assert_array_equal(np.array(found["X"], np.float32), maps().reshape(N, -1))
    assert found["type"] == "<f4"
    assert found["y"] == Y
    assert {name: found[name] for name in EXPECTED} == EXPECTED
    assert found["class_names"] == list(CLASS_NAMES)
    assert found["feature_names"] == [f"flatten_{i}" for i in range(24)]
    assert json.loads(found["attributes"]["map_shape"]) == list(MAP_SHAPE)
    assert json.loads(found["attributes"]["recipe"]) == json.loads(RECIPE.to_json())


def test_csv_gives_the_same_float32(cache: Path, tmp_path: Path) -> None:
    convert(cache, tmp_path / "b.csv")
    with (tmp_path / "b.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [*export_features.COLUMNS, "avg_0", "avg_1", "avg_2", "avg_3"]
    values = np.array([[float(row[f"avg_{i}"]) for i in range(4)] for row in rows], np.float32)
    np.testing.assert_array_equal(values, maps().mean(axis=(1, 2), dtype=np.float32))
    assert [int(row["y"]) for row in rows] == Y
    assert [row["path"] for row in rows] == EXPECTED["paths"]


def test_parquet_gives_the_same_float32(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(export_features, "GROUP_VALUES", 4 * 100)
    convert(cache, tmp_path / "b.parquet")
    assert parquet.ParquetFile(tmp_path / "b.parquet").num_row_groups == 2
    table = parquet.read_table(tmp_path / "b.parquet")
    assert table.column_names == [*export_features.COLUMNS, "avg_0", "avg_1", "avg_2", "avg_3"]
    values = np.stack([table[f"avg_{i}"].to_numpy() for i in range(4)], axis=1)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, maps().mean(axis=(1, 2), dtype=np.float32))
    assert table["y"].to_pylist() == Y
    assert table["label"].to_pylist() == [label or None for label in EXPECTED["labels"]]
    facts = json.loads(table.schema.metadata[export_features.METADATA])
    assert facts["class_names"] == list(CLASS_NAMES)
    assert facts["recipe"] == json.loads(RECIPE.to_json())


def test_parquet_without_pyarrow_says_what_to_install(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r'pip install "headstart\[parquet\]"'):
        convert(cache, tmp_path / "b.parquet")


def test_pooled_layers_are_the_columns_that_a_head_gets(tmp_path: Path) -> None:
    recipe = replace(RECIPE, pooled_layers=VGG16.pooled_layers)
    pooled = np.random.default_rng(0).random((3, 1472), np.float32)
    with ShardWriter(tmp_path / "a.h5", recipe=recipe, class_names=CLASS_NAMES) as writer:
        writer.append(
            FeatureBatch(make_batch(range(3)).features, pooled, VGG16.column_layers), [make_row(n) for n in range(3)]
        )
    convert(tmp_path / "a.h5", tmp_path / "b.npz", features=("block2_conv2", "block1_conv2"))
    with np.load(tmp_path / "b.npz") as data:
        np.testing.assert_array_equal(data["X"], np.hstack([pooled[:, 64:192], pooled[:, :64]]))
        assert data["feature_names"][[0, 127, 128]].tolist() == ["block2_conv2_0", "block2_conv2_127", "block1_conv2_0"]


@pytest.mark.parametrize("kind", [*WRITERS])
def test_odd_paths_go_through(tmp_path: Path, kind: str) -> None:
    if kind == ".parquet":
        pytest.importorskip("pyarrow")
    path = 'a,"b"\n\u202eé \udcff.jpg'
    row = make_row(0, path)
    with ShardWriter(tmp_path / "a.h5", recipe=RECIPE, class_names=CLASS_NAMES) as writer:
        writer.append(make_batch([0]), [row])
    output = tmp_path / f"b{kind}"
    convert(tmp_path / "a.h5", output)
    data = output.read_bytes()
    if kind == ".npz":
        with np.load(output) as loaded:
            assert loaded["paths"].tolist() == [path]
    elif kind == ".csv":
        assert next(csv.reader(data.decode("utf-8", "surrogateescape").splitlines(keepends=True)[1:]))[0] == path
    elif kind == ".parquet":
        import pyarrow.parquet

        assert pyarrow.parquet.read_table(output)["path"].to_pylist() == [path.replace("\udcff", "\\xff")]


def test_csv_text_is_no_formula_unless_asked_for_raw(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "a.h5", recipe=RECIPE, class_names=("=1+1", "@b")) as writer:
        writer.append(make_batch([0]), [replace(make_row(0), ref=ImageRef("+x.jpg", "=1+1", None, "-g", 1, 1))])
    for raw, mark in ((False, "'"), (True, "")):
        convert(tmp_path / "a.h5", tmp_path / "b.csv", raw=raw, overwrite=True)
        with (tmp_path / "b.csv").open(newline="") as file:
            row = next(csv.DictReader(file))
        assert [row[name] for name in ("path", "label", "group")] == [f"{mark}+x.jpg", f"{mark}=1+1", f"{mark}-g"]
        assert float(row["y"]) == 0


@pytest.mark.parametrize("kind", [*WRITERS])
def test_equal_content_gives_equal_bytes_and_nothing_is_replaced_unasked(
    cache: Path, tmp_path: Path, kind: str
) -> None:
    if kind == ".parquet":
        pytest.importorskip("pyarrow")
    output = tmp_path / f"b{kind}"
    convert(cache, output)
    first = output.read_bytes()
    with pytest.raises(DataError, match="overwrite=True"):
        convert(cache, output, features=("max",))
    assert output.read_bytes() == first
    convert(cache, output, overwrite=True)
    assert output.read_bytes() == first


@pytest.mark.parametrize("kind", [*WRITERS])
def test_a_row_that_cannot_be_read_leaves_nothing(tmp_path: Path, kind: str) -> None:
    if kind == ".parquet":
        pytest.importorskip("pyarrow")
    cache = write_cache(tmp_path / "a.h5", range(N))
    with open_cache(cache) as opened:
        stored = opened.read_chunk("features", 140)[1]
    cache.write_bytes(cache.read_bytes().replace(stored, bytes([stored[0] ^ 1]) + stored[1:]))
    with pytest.raises(CacheError, match="row 140"):
        convert(cache, tmp_path / f"b{kind}")
    assert list(tmp_path.iterdir()) == [cache]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"output": "b.mat"}, r"\.npz, \.h5, \.parquet, \.csv"),
        ({"output": "a.h5", "overwrite": True}, "the cache itself"),
        ({"raw": True}, "other files hold text as it is"),
        ({"features": ("depth",)}, "depth"),
        ({"features": ("avg", "avg")}, "listed twice"),
        ({"output": "absent/b.npz"}, "No such file"),
    ],
)
def test_what_makes_no_sense_is_refused(cache: Path, tmp_path: Path, options: dict[str, Any], words: str) -> None:
    before = cache.read_bytes()
    given = {"output": "b.npz", **options}
    with pytest.raises(HeadstartError, match=words):
        convert(cache, tmp_path / given.pop("output"), **given)
    assert list(tmp_path.iterdir()) == [cache]
    assert cache.read_bytes() == before


def test_an_empty_cache_has_nothing_to_convert(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no image"):
        convert(write_cache(tmp_path / "a.h5", []), tmp_path / "b.npz")


def test_texts_longer_than_a_block(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_features, "TEXT_BLOCK", 7)
    convert(cache, tmp_path / "b.npz")
    with np.load(tmp_path / "b.npz") as data:
        assert data["paths"].tolist() == EXPECTED["paths"]
    with zipfile.ZipFile(tmp_path / "b.npz") as archive:
        assert archive.testzip() is None
