"""Decisions from the fit of a head to its predictions: chosen without held-out images, saved, scored and printed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from caches import RECIPE
from commands import exit_code
from fakes import FakeBackbone
from headstart import fit
from headstart.bundles.bundle import Bundle, load_bundle
from headstart.cache.merge import MergedRow, merge
from headstart.cache.reader import open_cache
from headstart.decisions.rule import Decision
from headstart.errors import DataError, ParameterError
from headstart.evaluate.folds import make_folds
from headstart.evaluation import evaluate_head
from headstart.fit import fit_head
from headstart.heads.catalogue import default_spec, make_head
from headstart.heads.transforms import design_matrix
from headstart.predict import Predictor
from headstart.scores import wilson
from headstart.selection import out_of_fold
from headstart.selection.search import read_features
from headstart.types import FeatureBatch
from labelled import NAMES, labelled_cache

RIDGE = default_spec("ridge", features=["avg"])


def overlapping(path: Path, n: int = 240, n_classes: int = 2, **options: object) -> Path:
    """A cache whose classes overlap; the last fourth is held out."""
    labels = [row % n_classes for row in range(n)]
    splits = ["train"] * (3 * n // 4) + ["test"] * (n - 3 * n // 4)
    return labelled_cache(path, labels, splits=splits, **{"distance": 0.12, **options})  # type: ignore[arg-type]


def rewritten(source: Path, path: Path, **columns: dict[int, object]) -> Path:
    """Write a cache again with other labels, groups or weights of some rows."""
    with open_cache(source) as cache:
        refs = cache.refs()
        rows = [
            MergedRow(0, row, replace(ref, **{name: values[row] for name, values in columns.items() if row in values}))
            for row, ref in enumerate(refs)
        ]
        merge(path, sources=[cache], rows=rows, failures=(), class_names=cache.class_names, layout="")
    return path


def test_a_threshold_is_chosen_on_folds_and_scored_on_held_out_images(tmp_path: Path) -> None:
    cache = overlapping(tmp_path / "c.h5")
    found = fit_head(cache, RIDGE, positive="ants", at="recall=0.9", output=tmp_path / "head")
    rule = load_bundle(tmp_path / "head").decision
    assert rule is not None
    assert rule.cutoff is not None
    assert found.chosen is not None
    assert found.chosen.rule == rule
    assert found.chosen.folds == "5 folds of 180 images, stratified by class, seed 0"
    assert found.chosen.score is not None
    assert found.chosen.score.cutoff is not None
    assert found.chosen.score.cutoff.recall.value == 82 / 90  # ⌈0.9 · 91⌉ of 90
    assert found.scored is not None
    p, y = found.scored.probabilities[:, 0], found.scored.y_true
    right = int(((p >= rule.cutoff.threshold) & (y == 0)).sum())
    assert found.decision is not None
    assert found.decision.cutoff is not None
    recall = found.decision.cutoff.recall
    assert (recall.value, recall.low, recall.high) == (right / 30, *wilson(right / 30, 30))
    assert json.loads((tmp_path / "head" / "metrics.json").read_text())["decision"] == found.decision.to_dict()


def test_predictions_are_those_of_heads_without_the_image(tmp_path: Path) -> None:
    """A head of one nearest neighbour knows each image that it was fitted on: its own probabilities would be 1."""
    cache = overlapping(tmp_path / "c.h5", distance=0.0)
    spec = default_spec("knn", features=["avg"])
    found = fit_head(cache, spec, positive="ants", at="recall=0.9", coverage=0.9)
    assert found.chosen is not None
    assert found.chosen.score is not None
    assert found.chosen.score.sets is not None
    assert found.chosen.score.cutoff is not None
    assert found.chosen.score.cutoff.specificity.value < 0.6  # nothing can be told from these features


def test_held_out_images_change_nothing(tmp_path: Path) -> None:
    cache = overlapping(tmp_path / "c.h5", n_classes=3, distance=0.4)
    other = rewritten(cache, tmp_path / "o.h5", label={row: NAMES[(row + 1) % 3] for row in range(180, 240)})
    wanted = {"positive": "bees", "at": "precision=0.4", "coverage": 0.8, "coverage_per_class": True}
    rules = [fit_head(path, RIDGE, **wanted).chosen for path in (cache, other)]  # type: ignore[arg-type]
    assert rules[0] is not None
    assert rules[1] is not None
    assert rules[0].rule == rules[1].rule
    trained = rewritten(cache, tmp_path / "t.h5", label={row: NAMES[(row + 1) % 3] for row in range(20)})
    changed = fit_head(trained, RIDGE, **wanted).chosen  # type: ignore[arg-type]
    assert changed is not None
    assert changed.rule != rules[0].rule


def test_groups_stay_together_in_the_folds(tmp_path: Path) -> None:
    """Two nearly identical images of a group in different folds would give each other away."""
    near = {row: row - 90 for row in range(90, 180)}
    cache = overlapping(tmp_path / "c.h5", near=near, distance=0.0)
    grouped = rewritten(cache, tmp_path / "g.h5", group={row: f"cell {row % 90}" for row in range(180)})
    spec = default_spec("knn", features=["avg"])
    alone, together = (
        fit_head(path, spec, positive="ants", at="recall=0.5").chosen.score.cutoff.precision.value  # type: ignore[union-attr]
        for path in (cache, grouped)
    )
    assert alone > 0.75
    assert together < 0.65


def test_weights_count_in_the_fits_of_the_folds(tmp_path: Path) -> None:
    cache = overlapping(tmp_path / "c.h5")
    heavy = rewritten(cache, tmp_path / "w.h5", weight=dict.fromkeys(range(0, 180, 2), 5.0))
    plain, weighted = (
        fit_head(path, RIDGE, positive="ants", at="recall=0.9").chosen.rule.cutoff.threshold  # type: ignore[union-attr]
        for path in (cache, heavy)
    )
    assert weighted > plain + 0.05  # every image of these fits is more probably an ant


@pytest.mark.parametrize("per_class", [False, True])
def test_sets_are_chosen_saved_and_scored(tmp_path: Path, per_class: bool) -> None:
    cache = overlapping(tmp_path / "c.h5", n_classes=3, distance=0.3)
    result = fit_head(cache, RIDGE, coverage=0.9, coverage_per_class=per_class, output=tmp_path / "head")
    rule = load_bundle(tmp_path / "head").decision
    assert rule is not None
    assert rule.sets is not None
    assert len(rule.sets.cutoffs) == (3 if per_class else 1)
    found = evaluate_head(tmp_path / "head", cache)
    assert found.decision == result.decision
    assert found.decision is not None
    assert found.decision.sets is not None
    assert found.scored is not None
    inside = found.scored.probabilities >= np.array(rule.sets.cutoffs)
    assert found.decision.sets.coverage.value == inside[np.arange(60), found.scored.y_true].mean()
    assert found.decision.sets.mean_size == inside.sum(axis=1).mean()
    assert found.to_dict()["decision"]["sets"]["coverage"]["value"] == found.decision.sets.coverage.value


def test_costs_decide_without_folds(tmp_path: Path) -> None:
    cache = overlapping(tmp_path / "c.h5")
    (tmp_path / "costs.csv").write_text("true,bees,ants\nants,9,0\nbees,0,1\n")
    found = fit_head(cache, RIDGE, cost_matrix=tmp_path / "costs.csv", output=tmp_path / "head")
    assert found.chosen is not None
    assert found.chosen.folds == ""
    assert found.decision is not None
    assert found.decision.costs is not None
    assert found.decision.costs.mean_cost.value < found.decision.costs.mean_cost_of_most_probable
    assert load_bundle(tmp_path / "head").decision == found.chosen.rule


def test_costs_are_read_before_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "choose_setting", lambda *_given, **_options: pytest.fail("searched"))
    (tmp_path / "costs.csv").write_text("true,bees,wasps\nwasps,9,0\nbees,0,1\n")
    with pytest.raises(DataError, match=r"Missing: ants; unknown: wasps\. Expected: ants, bees"):
        fit_head(overlapping(tmp_path / "c.h5"), "ridge", cost_matrix=tmp_path / "costs.csv")


def test_features_of_several_caches_side_by_side_are_decided_on_too(tmp_path: Path) -> None:
    first = overlapping(tmp_path / "a.h5")
    second = overlapping(tmp_path / "b.h5", seed=1, recipe=replace(RECIPE, input_size_px=16))
    found = fit_head(first, RIDGE, among=[second], join=True, positive="ants", at="recall=0.9", coverage=0.9)
    assert found.decision is not None
    assert found.decision.cutoff is not None
    assert found.decision.sets is not None


def test_an_ensemble_is_fitted_anew_in_each_fold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = overlapping(tmp_path / "c.h5")
    seen: list[np.ndarray] = []
    original = out_of_fold.predictions
    monkeypatch.setattr(out_of_fold, "predictions", lambda *given: seen.append(original(*given)) or seen[-1])
    found = fit_head(cache, "ensemble", positive="ants", at="recall=0.9")
    with open_cache(cache) as opened:
        X = read_features(opened, found.spec.features, np.arange(180))
        folds = make_folds(opened.labels[:180], sha256=opened.sha256[:180], groups=opened.groups[:180])
    for fold in folds.splits:
        head = make_head(found.spec).fit(X[fold.train], fold.train % 2)
        np.testing.assert_allclose(head.predict_proba(X[fold.test]), seen[0][fold.test], atol=1e-6)


def test_images_get_the_decision_of_the_head(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 35, 35, 3), dtype=np.uint8)
    images[::2] //= 2
    backbone = FakeBackbone()
    batch: FeatureBatch = backbone.forward(images)
    head = make_head(RIDGE).fit(design_matrix([batch], RIDGE.features), np.arange(40) % 2)
    cache = overlapping(tmp_path / "c.h5")
    rule = fit_head(cache, RIDGE, positive="ants", at="recall=0.9", coverage=0.9).chosen.rule  # type: ignore[union-attr]
    bundle = Bundle(head, RIDGE, backbone.recipe, ("ants", "bees"), decision=rule)
    predicted = list(Predictor(bundle, backbone=backbone).predict([*images]))
    probabilities = np.stack([one.probabilities for one in predicted])
    assert [one.decision for one in predicted] == rule.decide(probabilities, bundle.class_names)
    assert isinstance(predicted[0].decision, Decision)
    assert next(Predictor(replace(bundle, decision=None), backbone=backbone).predict(images[0])).decision is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"at": "recall=0.9"}, "Name it"),
        ({"at": "recall=0.9", "positive": "wasps"}, "positive class among ants, bees"),
        ({"at": "recall=2", "positive": "ants"}, "between 0 and 1"),
        ({"at": "recall=0.9", "positive": "ants", "cost_matrix": "c.csv"}, "Leave one out"),
        ({"coverage": 1.0}, "between 0 and 1"),
        ({"coverage": 95}, "between 0 and 1"),
        ({"coverage_per_class": True}, "goes with"),
    ],
)
def test_what_does_not_fit_together_is_refused(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        fit_head(overlapping(tmp_path / "c.h5"), RIDGE, output=tmp_path / "head", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "head").exists()


def test_heads_that_cannot_decide_so_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = overlapping(tmp_path / "c.h5")
    with pytest.raises(ParameterError, match="is not fitted on images of several classes"):
        fit_head(cache, "ridge-regression", target="number", coverage=0.9)
    with pytest.raises(DataError, match=r"at least 99 positive training images. Received: 90"):
        fit_head(cache, RIDGE, positive="ants", at="recall=0.99", output=tmp_path / "head")
    assert not (tmp_path / "head").exists()
    with monkeypatch.context() as patch:
        nothing = SimpleNamespace(probabilities=np.full((180, 2), np.nan))
        patch.setattr(out_of_fold.CrossValidation, "run", lambda _self: nothing)
        with pytest.raises(DataError, match=r"no probabilities in some fold \(NaN\)"):
            fit_head(cache, RIDGE, coverage=0.9)
    monkeypatch.setattr(fit, "matrix_fits", lambda *_: False)
    with pytest.raises(DataError, match="chosen on folds in memory only"):
        fit_head(cache, RIDGE, coverage=0.9)


def test_the_command_prints_threshold_and_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, head = overlapping(tmp_path / "c.h5"), tmp_path / "head"
    options = ("--type", "ridge", "--no-search", "--features", "avg", "-o", head)
    wanted = ("--positive", "ants", "--at", "recall=0.9", "--coverage", "0.9", "--coverage-per-class")
    assert exit_code(monkeypatch, "fit-head", cache, *options, *wanted) == 0
    fitted = capsys.readouterr().out
    assert "Chosen on predictions of training images left out of the fit (5 folds of 180 images" in fitted
    assert "called positive of 1,000 images" in fitted
    assert "classes on average" in fitted
    assert exit_code(monkeypatch, "evaluate", head, cache) == 0
    evaluated = capsys.readouterr().out
    assert next(line for line in fitted.splitlines() if "recall=0.9): recall" in line) in evaluated
    assert exit_code(monkeypatch, "fit-head", cache, *options, "--at", "recall=0.9", "--overwrite") == 1
    assert "Name it (--positive)" in capsys.readouterr().err.replace("\n", " ")
    assert exit_code(monkeypatch, "fit-head", cache, *options, "--coverage-per-class", "--overwrite") == 1
    assert "--coverage-per-class goes with a --coverage" in capsys.readouterr().err.replace("\n", " ")


def test_the_quantile_is_of_the_probabilities_of_the_true_class(tmp_path: Path) -> None:
    cache = overlapping(tmp_path / "c.h5")
    both = fit_head(cache, RIDGE, positive="ants", at="recall=0.9", coverage=0.9, coverage_per_class=True)
    assert both.chosen is not None
    assert both.chosen.rule.cutoff is not None
    assert both.chosen.rule.sets is not None
    assert both.chosen.rule.sets.cutoffs[0] == both.chosen.rule.cutoff.threshold  # the recall of ants is their coverage
