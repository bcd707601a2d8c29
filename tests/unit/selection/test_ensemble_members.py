"""Means of several heads: which are averaged, how they are compared, fitted and saved."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundles import change_metadata
from caches import RECIPE, write_cache
from headstart.bundles.bundle import load_bundle
from headstart.cache.reader import open_cache
from headstart.errors import BundleError, DataError, HeadstartError, ParameterError
from headstart.evaluate.folds import make_folds
from headstart.evaluation import evaluate_head
from headstart.exchange.keras_file import as_layers
from headstart.fit import fit_head
from headstart.heads.catalogue import default_spec, make_head
from headstart.heads.ensemble import EnsembleHead
from headstart.heads.transforms import design_matrix
from headstart.report.comparison import Comparison
from headstart.report.comparison_text import comparison_csv, comparison_json, comparison_markdown
from headstart.report.html_pages import benchmark_page
from headstart.scores import Criterion
from headstart.selection import ensemble_members
from headstart.selection.compare import compare_heads
from headstart.selection.cross_validation import LocalPool, Trial
from headstart.selection.ensemble_members import best_mean, ensemble_spec, predicted, shortlist
from headstart.selection.search import make_tables
from headstart.types import HeadSpec
from headstart_cli.app import COMMANDS, make_app
from labelled import labelled_cache

pytestmark = pytest.mark.slow

LABELS = [row % 3 for row in range(72)]
SPLITS = ["test" if row >= 54 else "train" for row in range(72)]
LARGER = replace(RECIPE, input_size_px=16)


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two caches that each show two of three classes alike."""
    folder = tmp_path_factory.mktemp("ensemble")
    first = labelled_cache(folder / "a.h5", LABELS, splits=SPLITS, alike={1: 0}, seed=3)
    return first, labelled_cache(folder / "b.h5", LABELS, splits=SPLITS, alike={2: 1}, seed=4, recipe=LARGER)


@pytest.fixture(scope="module")
def found(caches: tuple[Path, Path]) -> Comparison:
    heads = ("ridge", "ensemble", "logistic", "majority")
    return compare_heads(caches[0], heads=heads, among=caches[1:], backbone_ms=[1000.0, 5000.0])


def trial(head_type: str, score: float, source: int = 0) -> Trial:
    return Trial(default_spec(head_type), (score,), source=source)


def test_members_are_those_whose_mean_predicts_best() -> None:
    truth = np.arange(6) % 2
    of_truth = np.array(
        [
            [0.1, 0.1, 0.1, 0.1, 0.1, 0.1],  # always wrong
            [0.9, 0.9, 0.9, 0.9, 0.3, 0.9],  # the best
            [0.6, 0.6, 0.6, 0.4, 0.9, 0.4],  # right where the best is wrong
            [0.9, 0.9, 0.9, 0.9, 0.3, 0.8],  # nearly the best
        ]
    )
    probabilities = np.stack([np.where(truth[:, None] == [0, 1], p[:, None], 1 - p[:, None]) for p in of_truth])
    assert best_mean(probabilities[:3], truth) == [1, 2]
    assert best_mean(probabilities[[0, 3]], truth) == [1]
    assert best_mean(probabilities[[3, 1]], truth) == [1]  # of equal accuracy, the lower log-loss
    assert best_mean(probabilities[:3], truth, Criterion("log_loss", None)) == [1]  # the metric decides


def test_every_cache_has_a_part_among_those_that_may_become_members() -> None:
    names = ("logistic", "ridge", "knn", "linear-svm")
    trials = [
        trial(name, score - source, source)
        for source in (0, 1)
        for name, score in zip(names, (1, 4, 3, 2), strict=True)
    ]
    listed = [(one.spec.type, one.source) for one in shortlist(trials)]
    assert listed == [(name, source) for source in (0, 1) for name in ("ridge", "knn", "linear-svm")]
    with pytest.raises(DataError, match="two heads at least"):
        shortlist([trial("dense", 1), trial("ridge", 1), trial("nearest-class-mean", 1)])


