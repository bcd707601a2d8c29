"""A shard holds exactly what was appended, or does not exist."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from caches import CLASS_NAMES, MAP_SHAPE, N_POOLED, RECIPE, everything, failure, make_batch, make_row, write_cache
from headstart.cache.columns import row_digest
from headstart.cache.reader import open_cache
from headstart.cache.writer import ShardWriter
from headstart.errors import CacheError
from headstart.storage import publishing
from headstart.types import Failure, FeatureBatch, ImageRef, Recipe

#: Names that a file system holds: bytes that are not UTF-8, newlines, quotes, right-to-left, combining, 255 bytes.
ODD_PATHS = (
    "ants/\udcff\udc80.jpg",
    "ants/two\nlines\t.jpg",
    """ants/"quoted" 'too', and <b>.jpg""",
    "ants/صورة.png",
    "ants/e\u0301 and é.png",
    "ants/" + "日" * 85 + ".jpg",
    " leading and trailing ",
    "ants/\U0001f41c.gif",
)


@pytest.mark.parametrize("compression", ["zstd", "gzip", "none"])
@pytest.mark.parametrize("storage", ["float16", "float32"])
def test_everything_comes_back(tmp_path: Path, compression: str, storage: str) -> None:
    path = write_cache(
        tmp_path / "a.h5",
        range(8),
        recipe=replace(RECIPE, storage=storage),
        compression=compression,
        failures=[failure(1), failure(2)],
        layout="class-folders",
        info={"precision_reason": "because"},
    )
    rows, batch = [make_row(number) for number in range(8)], make_batch(range(8))
    with open_cache(path) as cache:
        (read,) = cache.batches()
        assert read.features.dtype == np.dtype(storage)
        np.testing.assert_array_equal(read.features, batch.features.astype(storage))
        np.testing.assert_array_equal(read.pooled, batch.pooled)
        assert cache.compression == compression
        assert cache.refs() == [row.ref for row in rows]
        assert cache.sha256 == [row.sha256 for row in rows]
        assert list(cache.rows.notes) == [row.notes for row in rows]
        assert cache.rows.width_px.tolist() == [row.width_px for row in rows]
        assert cache.rows.height_px.tolist() == [row.height_px for row in rows]
        assert cache.labels.dtype == np.int64
        assert cache.failures == (failure(1), failure(2))
        assert (cache.layout, cache.info) == ("class-folders", {"precision_reason": "because"})
        digests = [
            row_digest(features, pooled).hex() for features, pooled in zip(read.features, read.pooled, strict=True)
        ]
        assert list(cache.rows.features_sha256) == digests


def test_odd_names_come_back(tmp_path: Path) -> None:
    path = tmp_path / "odd \udcfe.h5"
    rows = [make_row(0, name) for name in ODD_PATHS]
    with ShardWriter(path, recipe=RECIPE, class_names=CLASS_NAMES) as writer:
        writer.append(make_batch(range(len(rows))), rows)
        writer.add_failure(Failure(ImageRef(ODD_PATHS[0], None, None, None, 0, 0), "bad \0 byte, \ud800 and \udcff"))
    with open_cache(path) as cache:
        assert cache.paths == list(ODD_PATHS)
        assert cache.rows.path[1:3] == list(ODD_PATHS[1:3])
        assert cache.failures[0].ref.path == ODD_PATHS[0]
        assert cache.failures[0].reason == "bad \ufffd byte, \\ud800 and \\udcff"


def test_equal_content_gives_equal_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1790000000")
    assert write_cache(tmp_path / "a.h5").read_bytes() == write_cache(tmp_path / "b.h5").read_bytes()


def test_a_shard_of_failures_alone_opens(tmp_path: Path) -> None:
    with open_cache(write_cache(tmp_path / "a.h5", [], failures=[failure()])) as cache:
        assert (cache.n_images, cache.failures, list(cache.batches()), cache.sparsity()) == (0, (failure(),), [], 0.0)
        assert cache.paths == cache.sha256 == cache.refs() == []


def test_features_without_averages(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "a.h5", recipe=replace(RECIPE, pooled_layers=()), class_names=()) as writer:
        row = make_row(2)
        writer.append(make_batch([2], n_pooled=0), [row])
    with open_cache(tmp_path / "a.h5") as cache:
        (read,) = cache.batches()
        assert read.pooled.shape == (1, 0)


def test_averages_are_named_by_their_layer(tmp_path: Path) -> None:
    recipe, layers = replace(RECIPE, pooled_layers=("early", "late")), ("early",) * 2 + ("late",) * 3
    with ShardWriter(tmp_path / "a.h5", recipe=recipe, class_names=CLASS_NAMES) as writer:
        writer.append(replace(make_batch([0]), pooled_column_layer=layers), [make_row(0)])
    with open_cache(tmp_path / "a.h5") as cache:
        assert cache.pooled_column_layer == layers
        assert [batch.pooled_column_layer for batch in cache.batches()] == [layers]


@pytest.mark.parametrize("error", [RuntimeError, FileNotFoundError, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    path = write_cache(tmp_path / "a.h5")
    before = path.read_bytes()

    def fail_halfway() -> None:
        with ShardWriter(path, recipe=RECIPE, class_names=CLASS_NAMES) as writer:
            writer.append(make_batch([1]), [make_row(1)])
            assert len(list(tmp_path.iterdir())) == 2
            raise error

    with pytest.raises(error):
        fail_halfway()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("step", ["write_descriptions", "sync", "replace"])
def test_an_interrupt_while_finishing_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    where: Any = {"write_descriptions": "headstart.cache.writer.write_descriptions", "replace": "pathlib.Path.replace"}
    monkeypatch.setattr(where.get(step, f"headstart.storage.publishing.PartialFile.{step}"), interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_cache(tmp_path / "a.h5")
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_inside_a_write_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupting(publishing.io.FileIO):
        def write(self, data: Any) -> int:
            if self.tell() > 2000:
                raise KeyboardInterrupt
            return super().write(data)

    monkeypatch.setattr(publishing.io, "FileIO", Interrupting)
    with pytest.raises(KeyboardInterrupt):
        write_cache(tmp_path / "a.h5")
    assert list(tmp_path.iterdir()) == []


def test_file_and_folder_are_flushed_around_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    rename = Path.replace

    def fsync(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        events.append("folder" if is_folder else "file")

    def replace_(self: Path, target: Path) -> Path:
        events.append("rename")
        return rename(self, target)

    monkeypatch.setattr(publishing.os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace_)
    write_cache(tmp_path / "a.h5")
    assert events == ["file", "rename", "folder"]


def spoiled(value: float, *, pooled: bool = False) -> FeatureBatch:
    batch = make_batch(range(3))
    target: np.ndarray[Any, Any] = batch.pooled if pooled else batch.features
    target.reshape(3, -1)[1, 2] = value
    return batch


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (spoiled(65520), "storage='float32'"),
        (spoiled(-1e6), "storage='float32'"),
        (spoiled(np.inf), "no number"),
        (spoiled(np.nan), "no number"),
        (spoiled(np.nan, pooled=True), "no number"),
        (spoiled(np.inf, pooled=True), "no number"),
    ],
)
def test_a_number_that_cannot_be_stored_is_refused(tmp_path: Path, batch: FeatureBatch, words: str) -> None:
    with (
        pytest.raises(CacheError, match=words) as caught,
        ShardWriter(tmp_path / "a.h5", recipe=RECIPE, class_names=CLASS_NAMES) as writer,
    ):
        writer.append(batch, [make_row(number) for number in range(3)])
    assert "bees/1.jpg" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_largest_float16_is_stored(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "a.h5", recipe=RECIPE, class_names=CLASS_NAMES) as writer:
        writer.append(spoiled(65504), [make_row(number) for number in range(3)])
        writer.append(spoiled(65519), [make_row(number) for number in range(3)])  # rounds to 65504
    with open_cache(tmp_path / "a.h5") as cache:
        assert [batch.features.max() for batch in cache.batches(batch_rows=3)] == [65504, 65504]


def test_a_refused_batch_leaves_the_others(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "a.h5", recipe=RECIPE, class_names=CLASS_NAMES) as writer:
        writer.append(make_batch([0]), [make_row(0)])
        with pytest.raises(CacheError):
            writer.append(spoiled(np.nan), [make_row(number) for number in range(3)])
        with pytest.raises(CacheError, match="shape"):
            writer.append(make_batch([1], map_shape=(2, 3, 5)), [make_row(1)])
        with pytest.raises(CacheError, match="shape"):
            writer.append(make_batch([1], n_pooled=N_POOLED + 1), [make_row(1)])
        with pytest.raises(CacheError, match="2 images came with 1 rows"):
            writer.append(make_batch([1]), [make_row(1), make_row(2)])
        row = make_row(1)
        with pytest.raises(CacheError, match="'wasps', which is not among the 2 classes"):
            writer.append(make_batch([1]), [replace(row, ref=replace(row.ref, label="wasps"))])
        with pytest.raises(CacheError, match="NUL"):
            writer.append(make_batch([1]), [make_row(1, "a\0b")])
        with pytest.raises(CacheError, match="40,000 bytes"):
            writer.append(make_batch([1]), [make_row(1, "a" * 40_000)])
        writer.append(make_batch([4]), [make_row(4)])
    with open_cache(tmp_path / "a.h5") as cache:
        assert cache.paths == [make_row(0).ref.path, make_row(4).ref.path]
        np.testing.assert_array_equal(cache.pooled(), make_batch([0, 4]).pooled)


@pytest.mark.parametrize(
    ("recipe", "compression", "words"),
    [
        (replace(RECIPE, storage="float64"), "zstd", "float64"),
        (RECIPE, "lzma", "lzma"),
        (replace(RECIPE, format_version=2), "zstd", "version"),
    ],
)
def test_what_cannot_be_stored_is_refused_at_once(tmp_path: Path, recipe: Recipe, compression: str, words: str) -> None:
    with pytest.raises(CacheError, match=words):
        ShardWriter(tmp_path / "a.h5", recipe=recipe, class_names=CLASS_NAMES, compression=compression)


@pytest.mark.parametrize("class_names", [("a", "a"), ("a", "")])
def test_class_names_differ(tmp_path: Path, class_names: tuple[str, ...]) -> None:
    with pytest.raises(CacheError, match="Class names"):
        ShardWriter(tmp_path / "a.h5", recipe=RECIPE, class_names=class_names)


@pytest.mark.parametrize("layers", [(), ("early",) * 5, ("late",) * 2 + ("early",) * 3, ("early", "late")])
def test_averages_belong_to_the_pooled_layers_of_the_recipe(tmp_path: Path, layers: tuple[str, ...]) -> None:
    recipe = replace(RECIPE, pooled_layers=("early", "late"))
    with (
        pytest.raises(CacheError, match=r"5 pooled columns must be of the layers early, late"),
        ShardWriter(tmp_path / "a.h5", recipe=recipe, class_names=CLASS_NAMES) as writer,
    ):
        writer.append(replace(make_batch([0]), pooled_column_layer=layers), [make_row(0)])


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="No such file or directory"):
        write_cache(tmp_path / "nowhere" / "a.h5")
    with pytest.raises(CacheError, match="is a folder"):
        write_cache(tmp_path)


#: Writes more than the limit on the size of a file allows.
FULL_DISK = """
import resource, sys
from pathlib import Path
from caches import CLASS_NAMES, RECIPE, make_batch, make_row
from headstart.cache.writer import ShardWriter
from headstart.errors import CacheError
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
rows = [make_row(number) for number in range(50)]
try:
    with ShardWriter(Path(sys.argv[1]), recipe=RECIPE, class_names=CLASS_NAMES, compression="none") as writer:
        for _ in range(1000):
            writer.append(make_batch(range(50)), rows)
            last = _
