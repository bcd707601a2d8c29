"""Images to fit on and to score on, of classes that can be learnt, whatever the splits look like."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from headstart.cache.reader import open_cache
from headstart.errors import DataError
from headstart.evaluate.splits import Sides, class_notes, divide, divide_caches
from labelled import labelled_cache

ANTS, BEES, WASPS, NONE = 0, 1, 2, -1
TWO = [ANTS, BEES] * 10


def sides_of(tmp_path: Path, labels: list[int], splits: list[str] | None = None, validation=None, **options) -> Sides:
    with open_cache(labelled_cache(tmp_path / "c.h5", labels, splits=splits, **options)) as cache:
        sides = divide(cache, validation)
        assert sides.y_train.tolist() == [
            sides.class_names.index(cache.class_names[cache.labels[row]]) for row in sides.split.train
        ]
        assert (sides.y_validation >= 0).all()
        assert set(sides.y_train.tolist()) == set(range(len(sides.class_names)))
        return sides


def test_an_unlabelled_test_beside_train_is_not_scored(tmp_path: Path) -> None:
    """The layout of competitions."""
    sides = sides_of(tmp_path, [*TWO, NONE, NONE], ["train"] * 20 + ["test"] * 2)
    assert (len(sides.split.train), len(sides.split.validation)) == (16, 4)
    assert sides.notes == (
        "The split test has no labels (2 images).",
        "25% of the other labelled images are held out instead.",
        "wasps: no image to fit on.",
    )
    assert sides.class_names == ("ants", "bees")


def test_a_test_of_a_class_of_its_own_is_not_scored(tmp_path: Path) -> None:
    sides = sides_of(tmp_path, [*TWO, *[WASPS] * 4], ["train"] * 20 + ["test"] * 4)
    assert (len(sides.split.train), len(sides.split.validation)) == (16, 4)
    assert sides.notes == (
        "The split test has no image of a class that train has.",
        "25% of the other labelled images are held out instead.",
        "wasps: 4 scored images, none to fit on.",
    )
    assert sides.class_names == ("ants", "bees")


def test_a_split_that_is_asked_for_is_not_put_aside(tmp_path: Path) -> None:
    splits = ["train"] * 20 + ["test"] * 4
    with pytest.raises(DataError, match="needs labelled images in both"):
        sides_of(tmp_path, [*TWO, *[NONE] * 4], splits, "test")
    with pytest.raises(
        DataError, match=r"Nothing can be scored on the 4 images of the split test. wasps: 4 scored images, none"
    ):
        sides_of(tmp_path, [*TWO, *[WASPS] * 4], splits, "test")


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_class_that_only_the_scored_split_has_is_left_out(tmp_path: Path, split: str) -> None:
    for validation in (None, split):
        sides = sides_of(tmp_path, [*TWO, ANTS, BEES, WASPS], ["train"] * 20 + [split] * 3, validation)
        assert sides.split.validation.tolist() == [20, 21]
        assert sides.notes == ("wasps: 1 scored image, none to fit on.",)
        assert sides.split.description.endswith("less 1 of classes with no image to fit on")


def test_the_first_split_with_something_to_score_is_taken(tmp_path: Path) -> None:
    splits = ["train"] * 20 + ["validation"] * 2 + ["test"] * 2
    sides = sides_of(tmp_path, [*TWO, NONE, NONE, ANTS, BEES], splits)
    assert sides.split.validation.tolist() == [22, 23]


def test_a_class_without_a_scored_image_is_said(tmp_path: Path) -> None:
    sides = sides_of(tmp_path, [*TWO, WASPS, ANTS, BEES], ["train"] * 21 + ["test"] * 2)
    assert sides.notes == ("wasps: 1 image to fit on, none scored.",)
    assert sides.class_names == ("ants", "bees", "wasps")
    sides = sides_of(tmp_path, [*TWO, WASPS], validation=0.25)
    assert sides.notes == ("wasps: 1 image to fit on, none scored.",)


def test_a_class_that_could_not_be_read_is_none_of_the_heads(tmp_path: Path) -> None:
    sides = sides_of(tmp_path, TWO, failed=["wasps", "wasps", "ants"])
    assert sides.notes == ("wasps: none to fit on; 2 images could not be read.",)
    assert sides.class_names == ("ants", "bees")


def test_a_class_in_another_split_alone_is_none_of_the_heads(tmp_path: Path) -> None:
    splits = ["train"] * 20 + ["validation"] * 2 + ["test"]
    sides = sides_of(tmp_path, [*TWO, ANTS, BEES, WASPS], splits)
    assert sides.notes == ("wasps: no image to fit on.",)


def test_a_class_whose_training_images_are_copies_of_scored_ones_is_left_out(tmp_path: Path) -> None:
    sides = sides_of(tmp_path, [*TWO, WASPS, WASPS, ANTS, BEES], ["train"] * 21 + ["test"] * 3, copies={20: 21})
    assert sides.split.n_dropped == 1
    assert sides.notes == ("wasps: 1 scored image, none to fit on.",)


def test_classes_of_another_cache_are_known_by_their_names(tmp_path: Path) -> None:
    one = labelled_cache(tmp_path / "one.h5", [BEES, WASPS] * 10)
    other = labelled_cache(tmp_path / "other.h5", [*[NONE] * 20, WASPS, ANTS, BEES])
    with open_cache(one) as train, open_cache(other) as scored:
        sides = divide_caches(train, scored)
        assert sides.class_names == ("bees", "wasps")
        assert sides.y_validation.tolist() == [1, 0]
        assert sides.notes == ("ants: 1 scored image, none to fit on.",)
    alone = labelled_cache(tmp_path / "alone.h5", [*[NONE] * 20, ANTS])
    with (
        open_cache(one) as train,
        open_cache(alone) as scored,
        pytest.raises(DataError, match="Expected: images of bees"),
    ):
        divide_caches(train, scored)


def test_many_classes_are_counted() -> None:
    notes = class_notes([f"c{i}" for i in range(30)], Counter(), Counter(c0=2))
    assert notes[0] == "c0: 2 scored images, none to fit on."
    assert notes[-1] == "20 more classes are not both fitted on and scored."
    assert len(notes) == 11


def test_nothing_is_said_where_nothing_is_lacking(tmp_path: Path) -> None:
    sides = sides_of(tmp_path, [*TWO, *[WASPS] * 8])
    assert sides.notes == ()
    assert np.bincount(sides.y_validation).tolist() == [2, 2, 2]
