"""Memory per row and what is read of a cache, where there are many rows: bounds that hold at a million."""

from __future__ import annotations

import gc
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from h5py import h5f, h5i

from caches import CLASS_NAMES, RECIPE, everything
from fakes import FakeNetwork
from headstart.cache import columns
from headstart.cache.format import COLUMN_CHUNK_BYTES, FEATURES, POOLED
from headstart.cache.integrity import verify_file
from headstart.cache.merge import Descriptions, merge, publish_shards
from headstart.cache.reader import open_cache
from headstart.cache.safe_reads import StoredRows
from headstart.cache.shards import ShardFolder
from headstart.cache.writer import ShardWriter
from headstart.evaluate.quality_checks import file_findings, identical_files
from headstart.evaluate.quality_report import read_columns
from headstart.extract.plan import KnownRows, assemble, is_current, make_plan
from headstart.extract.run import extract_features
from headstart.images.discovery.refs import ImageRefs
from headstart.types import FeatureBatch, ImageRef, ImageRow
from headstart_cli.cache_commands.inspect_command import describe
from pictures import class_folders

pytestmark = pytest.mark.slow

#: Bytes a row that bookkeeping may take at its peak, the scan counted.
LIMIT = 300

#: Of which the scan takes so many: a path, and six numbers.
SCAN = 29 + 40

#: The difference of these is measured, so that what does not grow with the rows counts for nothing.
MANY, FEW = 4_000, 600


def scan(n_rows: int) -> ImageRefs:
    """Return what a scan says of some images: paths of 29 characters."""
    return ImageRefs.of(
        ImageRef(
            f"{CLASS_NAMES[i % 2]}/folder {i % 50:03}/IMG_{i:08}.jpg",
            CLASS_NAMES[i % 2],
            None,
            None,
            50_000 + i,
            i,
            i + 1,
        )
        for i in range(n_rows)
    )


class Kept:
    """Rows in shards and in one file; in a folder, once they are published there."""

    def __init__(self, folder: Path, n_rows: int) -> None:
        self.refs, self.folder = scan(n_rows), folder
        self.shards = write_shards(folder, self.refs)
        self.cache = folder / "all" / "cache.h5"
        self.cache.parent.mkdir()
        merge_all(self.shards, self.refs, self.cache)


def write_shards(folder: Path, refs: ImageRefs) -> list[Path]:
    """Return twenty shards."""
    rng, paths = np.random.default_rng(0), []
    size = len(refs) // 20
    for first in range(0, len(refs), size):
        paths.append(folder / f"{first:06}.h5")
        rows = [ImageRow(ref, rng.bytes(32).hex(), 640, 480) for ref in refs[first : first + size]]
        batch = FeatureBatch(np.ones((len(rows), 1, 1, 2), np.float32), np.ones((len(rows), 1), np.float32))
        with ShardWriter(paths[-1], recipe=RECIPE, class_names=CLASS_NAMES, layout="flat") as writer:
            writer.append(batch, rows)
    return paths


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    return Kept(tmp_path_factory.mktemp("kept"), FEW)


def publish_all(shards: list[Path], refs: ImageRefs) -> None:
    sources = [KnownRows.of_file(path) for path in shards]
    plan = make_plan(shards[0].parent, refs, sources)
    files = [source.file for source in sources]
    del sources  # as a run does
    rows, _ = assemble(refs, plan, (), n_sources=len(files), failures=())
    folder = ShardFolder(shards[0].parent)
    publish_shards(folder, sources=files, rows=rows, failures=(), class_names=CLASS_NAMES, layout="flat")


def merge_all(shards: list[Path], refs: ImageRefs, output: Path) -> None:
    sources = [KnownRows.of_file(path) for path in shards]
    plan = make_plan(output.parent, refs, sources)
    files = [source.file for source in sources]
    del sources
    rows, _ = assemble(refs, plan, (), n_sources=len(files), failures=())
    merge(output, sources=files, rows=rows, failures=(), class_names=CLASS_NAMES, layout="flat")


def plan_unchanged(path: Path, refs: ImageRefs) -> None:
    with open_cache(path) as opened:
        sources = [KnownRows.of_open(opened)]
        plan = make_plan(path.parent, refs, sources)
        rows, _ = assemble(refs, plan, (), n_sources=1, failures=())
        assert plan.reasons == Counter(unchanged=len(refs))
        assert is_current(opened, rows, (), CLASS_NAMES, "flat")


def open_and_describe(path: Path) -> None:
    with open_cache(path) as opened:
        assert describe(opened)["n_images"] == opened.n_images


