"""A search looks at training images alone, and chooses what predicts held-out images best."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headstart.cache.merge import MergedRow, merge
from headstart.cache.reader import open_cache
from headstart.errors import DataError, HeadstartError, ParameterError
from headstart.evaluate.folds import make_folds
from headstart.evaluate.target_types.class_target import metric_values
from headstart.fit import fit_head
from headstart.heads import grid_predictions as trials_of_heads
from headstart.heads.catalogue import HEAD_TYPES, default_spec, make_head
from headstart.heads.transforms import design_matrix
from headstart.scores import CHOICE_METRICS, Criterion, class_index, metric_named
from headstart.selection.compare import compare_heads
from headstart.selection.cross_validation import Trial, best_trial, search_notes
from headstart.selection.search import sample, search_head
from labelled import labelled_cache

pytestmark = pytest.mark.slow

LABELS = [row % 3 for row in range(90)]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    splits = ["test" if row >= 60 else "train" for row in range(90)]
    return labelled_cache(tmp_path_factory.mktemp("search") / "c.h5", LABELS, splits=splits, distance=0.6)


def test_the_best_of_all_settings_is_chosen_and_all_are_listed(cache: Path) -> None:
    with open_cache(cache) as opened:
        found = search_head(opened, "logistic", np.arange(60))
    assert [trial.spec.params["C"] for trial in found.trials] == [10.0**k for k in range(-3, 5)]
    assert found.spec == best_trial(found.trials).spec
    assert max(trial.score for trial in found.trials) == best_trial(found.trials).score
    assert all(len(trial.fold_scores) == 5 for trial in found.trials)
    assert "5 folds of 60 images" in found.folds


def test_held_out_rows_have_no_part_in_it(cache: Path, tmp_path: Path) -> None:
    """Other labels and features of the rows that are scored: nothing that was chosen changes."""
    other = labelled_cache(tmp_path / "o.h5", [*LABELS[:60], *[0] * 30], distance=0.6)
    with open_cache(cache) as one, open_cache(other) as two:
        first, second = (search_head(opened, "ridge", np.arange(60)) for opened in (one, two))
    assert first.spec == second.spec
    np.testing.assert_allclose([t.score for t in first.trials], [t.score for t in second.trials])


@pytest.mark.parametrize("metric", CHOICE_METRICS)
def test_every_metric_chooses_the_setting_whose_real_heads_score_best(
    cache: Path, metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials_of_heads, "PATH_TOL", 1e-8)
    criterion = Criterion(metric, positive=1 if metric == "average_precision" else None)
    with open_cache(cache) as opened:
        rows, labels = np.arange(60), opened.labels[:60]
        X = design_matrix(opened.batches(rows), ("avg",))
        given = {"features": ("avg",), "params": {"max_iter": 5000}}
        found = search_head(opened, "logistic", rows, criterion=criterion, **given)
    folds = make_folds(labels, n_splits=5, sha256=[str(row) for row in rows], groups=[""] * 60)
    for trial in found.trials:
        expected = []
        for fold in folds.splits:
            probabilities = make_head(trial.spec).fit(X[fold.train], labels[fold.train]).predict_proba(X[fold.test])
            expected.append(metric_values(labels[fold.test], probabilities, criterion.positive)[metric])
        assert trial.metric == metric
        assert trial.score == pytest.approx(np.mean(expected), abs=2e-3), trial.spec.params
    best = (min if metric == "log_loss" else max)(trial.score for trial in found.trials)
    assert next(trial for trial in found.trials if trial.spec == found.spec).score == pytest.approx(best)


@pytest.mark.parametrize("name", ["linear-svm", "rbf-svm", "ridge", "knn"])
def test_heads_that_calibrate_are_judged_by_the_probabilities_that_they_give(cache: Path, name: str) -> None:
    with open_cache(cache) as opened:
        found = search_head(opened, name, np.arange(60), features=("avg",), criterion=Criterion("log_loss"))
        shares = search_head(opened, name, np.arange(60), features=("avg",))
    assert found.spec == best_trial(found.trials).spec
    assert best_trial(found.trials).score == min(trial.score for trial in found.trials) < np.log(3)
    assert all(0 <= trial.score <= 1 for trial in shares.trials)


def test_a_metric_or_a_class_that_is_none_is_refused(cache: Path) -> None:
    with open_cache(cache) as opened, pytest.raises(ParameterError, match=r"balanced_accuracy.*Received: 'recall'"):
        search_head(opened, "ridge", np.arange(60), criterion=Criterion("recall"))
    with pytest.raises(ParameterError, match="Received: 'euclidean'"):
        fit_head(cache, search="none", metric="euclidean")
    with pytest.raises(ParameterError, match=r"among ants, bees, wasps\. Received: 'bee'\. Did you mean bees\?"):
        class_index("bee", ("ants", "bees", "wasps"))
    with pytest.raises(ParameterError, match=r"Received: 'balanced'\. Did you mean balanced_accuracy\?"):
        metric_named("balanced")
    with pytest.raises(ParameterError, match=r"class 19 and 480 more\. Received: 'x'\.$"):
        class_index("x", [f"class {number}" for number in range(500)])


def test_a_positive_class_is_known_in_either_unicode_form() -> None:
    assert class_index(" cafe\u0301", ("ants", "caf\u00e9")) == 1


def test_a_fold_without_the_score_does_not_count() -> None:
    specs = [default_spec("logistic", params={"C": C}) for C in (1.0, 10.0, 100.0)]
    scores = ((0.7, math.nan), (0.6, 0.9), (math.nan, math.nan))
    trials = [Trial(spec, one, metric="roc_auc_ovr") for spec, one in zip(specs, scores, strict=True)]
    assert [trial.score for trial in trials[:2]] == [0.7, 0.75]
    assert best_trial(trials) is trials[1]


def test_what_is_given_is_not_searched(cache: Path) -> None:
    with open_cache(cache) as opened:
        found = search_head(
            opened, "rbf-svm", np.arange(60), features=("max",), scaling="l2", params={"C": 3.0, "class_weight": None}
        )
    assert {(t.spec.features, t.spec.scaling, t.spec.params["C"]) for t in found.trials} == {(("max",), "l2", 3.0)}
    assert len({t.spec.params["gamma_factor"] for t in found.trials}) == len(found.trials)


def test_threads_change_nothing(cache: Path) -> None:
    with open_cache(cache) as opened:
        one, two = (search_head(opened, "linear-svm", np.arange(60), n_jobs=jobs) for jobs in (1, 2))
    assert one.trials == two.trials


def test_a_cluster_is_asked_only_where_there_is_one_and_something_to_search(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(HeadstartError, match=r"Unknown engine .dask.\. Expected local or ray"):
        fit_head(cache, search="params", engine="dask")
    with pytest.raises(DataError, match=r"nothing to choose \(search: none\)\. Leave out `engine`"):
        fit_head(cache, search="none", engine="ray")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else find(name))
    with pytest.raises(HeadstartError, match=r"pip install \"headstart\[ray\]\""):
        fit_head(cache, search="params", engine="ray")
    with pytest.raises(HeadstartError, match=r"pip install \"headstart\[ray\]\""):
        compare_heads(cache, engine="ray")


def test_many_images_are_sampled_by_class_and_that_is_said(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HEAD_TYPES, "logistic", replace(HEAD_TYPES["logistic"], max_search_images=30))
    with open_cache(cache) as opened:
        rows, notes = sample(opened.labels, np.arange(60), 30, 0)
        assert np.bincount(opened.labels[rows]).tolist() == [10, 10, 10]
        assert "chosen on 30 of 60 training images" in notes[0]
        assert "30 of 60" in search_head(opened, "logistic", np.arange(60)).notes[0]


def test_a_setting_at_the_edge_of_the_grid_is_said() -> None:
    specs = [default_spec("logistic", params={"C": C}) for C in (1.0, 10.0, 100.0)]
    trials = [Trial(spec, (value,), True) for spec, value in zip(specs, (0.7, 0.8, 0.9), strict=True)]
    assert "The best C, 100, is at the edge" in search_notes(trials, best_trial(trials))[0]
    level = [Trial(spec, (0.9,), True) for spec in specs]
    assert best_trial(level) is level[0]
    assert search_notes(level, best_trial(level)) == []
    unfinished = [Trial(spec, (0.9,), False) for spec in specs]
    assert "3 of 3 settings did not converge" in search_notes(unfinished, best_trial(unfinished))[0]


def test_fit_head_saves_what_was_chosen_and_scores_it_on_other_images(cache: Path, tmp_path: Path) -> None:
    result = fit_head(cache, "logistic", search="features", output=tmp_path / "head")
    assert result.search is not None
    assert result.spec == result.search.spec
    assert result.n_train == 60
    assert "60 images" in result.search.folds
    assert result.score.n_samples == 30


def test_of_several_caches_the_one_that_predicts_best_is_chosen(tmp_path: Path) -> None:
    """The second cache holds the same images in another order, with classes that lie further apart."""
    vague = labelled_cache(tmp_path / "a.h5", LABELS, distance=0.1)
    clear = turned_cache(tmp_path / "b.h5", distance=2.0)
    found = fit_head(vague, "ridge", search="params", among=[clear], output=tmp_path / "head")
    assert found.search is not None
    assert found.caches[found.search.source] == clear
    assert {trial.source for trial in found.search.trials} == {0, 1}
    alone = fit_head(clear, found.spec, validation=0.25)
    assert found.score.accuracy > 0.9
    assert (found.n_train, found.score.n_samples) == (alone.n_train, alone.score.n_samples)


def test_the_same_features_twice_change_nothing(tmp_path: Path, cache: Path) -> None:
    copy = tmp_path / "copy.h5"
    copy.write_bytes(cache.read_bytes())
    alone, twice = (fit_head(cache, "logistic", search="features", among=others) for others in ([], [copy]))
    assert alone.search is not None
    assert twice.search is not None
    assert (twice.search.source, twice.spec, twice.score) == (0, alone.spec, alone.score)
    n_trials = len(alone.search.trials)
    first, second = twice.search.trials[:n_trials], twice.search.trials[n_trials:]
    assert first == alone.search.trials
    assert [trial.fold_scores for trial in second] == [trial.fold_scores for trial in first]


@pytest.mark.parametrize("head_type", ["logistic", "linear-svm", "ridge"])
def test_a_linear_head_is_searched_by_default_and_one_of_a_full_specification_is_not(
    cache: Path, head_type: str
) -> None:
    default, asked = fit_head(cache, head_type), fit_head(cache, head_type, search="features")
    assert default.search is not None
    assert default.spec == asked.spec
    assert fit_head(cache, default_spec(head_type)).search is None
    assert fit_head(cache, head_type, search="none").search is None


def test_other_heads_are_not_searched_by_default(cache: Path) -> None:
    assert fit_head(cache, "knn").search is None


def test_where_too_few_images_can_be_divided_nothing_is_searched_and_it_is_said(tmp_path: Path) -> None:
    few = labelled_cache(tmp_path / "few.h5", [0, 1, 0, 1], splits=["train", "train", "test", "test"])
    result = fit_head(few, "logistic")
    assert (result.search, result.spec) == (None, default_spec("logistic"))
    assert "No setting was searched: Cross-validation needs two classes" in result.notes[-1]


def test_caches_of_other_images_or_classes_are_refused(tmp_path: Path, cache: Path) -> None:
    fewer = labelled_cache(tmp_path / "fewer.h5", LABELS[:80], splits=["train"] * 80)
    with pytest.raises(DataError, match=r"fewer.h5 lacks 10 of the 30 images .*: .*80.jpg.* and 7 more"):
        fit_head(cache, "ridge", search="params", among=[fewer])
    relabelled = labelled_cache(tmp_path / "other.h5", [(label + 1) % 3 for label in LABELS])
    with pytest.raises(DataError, match=r"other classes than .* for 60 images"):
        fit_head(cache, "ridge", search="params", among=[relabelled])
    with pytest.raises(DataError, match="needs a search"):
        fit_head(cache, "ridge", search="none", among=[cache])


def turned_cache(path: Path, distance: float) -> Path:
    """Write a cache of the images of LABELS, the last one first."""
    ordered = labelled_cache(path.with_suffix(".ordered.h5"), LABELS, distance=distance)
    with open_cache(ordered) as opened:
        rows = [MergedRow(0, row, ref) for row, ref in reversed(list(enumerate(opened.refs())))]
        merge(path, sources=[opened], rows=rows, failures=[], class_names=opened.class_names, layout="")
    return path
