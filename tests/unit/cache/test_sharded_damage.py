"""Nothing of a folder of shards is believed unchecked, and its check finds what is damaged."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from caches import CLASS_NAMES, RECIPE, everything, make_batch, make_row, write_cache
from folders import name
from headstart.cache.integrity import verify_file
from headstart.cache.reader import open_cache
from headstart.cache.shards import MANIFEST
from headstart.cache.writer import ShardWriter
from headstart.errors import CacheError

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (lambda shard: shard.unlink(), "the shard .*1.h5 is missing"),
        (lambda shard: shard.write_bytes(shard.read_bytes()[:-1]), "bytes, not the"),
        (lambda shard: (shard.rename(shard.parent / "x"), shard.symlink_to("x")), "is missing"),
    ],
)
def test_a_shard_that_is_gone_or_of_another_size_is_refused_at_once(folder: Path, harm: Any, sentence: str) -> None:
    harm(folder / name(1))
    with pytest.raises(CacheError, match=sentence):
        open_cache(folder)


def test_damage_in_a_shard_is_an_error_that_names_shard_row_and_image(folder: Path) -> None:
    with h5py.File(folder / name(1)) as file:
        info = file["features"].id.get_chunk_info(1)
    with (folder / name(1)).open("r+b") as file:
        file.seek(info.byte_offset)
        file.write(bytes(info.size))
    with open_cache(folder) as cache:
        cache.pooled([4])
        with pytest.raises(CacheError, match=rf"row 4 of /features, the image .*4\.jpg, .*shard {name(1)}"):
            next(cache.batches([3, 4]))


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"recipe": replace(RECIPE, resize="other")}, r"another recipe .*resize"),
        ({"numbers": [3, 4, 5]}, "it has 3 rows, not the 2"),
        ({"map_shape": (2, 3, 5)}, "rows of shape"),
    ],
)
def test_another_file_in_the_place_of_a_shard_is_refused(
    folder: Path, tmp_path: Path, other: dict[str, Any], sentence: str
) -> None:
    made_up = tmp_path / "other" / name(1)
    made_up.parent.mkdir()
    if "map_shape" in other:
        with ShardWriter(made_up, recipe=RECIPE, class_names=CLASS_NAMES) as writer:
            writer.append(make_batch([3, 4], other["map_shape"]), [make_row(3), make_row(4)])
    else:
        write_cache(made_up, **{"numbers": [3, 4], **other})
    shutil.copy(made_up, folder / name(1))
    tell_lie(folder, "shards/size_bytes", 1, made_up.stat().st_size)
    with open_cache(folder) as cache, pytest.raises(CacheError, match=sentence):
        cache.pooled([3])


def tell_lie(folder: Path, column: str, row: int, value: Any) -> None:
    """Change a value of the manifest, and its digest with it, as somebody would who wants to be believed."""
    with h5py.File(folder / MANIFEST, "r+") as file:
        dataset = file[column]
        values = dataset[...]
        values[row] = value
        if values.dtype.kind == "S":
            values = values.astype(h5py.string_dtype("utf-8", dataset.dtype.itemsize))
        dataset[...] = values
        dataset.attrs["sha256"] = np.bytes_(hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest())


@pytest.mark.parametrize(
    ("column", "value", "sentence"),
    [
        ("shards/name", b"../else.h5", "not the name of an .h5 file in its folder"),
        ("shards/name", b"/tmp/else.h5", "not the name of an .h5 file in its folder"),
        ("shards/name", b"a/b.h5", "not the name"),
        ("shards/name", b"..\\else.h5", "not the name"),
        ("shards/name", b".hidden.h5", "not the name"),
        ("shards/name", b"", "not the name"),
        ("shards/name", name(0).encode(), "twice"),
        ("shards/name", name(7).encode(), "is missing"),
        ("shards/size_bytes", 5, "not the 5 that the manifest says"),
        ("shards/size_bytes", -5, "negative"),
        ("shards/n_images", 1, "which has 1"),
        ("rows/shard", 3, "not among the 3"),
        ("rows/shard", -1, "not among the 3"),
        ("rows/shard_row", 2, "row 1 is to be row 2|which has"),
        ("rows/shard_row", -1, "which has"),
        ("rows/label", 7, "lies outside"),
    ],
)
def test_a_manifest_that_lies_is_refused(folder: Path, column: str, value: Any, sentence: str) -> None:
    row = 3 if column.startswith("rows/") else 1
    tell_lie(folder, column, row, value)
    with pytest.raises(CacheError, match=sentence):
        open_cache(folder)


@pytest.mark.parametrize(
    ("attribute", "value", "sentence"),
    [
        ("map_shape", b"[2, 3]", "map_shape"),
        ("map_shape", b"[200000, 3000, 4]", "more than"),
        ("map_shape", b"[2, 3, -4]", "map_shape"),
        ("compression", b"lzma", "compression"),
        ("format", b"headstart-cache", "no manifest of shards"),
    ],
)
def test_a_manifest_with_attributes_that_cannot_be_is_refused(
    folder: Path, attribute: str, value: bytes, sentence: str
) -> None:
    with h5py.File(folder / MANIFEST, "r+") as file:
        del file.attrs[attribute]
        file.attrs.create(attribute, np.bytes_(value), dtype=h5py.string_dtype("utf-8", len(value)))
    with pytest.raises(CacheError, match=sentence):
        open_cache(folder)


def test_a_cache_that_is_one_file_is_no_manifest(folder: Path) -> None:
    shutil.copy(folder / name(0), folder / MANIFEST)
    with pytest.raises(CacheError, match="no manifest of shards"):
        open_cache(folder)


def findings(folder: Path) -> list[str]:
    return [str(finding) for finding in verify_file(folder)]


def test_a_whole_folder_has_no_finding_and_every_row_is_counted(folder: Path) -> None:
    announced: list[int] = []
    read: list[int] = []
    assert list(verify_file(folder, start=announced.append, advance=read.append)) == []
    assert (announced, sum(read)) == ([9], 9)


def test_verify_tells_a_missing_shard_once_and_goes_on(folder: Path) -> None:
    (folder / name(1)).unlink()
    with h5py.File(folder / name(2)) as file:
        offset = file["features"].id.get_chunk_info(3).byte_offset
    flip(folder / name(2), offset)
    read: list[int] = []
    found = list(verify_file(folder, advance=read.append))
    assert [(finding.place, finding.row) for finding in found] == [(name(1), None), (name(2), None), ("/features", 8)]
    assert "missing; none of its rows" in str(found[0])
    assert "not the file that the manifest names (SHA-256). Expected" in str(found[1])
    assert sum(read) == 9


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


@pytest.mark.usefixtures("without_sandbox")
def test_every_byte_of_a_manifest_and_a_shard_matters_or_is_noticed(folder: Path) -> None:
    """Whatever byte is flipped: verify finds it, or the folder says what it said; never anything else."""
    whole = everything(folder)
    for path in (folder / MANIFEST, folder / name(1)):
        content = path.read_bytes()
        for position in range(0, len(content), 499):
            flip(path, position)
            try:
                changed: Any = everything(folder)
            except CacheError:
                changed = "refused"
            try:
                silent = not findings(folder)
            except CacheError:
                silent = False
            assert changed in (whole, "refused")
            if changed == "refused" or path.name != MANIFEST:
                assert not silent, (path.name, position)
            path.write_bytes(content)


@pytest.mark.parametrize(
    ("column", "value", "place"),
    [
        ("shards/sha256", 0, name(1)),
        ("shards/size_bytes", 5, name(1)),
        ("shards/name", b"../else.h5", "file"),
        ("rows/shard_row", 7, "file"),
        ("rows/features_sha256", 0, "/features"),
        ("rows/label", 7, "/rows/label"),
    ],
)
def test_verify_finds_what_a_manifest_lies_about(folder: Path, column: str, value: Any, place: str) -> None:
    tell_lie(folder, column, 1, value)
    assert [finding.place for finding in verify_file(folder)] == [place]


def test_verify_refuses_what_is_no_folder_of_shards(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="folder without"):
        findings(tmp_path)
    (folder / MANIFEST).write_bytes(b"nothing")
    assert findings(folder) == ["file: its manifest cannot be opened: it does not begin as an HDF5 file does."]
    shutil.copy(folder / name(0), folder / MANIFEST)
    with pytest.raises(CacheError, match="no manifest of shards"):
        findings(folder)
