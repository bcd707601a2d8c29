"""Images from outside against those of a cache."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import headstart.outside_images
from caches import RECIPE
from fakes import FakeNetwork
from headstart import extract_features, score_outside
from headstart.errors import DataError, RecipeMismatchError
from labelled import labelled_cache
from pictures import picture

pytestmark = pytest.mark.slow


def test_other_images_are_told_from_those_of_the_cache(tmp_path: Path) -> None:
    cache = labelled_cache(tmp_path / "c.h5", [0, 1] * 300)
    same = labelled_cache(tmp_path / "same.h5", [0, 1] * 100, of="other")
    far = labelled_cache(tmp_path / "far.h5", [2] * 40, seed=7, distance=8)
    alike, told = score_outside(cache, same), score_outside(cache, far)
    assert (alike.n_familiar, alike.n_outside, told.n_outside) == (150, 200, 40)
    assert alike.outside_share < 0.1
    assert alike.roc_auc < 0.75
    assert told.outside_share > 0.7
    assert told.roc_auc > 0.99 >= told.roc_auc_interval[0] > 0.8
    assert f"{told.outside_share:.1%} of 40 from outside" in told.sentence
    assert told == score_outside(cache, far)


def test_a_cache_of_another_recipe_is_refused(tmp_path: Path) -> None:
    cache = labelled_cache(tmp_path / "c.h5", [0, 1] * 20)
    other = labelled_cache(tmp_path / "o.h5", [0, 1] * 20, recipe=replace(RECIPE, input_size_px=16))
    with pytest.raises(RecipeMismatchError, match="input_size_px"):
        score_outside(cache, other)


def test_a_folder_is_computed_and_unreadable_files_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = FakeNetwork()
    monkeypatch.setattr(headstart.outside_images, "build_backbone", lambda *_, **__: network.made)
    for i in range(24):
        picture(tmp_path / "data" / "ab"[i % 2] / f"{i}.png", i)
    extract_features(tmp_path / "data", tmp_path / "c.h5", network=network)  # type: ignore[arg-type]
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "bad.png").write_bytes(b"no")
    with pytest.raises(DataError, match="No image from outside can be read"):
        score_outside(tmp_path / "c.h5", tmp_path / "outside")
    picture(tmp_path / "outside" / "one.png", 99)
    assert score_outside(tmp_path / "c.h5", tmp_path / "outside").n_outside == 1
