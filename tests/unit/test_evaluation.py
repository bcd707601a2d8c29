"""A saved head is scored on images that it has not seen, and says which those are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fakes import FakeBackbone, FakeNetwork
from headstart.bundles.bundle import load_bundle, save_bundle
from headstart.cache.reader import open_cache
from headstart.errors import DataError
from headstart.evaluation import class_numbers, evaluate_head
from headstart.exchange.merge_caches import merge_caches
from headstart.extract import run
from headstart.fit import fit_head
from headstart.heads.catalogue import default_spec
from labelled import labelled_cache
from pictures import class_folders

pytestmark = pytest.mark.slow

LABELS = [row % 2 for row in range(40)]
SPEC = default_spec("knn", features=["avg"])


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return labelled_cache(tmp_path / "c.h5", LABELS)


@pytest.fixture
def head(cache: Path, tmp_path: Path) -> Path:
    fit_head(cache, SPEC, output=tmp_path / "head")
    return tmp_path / "head"


def without_digests(head: Path) -> Path:
    """As an older version saved it."""
    old = replace(load_bundle(head), training_digests=None)
    return save_bundle(head, old, metrics=dict(old.metrics), overwrite=True)


def test_training_images_are_left_out_and_counted(cache: Path, head: Path) -> None:
    found = evaluate_head(head, cache)
    assert found.score.n_samples == 10
    assert (found.seen.handling, found.seen.counts["fitted_on"], found.seen.compared) == ("left out", 30, True)
    assert found.seen.sentence.startswith("30 images that the head has seen are left out: 30 fitted on")
    score, failures = found
    assert (score, failures) == (found.score, [])


def test_training_images_are_scored_when_asked_and_it_is_said(cache: Path, head: Path) -> None:
    found = evaluate_head(head, cache, include_training=True)
    assert found.score.n_samples == 40
    assert found.seen.sentence == (
        "The score is too good: it includes 30 images that the head has seen (30 fitted on)."
    )
    assert found.to_dict()["training_images"] == {
        "handling": "included",
        "fitted_on": 30,
        "same_group": 0,
        "nearly_the_same": 0,
        "near_duplicates_looked_for": True,
    }


def test_where_nothing_is_left_it_is_refused(head: Path, tmp_path: Path) -> None:
    with open_cache(tmp_path / "c.h5") as opened:
        rows = np.isin([int(d[:16], 16) for d in opened.sha256], load_bundle(head).training_digests)
    own = labelled_cache(tmp_path / "own.h5", [label if row else -1 for label, row in zip(LABELS, rows, strict=True)])
    with pytest.raises(DataError, match=r"Nothing in .*own\.h5 is left to score: 30 images that the head has seen"):
        evaluate_head(head, own)
    assert evaluate_head(head, own, include_training=True).score.n_samples == 30


def test_of_an_older_head_it_cannot_be_known(cache: Path, head: Path) -> None:
    for include in (False, True):
        found = evaluate_head(without_digests(head), cache, include_training=include)
        assert found.score.n_samples == 40
        assert found.seen.sentence.startswith("It cannot be known whether the head was fitted on some of these images")
        assert found.to_dict()["training_images"]["handling"] == "unknown"


def test_near_duplicates_of_training_images_are_left_out_too(tmp_path: Path) -> None:
    splits = ["train"] * 30 + ["test"] * 10
    cache = labelled_cache(tmp_path / "c.h5", LABELS, splits=splits, near={31: 1, 32: 2})
    fit_head(cache, SPEC, output=tmp_path / "head")
    found = evaluate_head(tmp_path / "head", cache, split="test")
    assert found.score.n_samples == 8
    assert found.seen.counts == {"fitted_on": 0, "same_group": 0, "nearly_the_same": 2}


def test_near_duplicates_are_found_in_another_cache_while_the_first_is_at_hand(head: Path, tmp_path: Path) -> None:
    saved_again = labelled_cache(tmp_path / "again.h5", LABELS, of="again")  # other bytes, the same features
    found = evaluate_head(head, saved_again)
    assert found.seen.counts == {"fitted_on": 0, "same_group": 0, "nearly_the_same": 30}
    assert (found.score.n_samples, found.seen.compared) == (10, True)
    (tmp_path / "c.h5").unlink()
    assert evaluate_head(head, saved_again).score.n_samples == 40


def test_the_training_cache_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    labelled_cache(Path("c.h5"), LABELS)
    fit_head("c.h5", SPEC, output="heads/one")
    saved_again = labelled_cache(tmp_path / "again.h5", LABELS, of="again")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert evaluate_head("../heads/one", saved_again).seen.counts["nearly_the_same"] > 0


def test_it_is_said_where_near_duplicates_cannot_be_looked_for(head: Path, tmp_path: Path) -> None:
    new = labelled_cache(tmp_path / "new.h5", [0, 1] * 5, seed=1, of="new")
    assert evaluate_head(head, new).seen.sentence == "The head was fitted on none of these images."
    (tmp_path / "c.h5").unlink()
    assert evaluate_head(head, new).seen.sentence.endswith(
        "Near-duplicates of its training images were not looked for."
    )


@pytest.mark.parametrize("name", ["", "s3://bucket/c.h5", "head", "absent.h5", "damaged.h5", "other.h5"])
def test_a_training_cache_that_is_of_no_use_is_no_error(
    head: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("damaged.h5").write_bytes(b"no")
    labelled_cache(tmp_path / "other.h5", [0, 1], recipe=replace(load_bundle(head).recipe, input_size_px=64))
    bundle = load_bundle(head)
    save_bundle(head, bundle, metrics={"cache": name}, overwrite=True)
    new = labelled_cache(tmp_path / "new.h5", [0, 1] * 5, seed=1, of="new")
    found = evaluate_head(head, new)
    assert (found.score.n_samples, found.seen.compared) == (10, False)


def test_streamed_searched_and_merged_fits_keep_their_images(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = labelled_cache(tmp_path / "one.h5", LABELS, distance=0.5)
    more = labelled_cache(tmp_path / "more.h5", LABELS, seed=1, of="more")
    merged = tmp_path / "merged.h5"
    merge_caches([cache, more], merged)
    fit_head(cache, "ridge", search="features", among=[one], output=tmp_path / "several")
    fit_head(merged, SPEC, output=tmp_path / "merged")
    fit_head(cache, SPEC, validation=more, output=tmp_path / "other")
    monkeypatch.setattr("headstart.fit.matrix_fits", lambda *_: False)
    fit_head(cache, default_spec("ridge"), output=tmp_path / "streamed")
    n_train = {
        name: len(load_bundle(tmp_path / name).training_digests) for name in ("several", "merged", "other", "streamed")
    }
    assert n_train == {"several": 30, "merged": 60, "other": 40, "streamed": 30}
    assert evaluate_head(tmp_path / "several", cache).score.n_samples == 10
    assert evaluate_head(tmp_path / "merged", cache).seen.counts["fitted_on"] > 20
    with pytest.raises(DataError, match="is left to score"):
        evaluate_head(tmp_path / "other", cache)
    assert evaluate_head(tmp_path / "other", more).score.n_samples == 40


def test_a_class_that_the_fit_left_out_is_left_out_again_and_another_is_refused(tmp_path: Path) -> None:
    splits = ["train"] * 40 + ["test"] * 4
    cache = labelled_cache(tmp_path / "c.h5", [*LABELS, 0, 1, 2, 2], splits=splits)
    fit_head(cache, SPEC, output=tmp_path / "head")
    found = evaluate_head(tmp_path / "head", cache)
    assert found.score.n_samples == 2
    assert found.score.class_names == ("ants", "bees")
    assert found.notes == ("wasps: 2 scored images, none to fit on.",)
    assert load_bundle(tmp_path / "head").metrics["classes_left_out"] == ["wasps"]
    save_bundle(tmp_path / "other", load_bundle(tmp_path / "head"), metrics={})
    with pytest.raises(DataError, match=r"does not know this class: wasps"):
        evaluate_head(tmp_path / "other", cache)


def test_a_class_of_the_cache_without_a_labelled_image_is_no_matter(tmp_path: Path, head: Path) -> None:
    """The caches here all name three classes, and two have images."""
    new = labelled_cache(tmp_path / "new.h5", [1] * 5, seed=1, of="new")
    assert evaluate_head(head, new).notes == ("ants: no image to score.",)


def test_a_class_of_which_all_images_are_left_out_is_said(tmp_path: Path) -> None:
    splits = ["train"] * 40 + ["test"] * 3
    cache = labelled_cache(tmp_path / "c.h5", [*LABELS, 0, 1, 1], splits=splits)
    fit_head(cache, SPEC, output=tmp_path / "head")
    mixed = labelled_cache(tmp_path / "c2.h5", [*LABELS, 1, 1, 1])
    found = evaluate_head(tmp_path / "head", mixed)
    assert found.seen.counts["fitted_on"] == 40
    assert found.notes == ("ants: no image to score.",)


def test_a_class_that_is_nearly_known_is_asked_about() -> None:
    with pytest.raises(DataError, match=r"this class: ant\. It knows: ants, bees\. Did you mean ants\?"):
        class_numbers(("ants", "bees"), ("ant",))


def test_an_older_head_with_a_class_it_never_saw_does_not_score_it(tmp_path: Path) -> None:
    """Its probability was always 0."""
    cache = labelled_cache(tmp_path / "c.h5", [*LABELS, 2, 2])
    fit_head(labelled_cache(tmp_path / "two.h5", LABELS), SPEC, output=tmp_path / "head")
    bundle = load_bundle(tmp_path / "head")
    old = replace(bundle, class_names=("ants", "bees", "wasps"), training_digests=None)
    save_bundle(tmp_path / "head", old, metrics={}, overwrite=True)
    found = evaluate_head(tmp_path / "head", cache)
    assert found.score.n_samples == 40
    assert found.notes == ("wasps: 2 scored images, none to fit on.",)


def test_a_folder_of_images_is_scored_like_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = class_folders(tmp_path / "photos", n_per_class=12)
    monkeypatch.setattr(run, "Network", lambda _options: FakeNetwork())
    run.extract_features(data, tmp_path / "photos.h5")
    fit_head(tmp_path / "photos.h5", SPEC, output=tmp_path / "head")
    of_cache = evaluate_head(tmp_path / "head", tmp_path / "photos.h5")
    (tmp_path / "photos.h5").unlink()
    of_folder = evaluate_head(tmp_path / "head", data, backbone=FakeBackbone())
    assert (of_folder.seen, of_folder.score.confusion) == (of_cache.seen, of_cache.score.confusion)
    assert of_folder.score.n_samples + of_folder.seen.total == 24
    assert of_folder.seen.counts["fitted_on"] == 18