def test_rows_are_predicted_by_heads_that_did_not_see_them(caches: tuple[Path, Path]) -> None:
    rows = np.arange(54)
    labels = np.array(LABELS[:54])
    trials = [trial("ridge", 1, source) for source in (1, 0)]
    folds = make_folds(labels, n_splits=3, n_repeats=2).splits
    with open_cache(caches[0]) as a, open_cache(caches[1]) as b:
        opened = (a, b)
        found = predicted(
            trials, lambda source, specs: make_tables(opened[source], specs, rows, None), labels, folds, 3, LocalPool(1)
        )
        X = design_matrix(b.batches(rows), ("avg",))
    expected = np.zeros((54, 3))
    for fold in folds:
        head = make_head(default_spec("ridge")).fit(X[fold.train], labels[fold.train])
        expected[fold.test] += head.predict_proba(X[fold.test]) / 2
    np.testing.assert_allclose(found[0], expected, atol=1e-9)
    np.testing.assert_allclose(found.sum(axis=2), 1)


def test_the_choice_inside_of_a_fold_never_sees_its_test_rows(
    monkeypatch: pytest.MonkeyPatch, caches: tuple[Path, Path]
) -> None:
    looked_at: list[np.ndarray] = []
    choose = ensemble_members.best_mean

    def watched(probabilities: np.ndarray, truth: np.ndarray, criterion: Criterion) -> list[int]:
        looked_at.append(truth)
        return choose(probabilities, truth, criterion)

    monkeypatch.setattr(ensemble_members, "best_mean", watched)
    compare_heads(caches[0], heads=("ridge", "logistic", "ensemble"), among=caches[1:], n_splits=3)
    assert [len(truth) for truth in looked_at] == [36, 36, 36, 54]  # inside of the folds, and on all of their images


def test_an_ensemble_is_one_more_row_on_the_same_folds(found: Comparison, caches: tuple[Path, Path]) -> None:
    head = found["ensemble"]
    single = compare_heads(caches[0], heads=("ridge", "logistic"), among=caches[1:])
    for name in ("ridge", "logistic"):  # nothing else changes
        np.testing.assert_array_equal(found[name].probabilities, single[name].probabilities)
    assert found.recommended == "ensemble"
    assert head.metrics["accuracy"].value > max(found[name].metrics["accuracy"].value for name in ("ridge", "logistic"))
    assert head.cache == "a.h5 + b.h5"
    assert head.cost.total_ms == pytest.approx(6000, abs=500)
    assert all("on a.h5" in words and "on b.h5" in words for words in head.fold_settings)
    np.testing.assert_allclose(head.probabilities.sum(axis=1), 1, atol=1e-5)
    assert head.held_out is not None
    for text in (comparison_csv(found), comparison_json(found), comparison_markdown(found), benchmark_page(found)):
        assert "a.h5 + b.h5" in text
    assert "mean of" in benchmark_page(found)


