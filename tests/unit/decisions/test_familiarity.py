"""How far images are from the training images."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.covariance import LedoitWolf

from headstart.decisions import familiarity
from headstart.decisions.familiarity import Familiarity, fit_familiarity, fit_gaussian


def rows(n: int, d: int, seed: int = 0) -> NDArray[np.float32]:
    random = np.random.default_rng(seed)
    mixing = np.random.default_rng(42).normal(size=(d, d)) * np.geomspace(1, 0.3, d)
    return (random.normal(size=(n, d)) @ mixing + 1).astype(np.float32)


def fitted(X: NDArray[np.float32], units: NDArray[np.intp] | None = None, rate: float = 0.01) -> Familiarity:
    names = [f"{i}.jpg" for i in range(len(X))]
    found = fit_familiarity(X, np.arange(len(X)) if units is None else units, ("avg",), names, names, rate=rate)
    assert found is not None
    return found


@pytest.mark.parametrize(("n", "d"), [(300, 20), (30, 80)])
def test_distances_are_those_of_ledoit_and_wolf(n: int, d: int) -> None:
    X, others = rows(n, d), rows(50, d, seed=1)
    expected = LedoitWolf().fit(X.astype(np.float64)).mahalanobis(others)
    np.testing.assert_allclose(fit_gaussian(X).distances(others) ** 2, expected, rtol=0.01)  # components are float16


def test_directions_beyond_the_components_share_a_variance(monkeypatch: pytest.MonkeyPatch) -> None:
    X = rows(300, 20)
    monkeypatch.setattr(familiarity, "MAX_COMPONENT_BYTES", 5 * 2 * 20)
    gaussian = fit_gaussian(X)
    assert gaussian.components.shape == (5, 20)
    other = X.mean(axis=0) + 100 * np.linalg.qr(gaussian.components.T.astype(float), mode="complete")[0][:, 10]
    expected = 100 / np.sqrt(gaussian.residual_variance)
    assert gaussian.distances(other[None].astype(np.float32)) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("rate", [0.01, 0.1])
def test_the_rate_of_new_images_is_unfamiliar(rate: float) -> None:
    found = fitted(rows(1000, 20), rate=rate)
    share = (found.unfamiliarity(rows(20_000, 20, seed=1)) > 1).mean()
    assert rate / 2 < share < 1.5 * rate
    assert (found.unfamiliarity(rows(100, 20, seed=1) + 10) > 1).all()


def test_images_of_a_unit_do_not_vouch_for_each_other() -> None:
    X = np.repeat(rows(40, 60), 5, axis=0)  # each image five times
    apart, together = fitted(X), fitted(X, np.repeat(np.arange(40), 5))
    shares = [(one.unfamiliarity(rows(2000, 60, seed=1)) > 1).mean() for one in (together, apart)]
    assert shares[0] < 0.05 < 0.2 < shares[1]


def test_the_nearest_training_image_is_named() -> None:
    X = rows(200, 30)
    found = fitted(X)
    assert [found.paths[i] for i in found.nearest(X[[7, 100]] + 0.001)] == ["7.jpg", "100.jpg"]


def test_the_same_images_give_the_same_numbers() -> None:
    one, other = fitted(rows(300, 20)), fitted(rows(300, 20))
    assert one.threshold == other.threshold
    np.testing.assert_array_equal(one.gaussian.components, other.gaussian.components)


def test_too_few_images_have_no_distance() -> None:
    X = rows(4, 5)
    assert fit_familiarity(X[:1], np.arange(1), ("avg",), ["a"], ["b"]) is None
    assert fit_familiarity(X, np.zeros(4, int), ("avg",), list("abcd"), list("abcd")) is None
    assert fit_familiarity(X[[0, 0]], np.arange(2), ("avg",), ["a", "b"], ["a", "b"]) is None
    same = np.repeat(X[:1], 30, axis=0)
    same[0] += 1  # all but one: folds without it have no variance
    found = fit_familiarity(same, np.arange(30), ("avg",), ["a"] * 30, ["b"] * 30)
    assert found is None or np.isfinite(found.unfamiliarity(X)).all()
