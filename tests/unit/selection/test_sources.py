"""Heads compared on several caches of the same images: the cache is one more setting."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from caches import RECIPE
from headstart.bundles.bundle import load_bundle
from headstart.errors import DataError
from headstart.evaluate.folds import Fold, Folds, inner_folds
from headstart.heads.catalogue import default_spec
from headstart.heads.grid_predictions import Table
from headstart.report.comparison import Comparison
from headstart.report.comparison_text import comparison_csv, comparison_json, comparison_markdown
from headstart.report.html_pages import benchmark_page
from headstart.selection import sources
from headstart.selection.compare import compare_heads
from headstart.selection.comparison_setup import Bench
from headstart.selection.cross_validation import CrossValidation, LocalPool
from headstart_cli.app import COMMANDS, make_app
from labelled import labelled_cache

pytestmark = pytest.mark.slow

LABELS = [row % 3 for row in range(90)]
SPLITS = ["test" if row >= 72 else "train" for row in range(90)]
HEADS = ("logistic", "knn", "nearest-class-mean", "majority")
LARGER = replace(RECIPE, input_size_px=16)


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("sources")
    noise = labelled_cache(folder / "noise.h5", LABELS, splits=SPLITS, distance=0.0, seed=1)
    return noise, labelled_cache(folder / "clear.h5", LABELS, splits=SPLITS, distance=0.8, recipe=LARGER)


@pytest.fixture(scope="module")
def found(caches: tuple[Path, Path]) -> Comparison:
    noise, clear = caches
    return compare_heads(noise, heads=HEADS, among=[clear], backbone_ms=[1000.0, 5000.0], learning_curve=True)


def test_every_head_takes_the_cache_that_tells_and_scores_as_on_it_alone(
    caches: tuple[Path, Path], found: Comparison
) -> None:
    alone = compare_heads(caches[1], heads=HEADS, learning_curve=True)
    for head in found.heads:
        same = alone[head.name]
        np.testing.assert_array_equal(head.probabilities, same.probabilities)
        assert (head.spec, head.fold_accuracy, head.metrics) == (same.spec, same.fold_accuracy, same.metrics)
        assert (head.learning_curve, head.held_out) == (same.learning_curve, same.held_out)
        assert same.cache == ""
        if head.name != "majority":
            assert head.cache == "clear.h5 (input_size_px 16)"
            assert all(words.startswith("clear.h5") for words in head.fold_settings)
            assert head.cost.total_ms == pytest.approx(5000, abs=500)
    assert alone.caches == ()
    assert alone.fit_command == ""


def test_every_report_says_which_cache(found: Comparison) -> None:
    for text in (comparison_csv(found), comparison_json(found), comparison_markdown(found), benchmark_page(found)):
        assert "clear.h5" in text
        assert "16" in text
    assert json.loads(comparison_json(found))["caches"][0]["differs"] == "input_size_px 8"
    assert found.recommendation.startswith(f"Take {found.recommended} on clear.h5 (input_size_px 16): accuracy")


def test_the_command_that_is_recommended_works(
    found: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = shlex.split(found.fit_command)
    assert [Path(word).name for word in command[1:3]] == ["noise.h5", "clear.h5"]
    make_app(*COMMANDS)(command, standalone_mode=False)
    assert list((tmp_path / "heads").iterdir())


def test_the_choice_inside_of_a_fold_never_sees_its_test_rows() -> None:
    """One cache knows the labels of the test rows, and of no others: it may not be chosen for that."""
    rng = np.random.default_rng(0)
    labels = np.arange(180) % 3
    test, train = np.arange(60, 180), np.arange(60)
    told = np.eye(3)[labels] + rng.normal(size=(180, 3))
    leaky = rng.normal(size=(180, 3))
    leaky[test] = 10 * np.eye(3)[labels[test]]
    spec = default_spec("ridge", scaling="none")
    tables = [{(spec.features, "none"): Table(X.astype(np.float32), spec.features, "none")} for X in (leaky, told)]
    folds = Folds((Fold(train, test),), 1, 1, "one")
    course = CrossValidation(
        [[spec], [spec]],
        tables.__getitem__,
        labels,
        folds,
        lambda rows: inner_folds(rows, labels),
        n_classes=3,
        pool=LocalPool(1),
    )
    (chosen,) = course.choose()
    assert chosen.source == 1


def test_images_that_lie_in_one_cache_alone_are_left_out_and_said(tmp_path: Path) -> None:
    first = labelled_cache(tmp_path / "a.h5", LABELS, distance=0.0, seed=1)
    fewer = labelled_cache(tmp_path / "b.h5", LABELS[:80])
    found = compare_heads(first, heads=("ridge",), among=[fewer])
    assert len(found.y_true) == 80
    assert found.not_in_all[0].startswith(
        f"10 of the 90 images of {first} are left out: they do not lie in all 2 caches"
    )
    assert "ants" in found.not_in_all[0] or "wasps" in found.not_in_all[0]
    assert "10 of the 90 images" in comparison_markdown(found)
    assert shlex.split(found.fit_command)[1:3] == [str(fewer), "--type"]


def test_other_classes_and_other_images_are_refused(tmp_path: Path) -> None:
    first = labelled_cache(tmp_path / "a.h5", LABELS)
    other = labelled_cache(tmp_path / "b.h5", [(label + 1) % 3 for label in LABELS])
    with pytest.raises(DataError, match="other classes"):
        compare_heads(first, heads=("ridge",), among=[other])


def test_large_tables_of_one_cache_at_a_time_are_in_memory(
    caches: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MAX_KEPT_VALUES", 10)
    held: list[int] = []
    plain = Bench.tables

    def watched(bench: Bench, *arguments: object) -> object:
        tables = plain(bench, *arguments)  # type: ignore[arg-type]
        held.append(sum(bool(source.tables) for source in bench.sources))
        return tables

    monkeypatch.setattr(Bench, "tables", watched)
    found = compare_heads(caches[0], heads=("ridge", "knn"), among=caches[1:])
    assert set(held) == {1}
    assert found["knn"].cache.startswith("clear.h5")


@pytest.fixture(scope="module")
def weak(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two caches that each show two of three classes alike; both together tell all."""
    folder = tmp_path_factory.mktemp("weak")
    first = labelled_cache(folder / "a.h5", LABELS, splits=SPLITS, alike={1: 0}, seed=3)
    return first, labelled_cache(folder / "b.h5", LABELS, splits=SPLITS, alike={2: 1}, seed=4, recipe=LARGER)


