"""Features made elsewhere become a cache that heads can use; what cannot be is refused in words."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caches import write_cache
from foreign_arrays import WIDTH, N, arrays, imported
from headstart.cache.reader import open_cache
from headstart.errors import DataError, HeadstartError, RecipeMismatchError
from headstart.evaluate.quality_report import inspect_quality
from headstart.evaluation import evaluate_head
from headstart.exchange import untrusted_arrays
from headstart.exchange.export_features import convert
from headstart.exchange.given_columns import GivenFeatures
from headstart.exchange.import_features import check_lengths, described, import_features
from headstart.exchange.keras_file import export_keras
from headstart.fit import fit_head
from headstart.predict import Predictor
from headstart.types import ImageRef

pytestmark = pytest.mark.slow


def test_a_row_is_what_was_given(tmp_path: Path) -> None:
    split = np.array([["train", "val", ""][i % 3] for i in range(N)])
    group = np.array([f"g{i // 2}" if i < 6 else "" for i in range(N)])
    with open_cache(imported(tmp_path, split=split, group=group, y=np.array([-1, *([0, 1] * 6)][:N]))) as cache:
        (batch,) = cache.batches()
        np.testing.assert_array_equal(batch.features, arrays()["X"].reshape(N, 1, 1, WIDTH))
        assert batch.features.dtype == np.float32
        assert cache.n_pooled == 0
        assert cache.recipe.backbone == "foreign:dino"
        assert cache.class_names == ("ants", "bees")
        assert cache.labels.tolist() == [-1, *([0, 1] * 6)][:N]
        assert cache.paths == arrays()["paths"].tolist()
        assert cache.splits[:3] == ["train", "validation", ""]
        assert cache.groups == group.tolist()
        path, features = cache.paths[3].encode(), batch.features[3].tobytes()
        assert cache.sha256[3] == hashlib.sha256(b"foreign-1\0" + path + b"\0" + features).hexdigest()
        assert cache.info["row_identity"] == "digest of path and features"


def test_heads_are_fitted_scored_and_not_applied_to_images(tmp_path: Path) -> None:
    cache = imported(tmp_path)
    result = fit_head(cache, "logistic", output=tmp_path / "head")
    assert result.score.accuracy == 1
    score, _ = evaluate_head(tmp_path / "head", cache)
    assert score.accuracy == 1
    with pytest.raises(RecipeMismatchError, match=r"foreign:dino.*headstart import"):
        Predictor(tmp_path / "head", weights="absent.h5")
    with pytest.raises(RecipeMismatchError, match="foreign:dino"):
        export_keras(tmp_path / "head", tmp_path / "m.keras", weights="absent.h5")


def test_features_of_another_name_are_another_recipe(tmp_path: Path) -> None:
    fit_head(imported(tmp_path), "logistic", output=tmp_path / "head")
    import_features(tmp_path / "x.npz", tmp_path / "y.h5", name="clip")
    with pytest.raises(RecipeMismatchError, match="foreign:dino ≠ foreign:clip"):
        evaluate_head(tmp_path / "head", tmp_path / "y.h5")


@pytest.mark.parametrize("kind", ["npz", "h5", "parquet"])
@pytest.mark.parametrize("features", ["flatten", "avg"])
def test_what_was_converted_comes_back(tmp_path: Path, features: str, kind: str) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    original, between = write_cache(tmp_path / "a.h5", range(9)), tmp_path / f"between.{kind}"
    convert(original, between, features=(features,))
    made = import_features(between, tmp_path / "b.h5", name="again")
    with open_cache(original) as old, open_cache(made.output) as new:
        maps = np.concatenate([b.features.astype(np.float32) for b in old.batches()])
        expected = maps if features == "flatten" else maps.mean(axis=(1, 2), keepdims=True, dtype=np.float32)
        np.testing.assert_array_equal(np.concatenate([b.features for b in new.batches()]), expected)
        assert (new.paths, new.splits, new.groups) == (old.paths, old.splits, old.groups)
        assert (new.labels.tolist(), new.class_names) == (old.labels.tolist(), old.class_names)
        assert new.sha256 == old.sha256
        assert json.loads(new.info["source_recipe"]) == json.loads(old.recipe.to_json())


@pytest.mark.parametrize(
    ("changes", "options", "labels", "names"),
    [
        ({"y": None}, {}, [-1] * N, ("ants", "bees")),
        ({"y": None, "class_names": None}, {}, [-1] * N, ()),
        ({"class_names": None}, {}, [0, 1] * 6, ("0", "1")),
        ({"class_names": None, "y": np.array([7, 30] * 6)}, {}, [0, 1] * 6, ("7", "30")),
        ({"class_names": None, "y": np.array(["b", "a", ""] * 4)}, {}, [1, 0, -1] * 4, ("a", "b")),
        ({"y": np.array([b"bees", b"ants"] * 6)}, {}, [1, 0] * 6, ("ants", "bees")),
        ({}, {"class_names": ["x", "y", "z"]}, [0, 1] * 6, ("x", "y", "z")),
        ({"y": np.array([0, 1] * 6, ">u2")}, {}, [0, 1] * 6, ("ants", "bees")),
        ({"y": np.array([0.0, 1.0] * 6)}, {}, [0, 1] * 6, ("ants", "bees")),
        ({"y": np.array([[0], [1]] * 6)}, {}, [0, 1] * 6, ("ants", "bees")),
        ({"y": np.array([False, True] * 6)}, {}, [0, 1] * 6, ("ants", "bees")),
        ({"y": np.eye(2)[[0, 1] * 6]}, {}, [0, 1] * 6, ("ants", "bees")),
        ({"class_names": None, "y": np.array(["cafe\u0301", "caf\u00e9 "] * 6)}, {}, [0] * N, ("caf\u00e9",)),
        ({"y": np.array([0, -1, 1] * 4)}, {"class_names": [" ants", "bees"]}, [0, -1, 1] * 4, ("ants", "bees")),
    ],
)
def test_labels(
    tmp_path: Path, changes: dict[str, Any], options: dict[str, Any], labels: list[int], names: tuple[str, ...]
) -> None:
    with open_cache(imported(tmp_path, options, **changes)) as cache:
        assert cache.labels.tolist() == labels
        assert cache.class_names == names


@pytest.mark.parametrize(
    ("features", "labels", "names"),
    [("X", "y", None), ("features", "labels", "label_names"), ("embeddings", "targets", "target_names")],
)
def test_archives_of_others_without_paths(tmp_path: Path, features: str, labels: str, names: str | None) -> None:
    ours = arrays()
    theirs = {features: ours["X"], labels: ours["y"], "epoch": np.array([3])}
    np.savez(tmp_path / "x.npz", **theirs, **({names: ours["class_names"]} if names else {}))
    made = import_features(tmp_path / "x.npz", tmp_path / "x.h5", name="dino")
    with open_cache(made.output) as cache:
        assert (cache.paths[0], cache.paths[-1]) == ("row-000001", "row-000012")
        assert cache.labels.tolist() == ours["y"].tolist()
        assert cache.class_names == (("ants", "bees") if names else ("0", "1"))
    assert "Not used: epoch." in made.notices
    assert any("rows are called row-000001" in notice for notice in made.notices)
    assert (f"Taken: {features} as X, {labels} as y" in " ".join(made.notices)) == (features != "X")


def test_doubtful_labels_are_asked_about(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **arrays(y=np.array(["Ant", "ant", "nan"] * 4), class_names=None))
    asked = " ".join(import_features(tmp_path / "x.npz", tmp_path / "x.h5", name="dino").notices)
    assert "Ant, ant: the same class?" in asked
    assert 'nan: is this "no label"?' in asked


def test_maps_with_the_channels_first_are_asked_about(tmp_path: Path) -> None:
    maps = np.random.default_rng(0).random((N, 6, 3, 3)).astype(np.float32)
    np.savez(tmp_path / "x.npz", **arrays(X=maps))
    assert "taken as 6 × 3 positions of 3 channels" in " ".join(
        import_features(tmp_path / "x.npz", tmp_path / "x.h5", name="dino").notices
    )
    np.savez(tmp_path / "y.npz", **arrays(X=np.ascontiguousarray(np.moveaxis(maps, 1, -1))))
    assert not import_features(tmp_path / "y.npz", tmp_path / "y.h5", name="dino").notices


@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8"])
@pytest.mark.parametrize("shape", [(N, 24), (N, 2, 3, 4)])
def test_any_floating_type_and_both_shapes(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    X = np.random.default_rng(0).normal(size=shape).astype(dtype)
    with open_cache(imported(tmp_path, X=X)) as cache:
        (batch,) = cache.batches()
        np.testing.assert_array_equal(batch.features.reshape(shape), X.astype(np.float32))


@pytest.mark.parametrize("form", ["text", "bytes"])
def test_digests_of_the_images_are_kept(tmp_path: Path, form: str) -> None:
    raw = [hashlib.sha256(bytes([i])).digest() for i in range(N)]
    given = np.frombuffer(b"".join(raw), np.uint8).reshape(N, 32)
    cache = imported(tmp_path, sha256=given if form == "bytes" else np.array([one.hex().upper() for one in raw]))
    with open_cache(cache) as opened:
        assert opened.sha256 == [one.hex() for one in raw]
        assert opened.info["row_identity"] == "digest of the image file"


def with_value(value: float) -> np.ndarray:
    X = arrays()["X"].astype(np.float64)
    X[7, 2] = value
    return X


def with_path(path: str) -> np.ndarray:
    return np.array([path, *arrays()["paths"][1:]])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"X": None}, "must hold the features as X .*Received: class_names, paths, y"),
        ({"X": None, "X_test": arrays()["X"], "X_train": arrays()["X"]}, r"Join X_test, X_train: X=np\.concatenate"),
        ({"X": np.zeros((N, 3), np.int64)}, "X must be float16"),
        ({"X": np.zeros((N, 3, 3), np.float32)}, "X must be float16"),
        ({"X": np.zeros((N, 0), np.float32)}, "X holds nothing"),
        ({"X": with_value(np.nan)}, r"b/7\.jpg: a feature is nan"),
        ({"X": with_value(1e300)}, r"b/7\.jpg: a feature is 1e\+300"),
        ({"X": np.asfortranarray(arrays()["X"])}, "ascontiguousarray"),
        (
            {"X": np.ascontiguousarray(arrays()["X"].T)},
            r"X has 6 rows and 12 columns, and y has 12 values: .* transposed\. Save np\.ascontiguousarray\(X\.T\)",
        ),
        ({"X": np.array([[1.0, None]] * N, object)}, "pickle"),
        ({"paths": arrays()["paths"].astype(object)}, "pickle"),
        ({"paths": arrays()["paths"][1:]}, r"paths must hold text, shape \(12,\)"),
        ({"paths": np.array(["a.jpg"] * N)}, "stands for two rows"),
        ({"paths": with_path("../a.jpg")}, "inside of it"),
        ({"paths": with_path("/etc/passwd")}, "inside of it"),
        ({"paths": with_path("C:\\a.jpg")}, "inside of it"),
        ({"paths": with_path("")}, "inside of it"),
        ({"paths": with_path("a\0b.jpg")}, "inside of it"),
        ({"paths": with_path("\ud800.jpg")}, "not text"),
        ({"y": np.arange(N)}, "Received: 0 to 11"),
        ({"y": np.array([-2, 1] * 6)}, "Received: -2 to 1"),
        ({"y": np.array([0.0, 0.5] * 6)}, "y holds 0.5, which is not a class: a measured quantity"),
        ({"y": np.array([0.0, np.nan] * 6)}, "y holds nan, which is not a class"),
        ({"y": np.full((N, 2), 0.5)}, "A row of y has 2 numbers that are not 0 with a single 1"),
        ({"y": np.array([-1, 1] * 6), "class_names": None}, "If these are two classes, write 0 and 1"),
        ({"y": np.array([None, "ants"] * 6)}, "pickle"),
        ({"y": np.array(["ants", "wasps"] * 6)}, "wasps"),
        ({"y": np.zeros((N, 1, 1), np.int64)}, r"Received: int64 of shape \(12, 1, 1\)"),
        ({"class_names": np.array(["ants", "ants"])}, "must be different"),
        ({"split": np.array(["train", "later"] * 6)}, "'later'"),
        ({"group": np.array(["g"])}, "group must hold text"),
        ({"sha256": np.array(["ab"] * N)}, "64 hexadecimal digits"),
        ({"map_shape": np.array([7, 7, 512])}, "no flattened maps"),
        ({"map_shape": np.array([-1, -1, 6])}, "no flattened maps"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_words(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(HeadstartError, match=words):
        imported(tmp_path, **changes)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "x.npz"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "../x"}, "A name has"),
        ({"name": ""}, "A name has"),
        ({"source": "absent.npz"}, "no file"),
        ({"source": "x.mat"}, r"ends in \.npz, \.h5, \.hdf5, \.parquet.*np\.savez"),
        ({"output": "y.npz"}, r"ends in \.h5"),
        ({"output": "old.h5"}, "overwrite=True"),
    ],
)
def test_arguments_are_looked_at_first(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    np.savez(tmp_path / "x.npz", **arrays())
    (tmp_path / "old.h5").write_bytes(b"mine")
    given = {"source": "x.npz", "output": "y.h5", "name": "dino", **options}
    with pytest.raises(DataError, match=words):
        import_features(tmp_path / given["source"], tmp_path / given["output"], name=given["name"])
    assert (tmp_path / "old.h5").read_bytes() == b"mine"


def test_an_existing_cache_is_replaced_when_asked(tmp_path: Path) -> None:
    imported(tmp_path)
    with open_cache(imported(tmp_path, {"overwrite": True}, X=np.ones((N, 2), np.float32))) as cache:
        assert cache.map_shape == (1, 1, 2)


def test_x_is_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untrusted_arrays, "BLOCK_BYTES", 5 * 4 * WIDTH)
    with open_cache(imported(tmp_path)) as cache:
        (batch,) = cache.batches()
        np.testing.assert_array_equal(batch.features.reshape(N, WIDTH), arrays()["X"])
        assert cache.paths == arrays()["paths"].tolist()


def test_images_of_unknown_size_are_not_called_tiny(tmp_path: Path) -> None:
    found = {finding.check.name for finding in inspect_quality(imported(tmp_path)).findings}
    assert found
    assert "tiny" not in found


def test_an_h5_that_is_something_else_is_refused(tmp_path: Path) -> None:
    cache = write_cache(tmp_path / "a.h5", range(3))
    with pytest.raises(HeadstartError, match=r"is a feature cache already\. Give it to fit-head"):
        import_features(cache, tmp_path / "b.h5", name="again")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"path": ["a", "b"], "age": [1, 2], "f": [0.5, 1.0]}, "besides features: age"),
        ({"f": [0.5, 1.0]}, "no path"),
        ({"path": ["a", "b"]}, "no path"),
        ({"path": ["a", "a"], "f": [0.5, 1.0]}, "stands for two rows"),
        ({"path": ["a", "b"], "f": [0.5, None]}, "b: a feature is nan"),
        ({"path": ["a", "b"], "f": [0.5, 1.0], "y": ["x", "y"]}, "must hold whole numbers"),
        ({"path": ["a", "b"], "f": [0.5, 1.0], "label": [1, 2]}, "must hold text"),
        ({"path": ["a", "../b"], "f": [0.5, 1.0]}, "inside of it"),
    ],
)
def test_tables_that_are_not_clear_are_refused(tmp_path: Path, columns: dict[str, Any], words: str) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.table(columns), tmp_path / "x.parquet")
    with pytest.raises(HeadstartError, match=words):
        import_features(tmp_path / "x.parquet", tmp_path / "x.h5", name="dino")


def test_a_table_of_other_programs(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(
        pa.table({"f": [0.5, 1.0, 2.0], "path": ["a", "b", "c"], "y": [1, None, 0]}), tmp_path / "x.parquet"
    )
    import_features(tmp_path / "x.parquet", tmp_path / "x.h5", name="dino", class_names=["ants", "bees"])
    with open_cache(tmp_path / "x.h5") as cache:
        (batch,) = cache.batches()
        assert batch.features.ravel().tolist() == [0.5, 1, 2]
        assert cache.labels.tolist() == [1, -1, 0]


def test_fewer_rows_than_announced_are_noticed(tmp_path: Path) -> None:
    ref = ImageRef("a", None, None, None, 0, 0)
    given = GivenFeatures(shape=(2, 1), blocks=lambda: iter([np.ones((1, 1), np.float32)]), paths=["a", "b"])
    with pytest.raises(DataError, match="X has 1 rows where 2 were announced"):
        list(described(given, [ref, replace(ref, path="b")], (1, 1, 1)))
    with pytest.raises(DataError, match="2 rows, and paths has 1"):
        check_lengths(replace(given, paths=["a"]))
