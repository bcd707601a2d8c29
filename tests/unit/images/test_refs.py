"""Images as columns say what a list of them says."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.errors import DataError
from headstart.images.discovery import refs as module
from headstart.images.discovery.refs import ImageRefs
from headstart.types import ImageRef

NAMES = st.sampled_from([None, "ant", "bee", "Käfer"])
PATHS = st.sampled_from(["a.jpg", "ü/1.png", "", os.fsdecode(b"b/\xff.jpg"), "a/" + 300 * "x"])
NUMBERS = st.integers(-1, 2**62)
IMAGES = st.lists(st.builds(ImageRef, PATHS, NAMES, NAMES, NAMES, NUMBERS, NUMBERS), max_size=9)


@given(images=IMAGES, data=st.data())
def test_they_are_as_a_list_of_them(images: list[ImageRef], data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK_ROWS", 2)
        refs = ImageRefs.of(iter(images))
        assert list(refs) == images
        assert refs == images
        assert refs == ImageRefs.of(images)
    assert (len(refs), list(refs.paths)) == (len(images), [ref.path for ref in images])
    assert [refs[n] for n in range(-len(images), len(images))] == images + images
    assert refs[1:-1] == images[1:-1]
    assert (refs.sizes.tolist(), refs.times.tolist()) == (
        [ref.size_bytes for ref in images],
        [ref.mtime_ns for ref in images],
    )
    rows = data.draw(st.lists(st.integers(0, len(images) - 1), max_size=9)) if images else []
    taken = refs.taken(np.array(rows, np.int64))
    assert taken == [images[row] for row in rows]
    assert set(taken.tags) == {(images[row].label, images[row].split, images[row].group) for row in rows}


def test_what_are_columns_stays_as_it_is() -> None:
    refs = ImageRefs.of([ImageRef("a.jpg", None, None, None, 1, 2)])
    assert ImageRefs.of(refs) is refs
    assert refs != [ImageRef("a.jpg", None, None, None, 1, 3)]
    assert refs != []
    with pytest.raises(IndexError):
        refs[1]


def test_a_path_that_is_no_text_is_refused() -> None:
    with pytest.raises(DataError, match="is not text"):
        ImageRefs.of([ImageRef("\ud800.jpg", None, None, None, 1, 2)])