def test_the_command_fits_such_an_ensemble_and_it_predicts_from_its_folder(
    found: Comparison, caches: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = shlex.split(found.fit_command)
    assert command[:5] == ["fit-head", *map(str, caches), "--type", "ensemble"]
    make_app(*COMMANDS)(command, standalone_mode=False)
    (saved,) = (tmp_path / "heads").iterdir()
    bundle = load_bundle(saved)
    assert bundle.spec.type == "ensemble"
    assert {
        source for member in bundle.spec.params["members"] for source in (name[0] for name in member["features"])
    } == {"1", "2"}
    scored = evaluate_head(saved, caches[::-1], split="test").scored
    assert scored is not None
    X = []
    for path in caches:
        with open_cache(path) as cache:
            X.append(design_matrix(cache.batches(np.arange(54, 72)), ("avg",)))
    members = bundle.head.named_steps["classifier"].members_
    blocks = [X[int(member["features"][0][0]) - 1] for member in bundle.spec.params["members"]]
    expected = np.mean([head.predict_proba(block) for head, block in zip(members, blocks, strict=True)], axis=0)
    np.testing.assert_allclose(scored.probabilities, expected, atol=1e-9)
    with pytest.raises(HeadstartError, match="cannot be exported"):
        as_layers(bundle.head.steps[-1][1])


def test_columns_are_those_of_the_features_of_each_member(tmp_path: Path) -> None:
    paths = [
        write_cache(tmp_path / f"{size}.h5", range(30), recipe=replace(RECIPE, input_size_px=size))
        for size in (8, 16, 24)
    ]
    spec = default_spec("ridge")
    members = [
        Trial(replace(spec, features=("before", "avg")), (), source=2),
        Trial(replace(spec, features=("avg",)), (), source=0),
        Trial(replace(spec, features=("max", "avg")), (), source=2),
    ]
    opened = [open_cache(path) for path in paths]
    found, used = ensemble_spec(members, opened, 0)
    alone, only = ensemble_spec(members[1:2], opened, 0)
    every = Trial(replace(spec, features=("1:avg", "2:max", "3:avg"), widths=(4, 4, 4)), (), source=3)
    joined, all_used = ensemble_spec([every, members[1]], opened, 0)
    for cache in opened:
        cache.close()
    assert (used, found.features) == ([0, 2], ("1:avg", "2:before", "2:avg", "2:max"))
    assert found.widths == (4, 13)
    assert [member["columns"] for member in found.params["members"]] == [
        [[4, 9], [9, 13]],
        [[0, 4]],
        [[13, 17], [9, 13]],
    ]
    assert [member["features"] for member in found.params["members"]] == [
        ["2:before", "2:avg"],
        ["1:avg"],
        ["2:max", "2:avg"],
    ]
    assert (only, alone.features, alone.widths) == ([0], ("avg",), ())
    assert alone.params["members"][0]["features"] == ["avg"]
    assert (all_used, joined.widths) == ([0, 1, 2], (4, 4, 4))
    assert joined.params["members"][0]["columns"] == [[0, 4], [4, 8], [8, 12]]
    assert joined.params["members"][0]["widths"] == [4, 4, 4]


def test_on_one_cache_several_heads_are_averaged(caches: tuple[Path, Path], tmp_path: Path) -> None:
    result = fit_head(caches[0], "ensemble", output=tmp_path / "head")
    assert result.search is not None
    assert {one.spec.type for one in result.search.trials} == {"logistic", "linear-svm", "rbf-svm", "ridge", "knn"}
    assert (result.spec.features, result.spec.widths, result.joined) == (("avg",), (), False)
    assert json.loads((tmp_path / "head" / "bundle.json").read_text())["format_version"] >= 3
    again = fit_head(caches[0], result.spec)
    assert again.scored is not None
    assert result.scored is not None
    np.testing.assert_allclose(again.scored.probabilities, result.scored.probabilities)
    with pytest.raises(DataError, match="chosen by a search"):
        fit_head(caches[0], "ensemble", search="none")


@pytest.mark.parametrize(
    "members",
    [
        [{"type": "dense"}],
        [{"type": "ensemble"}],
        [{"type": "sklearn.naive_bayes.GaussianNB"}],
        [{"type": "ridge", "params": {"depth": 3}}],
        [{"type": "ridge", "scaling": "log"}],
        [{"type": "ridge", "columns": [[3, 3]]}],
        [{"type": "ridge", "columns": [[-1, 3]]}],
        [{"type": "ridge", "seed": 3}],
        [{"scaling": "l2"}],
        "ridge",
        [],
    ],
)
def test_members_that_cannot_be_made_are_refused(members: Any) -> None:
    spec = HeadSpec("ensemble", ("avg",), "none", params={"members": members})
    with pytest.raises(ParameterError):
        make_head(spec).fit(np.eye(4), [0, 1, 0, 1])


@pytest.mark.parametrize(
    "change",
    [
        lambda spec: spec["params"]["members"].pop(),
        lambda spec: spec["params"]["members"][0].update(type="knn"),
        lambda spec: spec["params"]["members"][0].update(scaling="standard"),
    ],
)
def test_a_saved_ensemble_has_the_members_that_it_names(change: Any, tmp_path: Path, caches: tuple[Path, Path]) -> None:
    members = [{"type": "ridge"}, {"type": "logistic", "columns": [[0, 30]]}]
    spec = HeadSpec("ensemble", ("avg",), "none", params={"members": members})
    fit_head(caches[0], spec, output=tmp_path / "head")
    assert isinstance(load_bundle(tmp_path / "head").head.steps[-1][1], EnsembleHead)
    change_metadata(tmp_path / "head", lambda values: change(values["spec"]))
    with pytest.raises(BundleError, match="no head of this kind"):
        load_bundle(tmp_path / "head")
