"""Which images are suggested for labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from headstart.errors import DataError
from headstart.fit import fit_head
from headstart.labelling.suggestions import choose_rows, margins_of, suggest_images
from labelled import labelled_cache


def two_groups(n: int) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Return probabilities of ``2 n`` images, the first half more uncertain; and their places, a point for each half."""
    first = np.concatenate([np.linspace(0.5, 0.6, n), np.linspace(0.61, 0.7, n)])
    places = np.repeat([[0.0, 1.0], [1.0, 0.0]], n, axis=0) + np.linspace(0, 0.01, 2 * n)[:, None]
    return np.stack([first, 1 - first], axis=1), places.astype(np.float32)


def test_the_margin_is_between_the_two_most_probable_classes() -> None:
    np.testing.assert_allclose(margins_of(np.array([[0.1, 0.6, 0.3], [0.5, 0.0, 0.5]])), [0.3, 0.0])


def test_uncertain_images_come_first_and_different_ones_if_asked() -> None:
    probabilities, places = two_groups(8)
    assert choose_rows(probabilities, places.__getitem__, 4, "margin") == [0, 1, 2, 3]
    diverse = choose_rows(probabilities, places.__getitem__, 2)
    assert diverse == [0, 8]  # the most uncertain one of each group


@pytest.mark.parametrize("strategy", ["diverse", "margin", "random"])
def test_as_many_images_as_asked_each_once(strategy: str) -> None:
    probabilities, places = two_groups(30)
    places[:] = 0  # one cluster alone: the others are filled up
    with np.testing.suppress_warnings() as quiet:
        quiet.filter(UserWarning)
        chosen = choose_rows(probabilities, places.__getitem__, 10, strategy)  # type: ignore[arg-type]
    assert len(set(chosen)) == 10
    assert chosen == sorted(chosen, key=margins_of(probabilities).__getitem__)
    assert len(choose_rows(probabilities, places.__getitem__, 100, strategy)) == 60  # type: ignore[arg-type]


def test_only_unlabelled_images_are_suggested(tmp_path: Path) -> None:
    labels = [0, 1] * 20 + [-1] * 15
    cache = labelled_cache(tmp_path / "c.h5", labels)
    fit_head(cache, "ridge", output=tmp_path / "head", search="none")
    found = suggest_images(cache, tmp_path / "head", 5)
    assert len(found) == 5
    assert all(labels[one.row] < 0 for one in found)
    assert [one.margin for one in found] == sorted(one.margin for one in found)
    assert found == suggest_images(cache, tmp_path / "head", 5)
    everything = labelled_cache(tmp_path / "d.h5", [0, 1] * 20)
    with pytest.raises(DataError, match=r"All images of .* are labelled"):
        suggest_images(everything, tmp_path / "head")
