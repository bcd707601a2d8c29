"""HDF5 files of other programs are imported, or it is said what they hold; none is called damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from foreign_arrays import WIDTH, N, arrays
from headstart.cache.integrity import verify_file
from headstart.cache.other_hdf5 import open_other
from headstart.cache.reader import open_cache
from headstart.errors import CacheError, HeadstartError
from headstart.exchange.import_features import Import, import_features

pytestmark = pytest.mark.slow


def hdf5(path: Path, version: str = "earliest", **datasets: Any) -> Path:
    with h5py.File(path, "w", libver=(version, "latest")) as file:
        for name, value in datasets.items():
            file.create_dataset(name, **(value if isinstance(value, dict) else {"data": value}))
    return path


def imported(path: Path) -> Import:
    return import_features(path, path.with_name("made.h5"), name="dino")


def book(**changes: Any) -> dict[str, Any]:
    """The layout of a tutorial: features, labels and label_names."""
    ours = arrays()
    names = {"data": ["ants", "bees"], "dtype": h5py.string_dtype()}
    return {"features": ours["X"], "labels": ours["y"], "label_names": names, **changes}


@pytest.mark.parametrize("version", ["earliest", "v108", "v110"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"chunks": (5, 4)},
        {"chunks": (5, WIDTH), "compression": "gzip", "shuffle": True},
        {"compression": "gzip", "chunks": (1, 1)},
        {"compression": "lzf"},
        {"chunks": True, "fletcher32": True},
        {"dtype": ">f8"},
    ],
)
def test_features_labels_and_names(tmp_path: Path, version: str, options: dict[str, Any]) -> None:
    ours = arrays()
    path = hdf5(tmp_path / "book.hdf5", version, **book(features={"data": ours["X"], **options}))
    made = imported(path)
    with open_cache(made.output) as cache:
        (batch,) = cache.batches()
        np.testing.assert_array_equal(batch.features.reshape(N, WIDTH), ours["X"])
        assert cache.labels.tolist() == ours["y"].tolist()
        assert cache.class_names == ("ants", "bees")
        assert cache.paths[0] == "row-000001"
    assert "Taken: features as X, labels as y, label_names as class_names." in made.notices


@pytest.mark.parametrize("dtype", [h5py.string_dtype(), h5py.string_dtype("ascii"), h5py.string_dtype(length=40)])
def test_paths_and_labels_as_text(tmp_path: Path, dtype: Any) -> None:
    ours = arrays()
    labels = [ours["class_names"][label] for label in ours["y"]]
    texts = {
        name: {"data": value, "dtype": dtype} for name, value in (("filenames", ours["paths"].tolist()), ("y", labels))
    }
    with open_cache(imported(hdf5(tmp_path / "a.h5", X=ours["X"], **texts)).output) as cache:
        assert cache.paths == ours["paths"].tolist()
        assert [cache.class_names[label] for label in cache.labels] == labels


@pytest.mark.parametrize("version", ["earliest", "v110"])
def test_a_file_of_another_layout_is_not_called_damaged(tmp_path: Path, version: str) -> None:
    path = hdf5(tmp_path / "a.h5", version, **book())
    for use in (open_cache, lambda path: list(verify_file(path))):
        with pytest.raises(CacheError, match=r"is an HDF5 file, but no feature cache.*headstart import") as error:
            use(path)
        assert "damaged" not in str(error.value)
    if version == "earliest":
        assert "features (12 × 6, float32), label_names (2, text), labels (12, int64)" in str(error.value)


def test_a_format_of_another_program_is_not_ours(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "a.h5", "v110", **book())
    with h5py.File(path, "a") as file:
        file.attrs["format"] = "theirs"
    with pytest.raises(CacheError, match="but no feature cache"):
        open_cache(path)
    assert imported(path).n_images == N


def test_datasets_in_groups_are_named(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "a.h5", **{"train/X": arrays()["X"], "test/X": arrays()["X"], "note": "text"})
    with pytest.raises(HeadstartError, match=r"must hold the features as X .*Received: note, test/X, train/X"):
        imported(path)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:3000])


def deflated_short(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["features"].id.write_direct_chunk((0, 0), b"x\x9c\x03\x00\x00\x00\x00\x01")


def external(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["features"]
        file.create_dataset("features", (N, WIDTH), "<f4", external=[("/etc/passwd", 0, N * WIDTH * 4)])


def virtual(path: Path) -> None:
    layout = h5py.VirtualLayout((N, WIDTH), "<f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "X", (N, WIDTH))
    with h5py.File(path, "a") as file:
        del file["features"]
        file.create_virtual_dataset("features", layout)


def linked(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["features"]
        file["features"] = h5py.ExternalLink("/etc/passwd", "X")


@pytest.mark.parametrize(
    ("features", "harm", "words"),
    [
        ({"shape": (10**9, 512), "dtype": "<f4"}, None, "is not stored"),
        ({"shape": (10**9, 512), "dtype": "<f4", "chunks": (1, 512)}, None, "never written"),
        ({"shape": (10, 2**27), "dtype": "<f4", "data": None}, None, "is not stored"),
        (
            {"data": arrays()["X"], "chunks": True, "compression": "gzip", "scaleoffset": 2},
            None,
            r"filters \[6\], which are not",
        ),
        ({"data": arrays()["X"].astype(complex)}, None, "neither numbers nor text"),
        ({"data": [("a", 1)], "dtype": [("a", "S1"), ("b", "<i4")]}, None, "neither numbers nor text"),
        ({"data": h5py.Empty("f4")}, None, "neither numbers nor text"),
        ({"data": arrays()["y"]}, None, "features must be float16"),
        (
            {"data": arrays()["X"], "chunks": (N, WIDTH), "compression": "gzip"},
            deflated_short,
            "it is damaged, and not all of it can be read",
        ),
        ({"data": arrays()["X"]}, external, "lies in another file"),
        ({"data": arrays()["X"]}, virtual, "lies in another file"),
        ({"data": arrays()["X"]}, linked, "must hold the features as X"),
        ({"data": arrays()["X"]}, truncated, "cannot be read as HDF5"),
    ],
)
def test_what_cannot_be_read_is_refused_in_words(
    tmp_path: Path, features: dict[str, Any], harm: Callable[[Path], None] | None, words: str
) -> None:
    path = hdf5(tmp_path / "a.h5", **book(features=features))
    if harm:
        harm(path)
    with pytest.raises(HeadstartError, match=words):
        imported(path)
    assert not (tmp_path / "made.h5").exists()


def test_text_that_is_too_long_is_refused(tmp_path: Path) -> None:
    paths = {"data": ["a" * 40_000] + ["b"] * (N - 1), "dtype": h5py.string_dtype()}
    with pytest.raises(HeadstartError, match="a string has a NUL or more than 32,767 bytes"):
        imported(hdf5(tmp_path / "a.h5", **book(paths=paths)))


def test_values_are_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.cache.other_hdf5.BLOCK_BYTES", 3 * 4 * WIDTH)
    names = {"data": arrays()["paths"].tolist(), "dtype": h5py.string_dtype()}
    with open_other(hdf5(tmp_path / "a.h5", **book(paths=names))) as file:
        features, paths = file.array("X", "features"), file.array("paths")
        assert features is not None
        assert paths is not None
        assert [len(block) for block in features.blocks()] == [3, 3, 3, 3]
        assert np.concatenate([*paths.blocks()]).tolist() == [path.encode() for path in arrays()["paths"]]
