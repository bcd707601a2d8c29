"""Explanations as files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from browser import browse
from headstart.errors import CacheError, DataError
from headstart.explain import overlays
from headstart.explain.explanations import Explanation
from headstart.explain.heat_maps import HeatMap
from headstart.explain.overlays import AGAINST, FOR, MAX_OPACITY, overlay, write_explanations
from headstart.predict import Prediction

PIXELS = np.random.default_rng(0).integers(0, 256, (70, 70, 3), dtype=np.uint8)

HOSTILE = '<img src="https://example.com/x" onerror="alert(1)">'


def explanation(path: str = "a/photo 1.jpg", values: object = ((2.0, 0.0), (0.0, -1.0))) -> Explanation:
    heat_map = HeatMap(np.array(values, np.float64), 1.0)
    prediction = Prediction(path, np.array([0.25, 0.75]), unfamiliarity=1.5)
    return Explanation(prediction, 1, HOSTILE, "occlusion", heat_map, PIXELS, "Not all.")


def test_the_largest_value_has_the_full_colour_and_zero_is_transparent() -> None:
    made = overlay(PIXELS, np.array([[2.0, 0.0], [0.0, -1.0]]))
    grey = np.asarray(Image.fromarray(PIXELS).convert("L"), np.float64)[:, :, None]
    for corner, colour, opacity in (((0, 0), FOR, MAX_OPACITY), ((69, 69), AGAINST, MAX_OPACITY / 2)):
        np.testing.assert_allclose(made[corner], (1 - opacity) * grey[corner] + opacity * np.array(colour), atol=1)
    np.testing.assert_array_equal(made[0, 69], grey[0, 69].repeat(3))
    np.testing.assert_array_equal(overlay(PIXELS, np.zeros((7, 7))), np.broadcast_to(grey, PIXELS.shape))


def test_names_are_text_and_nothing_is_loaded_from_elsewhere(tmp_path: Path) -> None:
    failed = Explanation(Prediction(f"{HOSTILE}2.png", None, f"damaged: {HOSTILE}"))
    entries = write_explanations([explanation(HOSTILE), failed], tmp_path / "out", title=HOSTILE)
    assert [bool(entry.file) for entry in entries] == [True, False]
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == [entries[0].file, "index.html"]
    assert re.fullmatch(r"0001-[A-Za-z0-9_-]+\.png", entries[0].file)
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "default-src &#39;none&#39;; img-src data:" in page
    assert not re.search(r"<img src=\"(?!data:image/jpeg;base64,)", page)
    assert page.count("<img ") == 2
    assert page.count("&lt;img src=") >= 6
    assert "Images that could not be read: 1" in page
    assert "0.750" in page
    assert "±2 at full colour" in page
    assert "Not all." in page
    assert "unlike the training images" in page


def test_the_page_has_no_errors_in_a_browser(tmp_path: Path) -> None:
    write_explanations([explanation(HOSTILE)], tmp_path / "out", title=HOSTILE)
    shown, console = browse(tmp_path / "out" / "index.html", tmp_path / "browser")
    assert "Where decisions come from" in shown
    assert console == []


def test_equal_explanations_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_explanations([explanation(), explanation("b.png")], tmp_path / name)
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two
    assert sorted(one) == ["0001-photo-1.png", "0002-b.png", "index.html"]


def test_a_map_of_zeros_is_said_to_be_one(tmp_path: Path) -> None:
    write_explanations([explanation(values=((0.0, 0.0), (0.0, 0.0)))], tmp_path / "out")
    assert "no position\nchanges the score" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")


def test_the_page_is_bounded_and_the_files_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlays, "MAX_ON_PAGE", 1)
    write_explanations([explanation(), explanation("b.png")], tmp_path / "out")
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert page.count("<img ") == 2
    assert "The page shows the first 1 images" in page
    assert (tmp_path / "out" / "0002-b.png").exists()


def test_only_explanations_are_replaced_and_only_when_asked(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    write_explanations([explanation()], folder)
    with pytest.raises(DataError, match=r"holds explanations already.*`overwrite=True`"):
        write_explanations([explanation()], folder)
    write_explanations([explanation("b.png")], folder, overwrite=True)
    assert sorted(path.name for path in folder.iterdir()) == ["0001-b.png", "index.html"]
    (folder / "mine.png").write_bytes(b"")
    with pytest.raises(DataError, match="something else than explanations"):
        write_explanations([explanation()], folder, overwrite=True)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DataError, match="something else than explanations"):
        write_explanations([explanation()], tmp_path / "file", overwrite=True)


def test_a_run_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def failing() -> Iterator[Explanation]:
        yield explanation()
        raise CacheError("the reason")

    with pytest.raises(CacheError, match="the reason"):
        write_explanations(failing(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