except CacheError as error:
    print(last, error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of a file")
def test_a_full_disk_is_said_at_once_and_crashes_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / "a.h5")]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.endswith("a.h5 cannot be written: File too large.\n")
    assert int(result.stdout.split()[0]) < 100
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Any]:
    with h5py.File(write_cache(tmp_path / "a.h5", failures=[failure()]), "r") as file:
        yield file


def test_every_dataset_ends_in_a_checksum_and_no_string_is_of_variable_length(written: Any) -> None:
    seen = []

    def visit(name: str, thing: Any) -> None:
        assert not [key for key in thing.attrs if h5py.check_vlen_dtype(thing.attrs.get_id(key).dtype)]
        assert not thing.id.get_create_plist().get_obj_track_times()  # equal content, equal bytes
        if isinstance(thing, h5py.Dataset):
            seen.append(name)
            properties = thing.id.get_create_plist()
            assert properties.get_filter(properties.get_nfilters() - 1)[0] == h5py.h5z.FILTER_FLETCHER32
            assert h5py.check_vlen_dtype(thing.dtype) is None

    written.visititems(visit)
    assert len(seen) == 22
    assert written["features"].chunks == (1, *MAP_SHAPE)
    assert written["pooled"].chunks == (1, N_POOLED)
    assert "VLEN" not in str(written.attrs.get_id("recipe").dtype)


def test_the_writer_streams(tmp_path: Path) -> None:
    """Rows are in the file before the block ends, not in memory."""
    with ShardWriter(tmp_path / "a.h5", recipe=RECIPE, class_names=CLASS_NAMES, compression="none") as writer:
        for start in range(0, 2000, 500):
            writer.append(make_batch(range(start, start + 500)), [make_row(n) for n in range(start, start + 500)])
        (partial,) = tmp_path.iterdir()
        assert partial.name.endswith(publishing.PARTIAL_SUFFIX)
        assert partial.stat().st_size > 1500 * np.prod(MAP_SHAPE) * 2
    assert everything(tmp_path / "a.h5")["header"][0] == 2000
