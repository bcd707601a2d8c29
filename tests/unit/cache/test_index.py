"""Rows by path: the index says what a dict would, equal hashes included."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.cache import columns as index_module
from headstart.cache.columns import PathIndex
from headstart.texts import TextColumn

#: Few different ones, so that caches share some, and one that is not UTF-8.
PATHS = st.sampled_from(["a", "b/ü.jpg", "b", "", os.fsdecode(b"b/\xff.jpg"), "b/1.jpg", "c"])
COLUMNS = st.lists(st.lists(PATHS, max_size=6), max_size=4)


def column(paths: list[str]) -> TextColumn:
    return TextColumn.from_bytes(os.fsencode(path) for path in paths)


@pytest.mark.parametrize("n_hashes", [0, 1, 2])
@given(columns=COLUMNS, wanted=st.lists(PATHS, max_size=9))
def test_the_first_row_of_a_path_is_found(n_hashes: int, columns: list[list[str]], wanted: list[str]) -> None:
    rows = [(number, row, path) for number, paths in enumerate(columns) for row, path in enumerate(paths)]
    expected = {path: (number, row) for number, row, path in reversed(rows)}
    with pytest.MonkeyPatch.context() as patch:
        if n_hashes:  # all paths have one hash, or one of two
            patch.setattr(index_module, "hashes", lambda paths: np.array([len(p) % n_hashes for p in paths], np.int64))
        index = PathIndex([column(paths) for paths in columns])
        caches, numbers = index.split(index.find(wanted))
    assert list(zip(caches.tolist(), numbers.tolist(), strict=True)) == [expected.get(p, (-1, -1)) for p in wanted]


@given(columns=st.lists(st.lists(PATHS, max_size=6), max_size=4))
def test_columns_end_to_end_give_their_rows_in_any_order(columns: list[list[str]]) -> None:
    paths = [path for part in columns for path in part]
    joined = TextColumn.joined([column(part) for part in columns])
    assert list(joined) == paths
    backwards = np.arange(len(paths))[::-1]
    assert list(joined.take(backwards)) == paths[::-1]
