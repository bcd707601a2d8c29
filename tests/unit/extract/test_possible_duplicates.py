"""Files that can have the same bytes are found by a few of them; none that has is missed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.extract import plan
from headstart.extract.plan import SAMPLE_BYTES, make_plan, possible_duplicates
from headstart.images.discovery.refs import ImageRefs
from headstart.types import ImageRef


def written(folder: Path, contents: list[bytes]) -> list[ImageRef]:
    folder.mkdir(exist_ok=True)
    for number, content in enumerate(contents):
        (folder / f"{number}.jpg").write_bytes(content)
    return [ImageRef(f"{number}.jpg", None, None, None, len(content), 0) for number, content in enumerate(contents)]


def found(folder: Path, refs: list[ImageRef]) -> list[bool]:
    sizes = np.array([ref.size_bytes for ref in refs], np.int64)
    return [bool(one) for one in possible_duplicates(folder, refs, sizes, threads=2)]


@given(st.lists(st.integers(0, 3).flatmap(lambda size: st.binary(min_size=size, max_size=size)), max_size=12))
def test_equal_files_are_alike_and_of_small_ones_no_others(
    tmp_path_factory: pytest.TempPathFactory, contents: list[bytes]
) -> None:
    folder = tmp_path_factory.mktemp("files")
    counts = Counter(contents)
    assert found(folder, written(folder, contents)) == [counts[content] > 1 for content in contents]


def test_the_middle_tells_files_apart_whose_beginnings_are_equal(tmp_path: Path) -> None:
    head, tail = b"a camera's own" * 1000, b"and its end" * 1000
    first, second = (head + pixels * SAMPLE_BYTES + tail for pixels in (b"x", b"y"))
    assert found(tmp_path, written(tmp_path, [first, second, first])) == [True, False, True]


def test_what_cannot_be_read_is_like_nothing_and_waits_for_nothing(tmp_path: Path) -> None:
    refs = written(tmp_path, [b"same", b"same", b"gone", b"gone"])
    for name in ("2.jpg", "3.jpg"):
        (tmp_path / name).unlink()
    (tmp_path / "3.jpg").mkdir()
    assert found(tmp_path, refs) == [True, True, False, False]


def test_a_first_run_reads_whole_only_what_is_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    hash_file = plan.hash_file

    def counted(root: Any, ref: ImageRef) -> bytes | None:
        read.append(ref.path)
        return hash_file(root, ref)

    monkeypatch.setattr(plan, "hash_file", counted)
    refs = written(tmp_path, [b"%04d" % number for number in range(20)] + [b"0007"])
    refs = [ImageRef(r.path, None, None, None, 4, (tmp_path / r.path).stat().st_mtime_ns) for r in refs]
    made = make_plan(tmp_path, ImageRefs.of(refs), [])
    assert sorted(read) == ["20.jpg", "7.jpg"]
    assert made.copies == {"20.jpg": "7.jpg"}
    assert len(made.compute) == 20