@pytest.fixture(scope="module")
def joined(weak: tuple[Path, Path]) -> Comparison:
    heads = ("logistic", "sklearn.naive_bayes.GaussianNB", "majority")
    return compare_heads(
        weak[0], heads=heads, among=weak[1:], backbone_ms=[1000.0, 5000.0], join=True, learning_curve=True
    )


def test_all_caches_side_by_side_are_one_more_that_each_head_may_take(
    weak: tuple[Path, Path], joined: Comparison
) -> None:
    assert [cache.name for cache in joined.caches] == ["a.h5", "b.h5", "a.h5 + b.h5"]
    for head in joined.heads[:2]:
        assert head.spec is not None
        assert (head.spec.features, head.spec.widths) == (("1:avg", "2:avg"), (64, 64))
        assert head.cache == "a.h5 + b.h5 (side by side)"
        assert all(words.startswith("a.h5 + b.h5") for words in head.fold_settings)
        assert head.cost.total_ms == pytest.approx(6000, abs=500)
        assert head.held_out is not None
        assert head.learning_curve
    single = compare_heads(weak[0], heads=("logistic",), among=weak[1:])
    assert single.folds == joined.folds
    assert joined["logistic"].metrics["accuracy"].value > single["logistic"].metrics["accuracy"].value + 0.2
    for text in (comparison_csv(joined), comparison_json(joined), comparison_markdown(joined), benchmark_page(joined)):
        assert "a.h5 + b.h5 (side by side)" in text


def test_the_command_for_a_join_fits_what_was_compared(
    weak: tuple[Path, Path], joined: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = shlex.split(joined.fit_command)
    assert command[:4] == ["fit-head", str(weak[0]), str(weak[1]), "--join"]
    make_app(*COMMANDS)(command, standalone_mode=False)
    (saved,) = (tmp_path / "heads").iterdir()
    held_out = joined[joined.recommended].held_out
    assert held_out is not None
    assert load_bundle(saved).metrics["accuracy"] == held_out.accuracy


def test_a_join_of_caches_that_differ_in_their_images_has_no_command(weak: tuple[Path, Path], tmp_path: Path) -> None:
    fewer = labelled_cache(tmp_path / "b.h5", LABELS[:80], alike={2: 1}, seed=4, recipe=LARGER)
    found = compare_heads(weak[0], heads=("ridge",), among=[fewer], join=True)
    assert found["ridge"].cache.endswith("(side by side)")
    assert found.fit_command == ""
    with pytest.raises(DataError, match="by the same recipe"):
        compare_heads(weak[0], heads=("ridge",), among=[labelled_cache(tmp_path / "c.h5", LABELS)], join=True)
