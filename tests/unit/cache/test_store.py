"""A cache is read in any order, lazily, and only after it has been looked at with suspicion."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from h5py import h5d, h5s, h5t

from caches import CLASS_NAMES, RECIPE, everything, failure, make_batch, make_row, write_cache
from headstart.cache import reader
from headstart.cache.columns import pipeline, stored_bytes
from headstart.cache.reader import open_cache
from headstart.cache.safe_reads import zstd_size
from headstart.cache.writer import ShardWriter
from headstart.errors import CacheError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_cache(tmp_path / "a.h5", range(9), failures=[failure()])


# ---------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("rows", [[], [0], [8, 7, 6], [2, 2, 5, 0, 2], list(range(9)), [3, 4, 5, 0, 1]])
@pytest.mark.parametrize("batch_rows", [1, 4, 256])
def test_rows_come_in_the_order_asked_for(path: Path, rows: list[int], batch_rows: int) -> None:
    with open_cache(path) as cache:
        batches = list(cache.batches(rows, batch_rows))
        assert [len(batch) for batch in batches] == [
            len(rows[i : i + batch_rows]) for i in range(0, len(rows), batch_rows)
        ]
        if rows:
            expected = make_batch(rows)
            np.testing.assert_array_equal(
                np.concatenate([batch.features for batch in batches]), expected.features.astype(np.float16)
            )
            np.testing.assert_array_equal(np.concatenate([batch.pooled for batch in batches]), expected.pooled)
            np.testing.assert_array_equal(cache.pooled(np.array(rows)), expected.pooled)


@pytest.mark.parametrize("rows", [[9], [-1], [0, 100]])
def test_a_row_that_is_not_there_is_an_index_error(path: Path, rows: list[int]) -> None:
    with open_cache(path) as cache, pytest.raises(IndexError, match="0 to 8"):
        list(cache.batches(rows))


def test_large_rows_come_in_small_batches(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAX_BATCH_BYTES", 2 * 2 * 3 * 4 * 2)
    with open_cache(path) as cache:
        assert [len(batch) for batch in cache.batches()] == [2, 2, 2, 2, 1]


def test_sparsity_and_size(path: Path) -> None:
    with open_cache(path) as cache:
        zeros = (make_batch(range(9)).features == 0).mean()
        assert cache.sparsity() == pytest.approx(zeros)
        assert cache.sparsity(1) == pytest.approx((make_batch([0]).features == 0).mean())
        assert cache.size_bytes == path.stat().st_size
        assert cache.feature_values == 24


def test_the_size_of_maps_is_measured_as_they_are_stored() -> None:
    dense = np.random.default_rng(0).normal(size=(8, 7, 7, 64)).astype(np.float32)
    raw = 7 * 7 * 64 * 2
    sparse = np.where(dense > 1.3, dense, 0)  # a tenth of the values
    assert raw <= stored_bytes(dense, RECIPE, "none") <= raw + 8
    assert 0.9 * raw < stored_bytes(dense, RECIPE, "zstd") < 1.02 * raw  # without zeros nothing is saved
    assert stored_bytes(sparse, RECIPE, "zstd") < 0.3 * raw
    assert stored_bytes(sparse, replace(RECIPE, storage="float32"), "none") > 2 * raw


def test_columns_are_lazy_sequences(path: Path) -> None:
    with open_cache(path) as cache:
        rows = cache.rows
        paths = [make_row(number).ref.path for number in range(9)]
        assert "split" not in vars(rows)
        assert rows.path[8] == rows.path[-1] == paths[8]
        assert rows.path[2:5] == paths[2:5]
        assert list(rows.path) == paths
        assert paths[3] in rows.path
        assert rows.sha256[-1] == make_row(8).sha256
        assert rows.sha256[1:3] == [make_row(1).sha256, make_row(2).sha256]
        assert rows.sha256.array.shape == (9, 32)
        assert rows.notes[5] == make_row(5).notes
        with pytest.raises(IndexError):
            rows.path[9]


def test_the_view_stays_when_the_file_is_replaced(path: Path) -> None:
    with open_cache(path) as cache:
        write_cache(path, range(20, 24))
        assert cache.paths == [make_row(number).ref.path for number in range(9)]
        np.testing.assert_array_equal(cache.pooled(), make_batch(range(9)).pooled)
    with open_cache(path) as cache:
        assert cache.n_images == 4


def test_a_closed_cache_says_so(path: Path) -> None:
    with open_cache(path) as cache:
        labels = cache.labels
    np.testing.assert_array_equal(cache.labels, labels)
    for read in (cache.pooled, lambda: cache.paths, lambda: next(cache.batches())):
        with pytest.raises(CacheError, match="has been closed"):
            read()


def test_a_read_only_file_in_a_read_only_folder_opens(path: Path) -> None:
    path.chmod(0o400)
    path.parent.chmod(0o500)
    try:
        assert everything(path)["class_names"] == CLASS_NAMES
    finally:
        path.parent.chmod(0o700)


# -------------------------------------------------------------------------------------------------- what is no cache


def test_no_file_a_folder_no_hdf5(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="There is no cache at"):
        open_cache(tmp_path / "a.h5")
    with pytest.raises(CacheError, match="is a folder"):
        open_cache(tmp_path)
    (tmp_path / "a.h5").write_bytes(b"not a cache at all")
    with pytest.raises(CacheError, match="does not begin as an HDF5 file"):
        open_cache(tmp_path / "a.h5")
    (tmp_path / "a.h5").write_bytes(b"")
    with pytest.raises(CacheError, match="does not begin as an HDF5 file"):
        open_cache(tmp_path / "a.h5")


def test_any_other_hdf5_file(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "old.h5", "w"):
        pass
    with pytest.raises(CacheError, match=r"but no feature cache\. It holds no dataset"):
        open_cache(tmp_path / "old.h5")
    with h5py.File(tmp_path / "new.h5", "w", libver=("v110", "v110")) as file:
        file.attrs["format"] = np.bytes_("something else")
    with pytest.raises(CacheError, match="is an HDF5 file, but no feature cache"):
        open_cache(tmp_path / "new.h5")


@pytest.mark.usefixtures("without_sandbox")
def test_every_truncation_is_noticed(path: Path) -> None:
    data = path.read_bytes()
    for size in range(0, len(data), 97):
        path.write_bytes(data[:size])
        with pytest.raises(CacheError, match="is damaged or no feature cache"):
            open_cache(path)


# ------------------------------------------------------------------------------------------------- hostile structure


def attribute(name: str, value: Any) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        del file.attrs[name]
        if value is not None:
            file.attrs[name] = value

    return change


def without(name: str) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        del file[name]

    return change


def instead(name: str, make: Callable[[Any, str], Any]) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        del file[name]
        make(file, name)

    return change


def soft(file: Any, name: str) -> None:
    file["elsewhere"] = np.zeros(3)
    file[name] = h5py.SoftLink("/elsewhere")


def external_link(file: Any, name: str) -> None:
    file[name] = h5py.ExternalLink("/etc/passwd", "/x")


def external_storage(file: Any, name: str) -> None:
    file.create_dataset(name, (9, 5), "<f4", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def virtual(file: Any, name: str) -> None:
    layout = h5py.VirtualLayout((9, 5), "<f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (9, 5))
    file.create_virtual_dataset(name, layout)


def variable_strings(file: Any, name: str) -> None:
    file.create_dataset(name, data=["a"] * 9, chunks=(9,))


def unchecked(file: Any, name: str) -> None:
    file.create_dataset(name, data=np.zeros((9, 5), "<f4"), chunks=(1, 5))


def in_large_chunks(file: Any, name: str) -> None:
    file.create_dataset(name, data=np.zeros((9, 5), "<f4"), chunks=(3, 5), fletcher32=True)


def doubles(file: Any, name: str) -> None:
    file.create_dataset(name, data=np.zeros((9, 5), "<f8"), chunks=(1, 5), fletcher32=True)


def never_written(file: Any, name: str) -> None:
    file.create_dataset(name, (9, 5), "<f4", chunks=(1, 5), fletcher32=True)


def a_million_rows(file: Any, name: str) -> None:
    file.create_dataset(name, (10**9, 5), "<f4", chunks=(1, 5), fletcher32=True)


def of_scale_offset(file: Any, name: str) -> None:
    file.create_dataset(name, data=np.zeros(9, "<i8"), chunks=(9,), scaleoffset=2)


def a_group(file: Any, name: str) -> None:
    file.create_group(name)


def a_type(file: Any, name: str) -> None:
    file[name] = np.dtype("<i4")


def references(file: Any, name: str) -> None:
    file.create_dataset(name, (9,), h5py.ref_dtype, chunks=(9,), fletcher32=True)


def huge_rows(file: Any, name: str) -> None:
    file.create_dataset(name, (9, 2, 3, 2**30), "<f2", chunks=(1, 2, 3, 2**8), fletcher32=True)


def claims_more_than_it_can_hold(file: Any, name: str) -> None:
    dataset = file.create_dataset(name, (10**6,), "S99", chunks=(10**4,), fletcher32=True)
    for start in range(0, 10**6, 10**4):
        dataset.id.write_direct_chunk((start,), bytes(4))


HOSTILE: dict[str, tuple[Callable[[Any], None], str]] = {
    "no format": (attribute("format", None), "no feature cache"),
    "newer": (attribute("format_version", 2), "has format version 2; this headstart reads version 1. Update"),
    "negative count": (attribute("n_images", -1), "n_images is -1"),
    "count of images": (attribute("n_images", 8), "8 images were announced"),
    "count of failures": (attribute("n_failures", 2), "/failures/path has the shape"),
    "recipe of another fingerprint": (attribute("recipe", np.bytes_("{}")), "fingerprint"),
    "recipe of variable length": (attribute("recipe", "{}"), "not a string of fixed length"),
    "info is no object": (attribute("info", np.bytes_("[1]")), "info is not a JSON object"),
    "info is no JSON": (attribute("info", np.bytes_("{")), "Expecting"),
    "info is too deep": (attribute("info", np.bytes_("[" * 30_000)), "recursion"),
    "layout is a number": (attribute("layout", 3), "layout is not a string"),
    "created is an array": (attribute("created", np.array([b"a", b"b"])), "created is not a string"),
    "no created": (attribute("created", None), "created"),
    "no features": (without("features"), "/features is missing"),
    "no column": (without("rows/group"), "/rows/group is missing"),
    "no rows": (without("rows"), "is missing"),
    "no class names": (without("class_names"), "/class_names is missing"),
    "soft link": (instead("pooled", soft), "/pooled is a link to somewhere else"),
    "external link": (instead("pooled", external_link), "/pooled is a link to somewhere else"),
    "external storage": (instead("pooled", external_storage), "not stored in chunks in this file"),
    "virtual": (instead("pooled", virtual), "not stored in chunks in this file"),
    "no checksum": (instead("pooled", unchecked), "has the filters"),
    "chunks of three rows": (instead("pooled", in_large_chunks), "not of one row"),
    "doubles": (instead("pooled", doubles), "is not of the type <f4"),
    "chunks never written": (instead("pooled", never_written), "has 0 chunks, not 9"),
    "more rows than announced": (instead("pooled", a_million_rows), "9 images were announced"),
    "a group for a dataset": (instead("pooled", a_group), "is not a dataset"),
    "a type for a dataset": (instead("pooled", a_type), "is not a dataset"),
    "a dataset for a group": (instead("rows", a_type), "not a group"),
    "huge rows": (instead("features", huge_rows), "/features has"),
    "variable strings": (instead("rows/path", variable_strings), "is not of the type strings of fixed length"),
    "references": (instead("rows/label", references), "is not of the type <i4"),
    "unknown filter": (instead("rows/mtime_ns", of_scale_offset), "has the filters"),
    "bomb": (instead("class_names", claims_more_than_it_can_hold), "more than what is stored can hold"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_structure_is_refused(path: Path, name: str) -> None:
    change, words = HOSTILE[name]
    with h5py.File(path, "r+", libver=("v110", "v110")) as file:
        change(file)
    with pytest.raises(CacheError) as caught:
        everything(path)
    assert words in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_a_column_of_other_values_is_refused(path: Path) -> None:
    with h5py.File(path, "r+", libver=("v110", "v110")) as file:
        file["rows/size_bytes"][3] += 1  # a new checksum, but not a new digest
    with (
        open_cache(path) as cache,
        pytest.raises(CacheError, match="/rows/size_bytes cannot be read: its values are not"),
    ):
        cache.refs()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [("label", 2, "outside of the 2 classes"), ("label", -2, "outside"), ("path", b"a\0b", "NUL")],
)
def test_values_out_of_range_are_refused(path: Path, name: str, value: Any, words: str) -> None:
    from headstart.cache.columns import hashlib

    with h5py.File(path, "r+", libver=("v110", "v110")) as file:
        column = file[f"rows/{name}"]
        values = column[...]
        values[0] = value
        column[...] = values
        column.attrs["sha256"] = np.bytes_(hashlib.sha256(values.tobytes()).hexdigest())
    with pytest.raises(CacheError, match=words):
        everything(path)


def test_class_names_that_repeat_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.cache.writer.label_indices", lambda _: {None: -1, "ants": 0, "bees": 1})
    with ShardWriter(tmp_path / "a.h5", recipe=RECIPE, class_names=("ants", "ants")) as writer:
        writer.append(make_batch([0]), [make_row(0)])
    with pytest.raises(CacheError, match="occurs twice"):
        open_cache(tmp_path / "a.h5")


# ----------------------------------------------------------------------------------------------------- hostile chunks


def chunk_of(shape: tuple[int, ...], compression: str, tmp_path: Path) -> tuple[int, bytes]:
    """Return a whole chunk, checksum included, that decodes to values of another shape."""
    with h5py.File(tmp_path / "other.h5", "w") as file:
        space = h5s.create_simple((1, *shape))
        dataset = h5py.Dataset(h5d.create(file.id, b"x", h5t.IEEE_F16LE, space, pipeline(shape, compression)))
        dataset[...] = 1
        file.flush()
        mask, data = dataset.id.read_direct_chunk((0,) * (1 + len(shape)))
        return mask, data


@pytest.mark.parametrize("compression", ["zstd", "gzip", "none"])
@pytest.mark.parametrize("shape", [(2, 3, 3), (2, 3, 5), (2, 3, 2000)])
def test_a_chunk_that_decodes_to_another_size_is_refused(
    tmp_path: Path, compression: str, shape: tuple[int, ...]
) -> None:
    """HDF5 itself would read past the end of the shorter ones."""
    path = write_cache(tmp_path / "a.h5", range(3), compression=compression)
    mask, data = chunk_of(shape, compression, tmp_path)
    with h5py.File(path, "r+", libver=("v110", "v110")) as file:
        file["features"].id.write_direct_chunk((1, 0, 0, 0), data, mask)
    with open_cache(path) as cache:
        list(cache.batches([0, 2]))
        with pytest.raises(
            CacheError, match=r"row 1 of /features, the image bees/1\.jpg, cannot be read \(a chunk decodes"
        ):
            list(cache.batches())


def test_a_chunk_that_skips_its_checksum_is_refused(tmp_path: Path) -> None:
    path = write_cache(tmp_path / "a.h5", range(3), compression="none")
    with h5py.File(path, "r+", libver=("v110", "v110")) as file:
        file["features"].id.write_direct_chunk((1, 0, 0, 0), bytes(48), 1)
    with open_cache(path) as cache, pytest.raises(CacheError, match="has no checksum"):
        list(cache.batches())


def test_size_of_a_zstd_frame() -> None:
    with h5py.File("memory", "w", driver="core", backing_store=False) as file:
        for number, n_values in enumerate([1, 2, 127, 128, 129, 1000, 32_767, 32_896, 32_897, 100_000, 3_000_000]):
            for fill in (0.0, 1.0):
                name, space = f"{number} {fill}".encode(), h5s.create_simple((1, n_values))
                dataset = h5py.Dataset(h5d.create(file.id, name, h5t.IEEE_F16LE, space, pipeline((n_values,), "zstd")))
                dataset[...] = fill * np.random.default_rng(0).random(n_values)
                file.flush()
                assert zstd_size(dataset.id.read_direct_chunk((0, 0))[1][:-4]) == 2 * n_values
    assert zstd_size(b"") == zstd_size(b"\x28\xb5\x2f\xfd\x00\x00") == zstd_size(b"\x28\xb5\x2f\xfd\xe0\x00\x00") == -1


def test_opening_checks_the_recipe_as_it_is_written(path: Path) -> None:
    with open_cache(path) as cache:
        assert cache.recipe == RECIPE
        assert cache.recipe.differences(replace(RECIPE, layer="x")) == ("layer: last ≠ x",)
    with h5py.File(path, "r") as file:
        assert json.loads(file.attrs["recipe"])["layer"] == "last"
