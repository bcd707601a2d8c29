"""Settings tried with shared work predict what heads fitted one by one predict."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.heads import grid_predictions
from headstart.heads.catalogue import HEAD_TYPES, default_spec, heads_for, make_head
from headstart.heads.grid_predictions import Table, outcomes

pytestmark = pytest.mark.slow


def rows(n: int, d: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    return np.maximum(rng.normal(size=(n, d)) + 0.7 * np.eye(3, d)[y], 0).astype(np.float32), y


@pytest.mark.parametrize("scaling", ["sqrt-l2", "l2", "standard"])
@pytest.mark.parametrize("shape", [(120, 20), (60, 200)], ids=["tall", "wide"])
@pytest.mark.parametrize("name", sorted(set(heads_for("classification")) - {"dense"}))
def test_shared_work_changes_no_prediction(
    name: str, shape: tuple[int, int], scaling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid_predictions, "PATH_TOL", 1e-8)
    X, y = rows(*shape)
    train, test = np.arange(0, len(y), 2), np.arange(1, len(y), 2)
    grid = HEAD_TYPES[name].grid
    settings = [{key: value} for key in grid for value in grid[key] if not (key == "C" and value > 100)]
    found = {o.setting: o for o in outcomes(name, Table(X, ("avg",), scaling), y, train, test, settings, 0)}
    assert sorted(found) == list(range(len(settings)))
    for number, setting in enumerate(settings):
        head = make_head(default_spec(name, scaling=scaling, params=setting)).fit(X[train], y[train])
        classifier = head.steps[-1][1]
        if name in ("linear-svm", "rbf-svm"):  # a search has no use for their probabilities, and decides without
            expected = classifier.svm_.predict(head.steps[0][1].transform(X[test]))
        else:
            expected = head.predict(X[test])
        wrong = int((found[number].predicted != expected).sum())
        assert wrong <= 1, (setting, wrong)  # rounding may turn a tie


@pytest.mark.parametrize("name", ["logistic", "linear-svm"])
def test_the_tolerance_of_a_path_costs_hardly_a_prediction(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = rows(400, 60)
    settings = [{"C": C} for C in HEAD_TYPES[name].grid["C"]]
    halves = np.arange(200), np.arange(200, 400)

    def predicted() -> np.ndarray:
        found = outcomes(name, Table(X, ("avg",), "sqrt-l2"), y, *halves, settings, 0)
        return np.stack([o.predicted for o in sorted(found, key=lambda o: o.setting)])

    rough = predicted()
    monkeypatch.setattr(grid_predictions, "PATH_TOL", 1e-9)
    assert (rough != predicted()).mean() < 0.01


def test_labels_come_back_as_they_are_and_class_weights_count() -> None:
    X, y = rows(90, 20)
    y = np.array([2, 5, 9])[y]
    keep = np.r_[np.flatnonzero(y == 2)[:4], np.flatnonzero(y != 2)]
    plain, balanced = (
        next(iter(outcomes("logistic", Table(X, ("avg",), "l2"), y, keep, np.arange(90), [setting], 0))).predicted
        for setting in ({"C": 0.1}, {"C": 0.1, "class_weight": "balanced"})
    )
    assert set(balanced.tolist()) <= {2, 5, 9}
    assert (balanced == 2).sum() > (plain == 2).sum()
