"""verify finds whatever is wrong with a file, all of it, and nothing where nothing is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from caches import everything, failure, write_cache
from headstart.cache.integrity import Finding, verify_file
from headstart.cache.reader import open_cache
from headstart.errors import CacheError, HeadstartError

#: Prime, so that the positions fall differently into every structure.
STRIDE = 127


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return write_cache(tmp_path / "a.h5", range(7), failures=[failure()], compression="none")


def findings(path: Path) -> list[Finding]:
    return list(verify_file(path))


def outcome(path: Path) -> object:
    """Everything that a cache says, or that it is refused."""
    try:
        return everything(path)
    except HeadstartError:
        return "refused"


def verdict(path: Path) -> object:
    """The findings, or the sentence that says why there are none."""
    try:
        return [str(finding) for finding in verify_file(path)]
    except HeadstartError as error:
        return str(error)


def flip(path: Path, position: int, bits: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= bits
    path.write_bytes(data)


def redo_digest(dataset: Any) -> None:
    dataset.attrs[  # as faulty software would, which believes in what it wrote
        "sha256"
    ] = np.bytes_(hashlib.sha256(dataset[...].tobytes()).hexdigest())


@pytest.mark.parametrize("compression", ["zstd", "gzip", "none"])
def test_a_whole_cache_has_no_finding_and_every_row_is_counted(tmp_path: Path, compression: str) -> None:
    path = write_cache(tmp_path / "a.h5", range(300), failures=[failure()], compression=compression)
    announced: list[int] = []
    read: list[int] = []
    assert list(verify_file(path, start=announced.append, advance=read.append)) == []
    assert announced == [300]
    assert sum(read) == 300
    assert len(read) > 1


def test_an_empty_cache_is_whole(tmp_path: Path) -> None:
    assert findings(write_cache(tmp_path / "a.h5", [])) == []


@pytest.mark.usefixtures("without_sandbox")
@pytest.mark.parametrize(
    ("compression", "stride"),
    [("zstd", STRIDE), *(pytest.param(c, 61, marks=pytest.mark.faults) for c in ("zstd", "gzip", "none"))],
)
def test_a_flipped_byte_is_found_or_changes_nothing(tmp_path: Path, compression: str, stride: int) -> None:
    original = write_cache(tmp_path / "a.h5", range(3), failures=[failure()], compression=compression)
    data, expected = original.read_bytes(), everything(original)
    positions = sorted({*range(0, 48, 1 if stride < STRIDE else 7), *range(0, len(data), stride)})
    assert stride == STRIDE or len(positions) > 150
    path, n_found = tmp_path / "flipped.h5", 0
    for position in positions:
        path.write_bytes(data)
        flip(path, position, 1 << position % 8 if position % 2 else 0xFF)
        said, read = verdict(path), outcome(path)
        assert said or read == expected, f"byte {position} changes what is read, and nothing is said of it"
        assert not said or read != expected or isinstance(said, list), f"byte {position}: {said}"
        n_found += bool(said)
    assert n_found > 0.8 * len(positions)


def test_all_damaged_rows_are_listed_with_their_images_and_the_rest_is_read(cache: Path) -> None:
    data = cache.read_bytes()
    with open_cache(cache) as opened:
        places = [
            data.index(opened.read_chunk(name, row)[1])
            for name, row in [("features", 1), ("features", 4), ("pooled", 4)]
        ]
    for place in places:
        flip(cache, place + 3)
    found = findings(cache)
    assert [(f.place, f.row, f.image) for f in found] == [
        ("/features", 1, "bees/1.jpg"),
        ("/features", 4, "ants/4.jpg"),
        ("/pooled", 4, "ants/4.jpg"),
    ]
    assert str(found[0]).startswith("/features, row 1 (bees/1.jpg): it cannot be read")


def swap_rows(file: Any) -> None:
    """The error that no checksum sees: two rows of features change places."""
    file["features"][[2, 3]] = file["features"][...][[3, 2]]


def not_finite(file: Any) -> None:
    file["pooled"][5, 1] = np.nan


def label_too_large(file: Any) -> None:
    file["rows/label"][3] = 2
    redo_digest(file["rows/label"])


def class_twice(file: Any) -> None:
    file["class_names"][1] = b"ants"
    redo_digest(file["class_names"])


def path_empty(file: Any) -> None:
    file["rows/path"][6] = b""
    redo_digest(file["rows/path"])


def other_values(file: Any) -> None:
    file["rows/mtime_ns"][0] = 5


def other_layer(file: Any) -> None:
    file["pooled_column_layer"][2] = b"behind"
    redo_digest(file["pooled_column_layer"])


def column_missing(file: Any) -> None:
    del file["rows/width_px"]


def fewer_rows(file: Any) -> None:
    file["features"].resize(6, axis=0)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            swap_rows,
            ["/features, row 2 (ants/2.jpg): features and averages", "/features, row 3 (bees/3.jpg): features"],
        ),
        (not_finite, ["/pooled, row 5 (bees/5.jpg): 1 values are not", "/features, row 5 (bees/5.jpg): features and"]),
        (label_too_large, ["/rows/label, row 3 (bees/3.jpg): there is no such class. Expected: -1 to 1. Received: 2."]),
        (class_twice, ["/class_names: a class name is empty or occurs twice."]),
        (path_empty, ["/rows/path, row 6: the path is empty."]),
        (other_values, ["/rows/mtime_ns: its values are not those that were written"]),
        (other_layer, ["/pooled_column_layer: column 2 is of another layer. Expected: before. Received: behind."]),
        (column_missing, ["/rows/width_px: /rows/width_px is missing."]),
        (fewer_rows, ["/features: /features has the shape (6, 2, 3, 4) where 7 images were announced."]),
    ],
)
def test_what_software_did_wrong_is_found(cache: Path, change: Callable[[Any], None], expected: list[str]) -> None:
    with h5py.File(cache, "r+") as file:
        change(file)
    found = [str(finding) for finding in findings(cache)]
    assert len(found) == len(expected)
    assert all(text.startswith(start) for text, start in zip(found, expected, strict=True)), found


def test_columns_of_other_layers_than_the_recipe_are_not_read(cache: Path) -> None:
    with h5py.File(cache, "r+") as file:
        other_layer(file)
    with (
        open_cache(cache) as opened,
        pytest.raises(CacheError, match=r"layers before, behind, before, but .* names before"),
    ):
        list(opened.batches())


def test_a_column_says_which_rows_cannot_be_read(cache: Path) -> None:
    with h5py.File(cache) as file:
        info = file["rows/path"].id.get_chunk_info(0)
    flip(cache, info.byte_offset + 2)
    found = findings(cache)
    assert [finding.place for finding in found] == ["/rows/path"]
    assert "the rows 0 to 6 cannot be read" in found[0].what


def test_several_faults_are_all_listed(cache: Path) -> None:
    with h5py.File(cache, "r+") as file:
        for change in (column_missing, other_values, swap_rows, label_too_large):
            change(file)
    assert [finding.place for finding in findings(cache)] == [
        "/rows/width_px", "/rows/mtime_ns", "/rows/label", "/features", "/features",
    ]  # fmt: skip


def test_what_is_no_cache_is_refused_and_what_cannot_be_opened_is_a_finding(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(CacheError, match="There is no cache"):
        findings(tmp_path / "none.h5")
    with h5py.File(tmp_path / "other.h5", "w", libver=("v110", "v110")):
        pass
    with pytest.raises(CacheError, match="no feature cache"):
        findings(tmp_path / "other.h5")
    cache.write_bytes(cache.read_bytes()[:5000])
    assert [finding.place for finding in findings(cache)] == ["file"]