def look_for_odd_files(path: Path) -> None:
    """All checks of ``inspect --quality`` that look at every row; features are compared on a sample."""
    with open_cache(path) as opened:
        columns = read_columns(opened, max_examples=100)
        assert not any(found.count for found in (*file_findings(columns, 20), *identical_files(columns)))


def new_folder(path: Path) -> Path:
    path.mkdir()
    return path


def peak_bytes(action: Callable[[Kept], Any], kept: Kept) -> int:
    """Return the peak of what Python and NumPy allocate for it, and for the scan."""
    gc.collect()
    tracemalloc.start()
    try:
        kept.refs = scan(len(kept.refs))
        action(kept)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.alone
def test_a_row_takes_few_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With chunks of columns that are as much smaller than usual as there are fewer rows than a million."""
    monkeypatch.setattr(columns, "COLUMN_CHUNK_BYTES", COLUMN_CHUNK_BYTES * MANY // 1_000_000)
    actions: dict[str, Callable[[Kept], Any]] = {
        "plan": lambda kept: plan_unchanged(kept.cache, kept.refs),
        "merge": lambda kept: merge_all(kept.shards, kept.refs, tmp_path / "merged.h5"),
        "inspect": lambda kept: open_and_describe(kept.cache),
        "quality": lambda kept: look_for_odd_files(kept.cache),
        "verify": lambda kept: list(verify_file(kept.cache)),
        "publish a folder": lambda kept: publish_all(kept.shards, kept.refs),
        "plan for a folder": lambda kept: plan_unchanged(kept.folder, kept.refs),
        "inspect a folder": lambda kept: open_and_describe(kept.folder),
        "quality of a folder": lambda kept: look_for_odd_files(kept.folder),
        "verify a folder": lambda kept: list(verify_file(kept.folder)),
        "open": lambda kept: open_cache(kept.cache).close(),
        "open a folder": lambda kept: open_cache(kept.folder).close(),
    }
    few, many = (Kept(new_folder(tmp_path / str(n_rows)), n_rows) for n_rows in (FEW, MANY))
    taken = {}
    for name, action in actions.items():
        action(few)  # imports, and what is made once
        taken[name] = (peak_bytes(action, many) - peak_bytes(action, few)) / (MANY - FEW)
    print(taken)
    assert taken["open"] < 60 + SCAN
    assert taken["open a folder"] < 100 + SCAN
    assert {name: peak for name, peak in taken.items() if peak > LIMIT} == {}


def test_merged_shards_are_the_rows_of_the_scan(kept: Kept) -> None:
    whole, parts = everything(kept.cache), [everything(path) for path in kept.shards]
    for name in ("refs", "sha256", "features_sha256", "notes"):
        assert whole[name] == [value for part in parts for value in part[name]]


@pytest.mark.parametrize(
    ("action", "most"), [(open_and_describe, 64), (lambda path: plan_unchanged(path, scan(FEW)), 0)]
)
def test_features_are_not_read(
    action: Callable[[Path], None], most: int, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for the 64 rows that inspect estimates the share of zeros from."""
    chunks: Counter[str] = Counter()
    read_chunk = StoredRows.read_chunk

    def counted(self: StoredRows, first: int) -> tuple[int, bytes]:
        chunks[h5_name(self)] += 1
        return read_chunk(self, first)

    monkeypatch.setattr(StoredRows, "read_chunk", counted)
    action(kept.cache)
    assert chunks["rows/label"] > 0
    assert (chunks[FEATURES], chunks[POOLED]) == (most, 0)


def h5_name(dataset: StoredRows) -> str:
    return str(h5i.get_name(dataset.id).decode().lstrip("/"))


def test_shards_are_open_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A million images make four thousand shards, and most systems let a process open a thousand files."""
    class_folders(tmp_path / "data", n_per_class=6)
    n_open: list[int] = []
    take_all = Descriptions.take_all

    def counted(self: Descriptions, *arguments: Any) -> Iterator[Any]:
        for taken in take_all(self, *arguments):
            n_open.append(h5f.get_obj_count(h5f.OBJ_ALL, h5f.OBJ_FILE) - before)
            yield taken

    before = h5f.get_obj_count(h5f.OBJ_ALL, h5f.OBJ_FILE)
    monkeypatch.setattr(Descriptions, "take_all", counted)
    extract_features(tmp_path / "data", tmp_path / "a.h5", network=FakeNetwork(batch_size=2), shard_images=1)
    assert n_open == [2] * 12  # the new file, and one shard
