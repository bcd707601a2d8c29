"""Every finding is planted once, found, and nothing else with it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from headstart.cache import writer
from headstart.errors import CacheError, DataError
from headstart.evaluate import leakage
from headstart.evaluate.quality_report import inspect_quality
from headstart.report.html_pages import QualityReport
from headstart.types import Failure, ImageRef
from planted import Planted

pytestmark = pytest.mark.slow


@pytest.fixture
def planted() -> Planted:
    return Planted()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache.h5"


def found(report: QualityReport) -> dict[str, int]:
    return {finding.check.name: finding.count for finding in report.findings}


def listed(report: QualityReport, name: str) -> list[list[str]]:
    return [[image.path for image in example.images] for example in report[name].examples]


def test_nothing_is_found_in_a_sound_set(planted: Planted, path: Path) -> None:
    report = inspect_quality(planted.write(path))
    assert found(report) == {}
    assert report.skipped == {}
    assert "Near-duplicates" in report.passed
    assert (report.n_images, report.n_failures) == (48, 0)


def test_failures_are_counted_by_reason(planted: Planted, path: Path) -> None:
    reasons = ["truncated: the file ends before the picture does", "truncated: (3 bytes)", "empty file"]
    planted.failures = [Failure(ImageRef(f"ants/x{i}.jpg", "ants", None, None, 1, 1), r) for i, r in enumerate(reasons)]
    report = inspect_quality(planted.write(path))
    assert found(report) == {"unreadable": 3}
    assert dict(report["unreadable"].breakdown) == {"truncated": 2, "empty file": 1}
    assert report["unreadable"].examples[0].detail.startswith("truncated: ")


@pytest.mark.parametrize(
    ("note", "name"),
    [
        ("named-png-is-JPEG", "wrong-extension"),
        ("exif-rotated-90", "exif-rotated"),
        ("exif-mirrored", "exif-rotated"),
        ("exif-unreadable", "exif-unreadable"),
        ("alpha-on-white", "alpha"),
        ("scaled-from-range", "scaled-from-range"),
        ("from-I;16", "scaled-from-range"),
        ("from-F", "scaled-from-range"),
        ("from-uint16", "converted"),
        ("low-range", "low-range"),
        ("first-page", "first-frame"),
        ("clipped", "clipped"),
        ("upper-bits", "upper-bits"),
        ("pages-are-colours", "pages-are-colours"),
        ("first-frame", "first-frame"),
        ("from-CMYK", "converted"),
        ("of-a-later-version", "other-notes"),
    ],
)
def test_what_the_decoder_noted(planted: Planted, path: Path, note: str, name: str) -> None:
    planted.change(3, notes=(note,))
    report = inspect_quality(planted.write(path))
    assert found(report) == {name: 1}
    assert listed(report, name) == [["ants/3.jpg"]]
    assert dict(report[name].breakdown) == {note: 1}
    titles = [*report.passed, report[name].check.title]
    assert len(titles) == len(set(titles))


def test_tiny_images(planted: Planted, path: Path) -> None:
    planted.change(0, width_px=56, height_px=56)
    planted.change(1, width_px=55, height_px=100)
    planted.change(2, width_px=100, height_px=31)
    report = inspect_quality(planted.write(path))
    assert found(report) == {"tiny": 2}
    assert listed(report, "tiny") == [["ants/2.jpg"], ["ants/1.jpg"]]


def test_extreme_aspect_ratio(planted: Planted, path: Path) -> None:
    planted.change(0, width_px=400, height_px=100)
    planted.change(1, width_px=401, height_px=100)
    planted.change(2, width_px=100, height_px=900)
    report = inspect_quality(planted.write(path))
    assert found(report) == {"extreme-aspect-ratio": 2}
    assert listed(report, "extreme-aspect-ratio") == [["ants/2.jpg"], ["ants/1.jpg"]]


def copy(planted: Planted, source: int, target: int) -> None:
    planted.change(target, sha256=planted.rows[source].sha256)
    planted.features[target] = planted.features[source]


def test_identical_files(planted: Planted, path: Path) -> None:
    copy(planted, 0, 5)
    copy(planted, 0, 7)
    report = inspect_quality(planted.write(path))
    assert found(report) == {"identical-files": 1}
    assert listed(report, "identical-files") == [["ants/0.jpg", "ants/5.jpg", "ants/7.jpg"]]


def test_identical_files_with_different_labels(planted: Planted, path: Path) -> None:
    copy(planted, 0, 30)
    report = inspect_quality(planted.write(path))
    assert found(report).items() >= {"identical-files": 1, "identical-files-different-labels": 1}.items()
    assert set(found(report)) <= {"identical-files", "identical-files-different-labels", "probable-label-errors"}
    assert report.findings[0].check.severity == "error"


def test_identical_files_and_near_duplicates_across_splits(planted: Planted, path: Path) -> None:
    for row in range(len(planted.rows)):
        planted.change(row, split="train" if row % 12 else "validation")
    copy(planted, 1, 12)
    planted.features[24] = planted.features[25] * np.float32(1.01)
    report = inspect_quality(planted.write(path))
    assert found(report) == {
        "identical-files": 1,
        "identical-files-across-splits": 1,
        "near-duplicates": 1,
        "near-duplicates-across-splits": 1,
    }
    assert listed(report, "identical-files-across-splits") == [["ants/1.jpg", "ants/12.jpg"]]
    assert listed(report, "near-duplicates-across-splits") == [["bees/0.jpg", "bees/1.jpg"]]


def test_near_duplicates_with_different_labels(planted: Planted, path: Path) -> None:
    planted.features[3] = planted.features[40] * np.float32(0.98)
    report = inspect_quality(planted.write(path))
    assert found(report).items() >= {"near-duplicates": 1, "near-duplicates-different-labels": 1}.items()
    assert "0.99" in report["near-duplicates"].threshold
    assert report["near-duplicates"].examples[0].values["cosine"] == [1.0, 1.0]


def test_near_duplicates_are_the_same_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    features = np.abs(rng.normal(size=(200, 64))).astype(np.float32)
    for source, target in ((3, 150), (150, 199), (50, 51), (0, 120)):
        features[target] = features[source] + np.abs(rng.normal(scale=0.01, size=64)).astype(np.float32)
    unit = leakage.unit_rows(features)
    whole = leakage.group_by_cosine(unit, 0.95)
    monkeypatch.setattr(leakage, "BLOCK", 7)
    blocks = leakage.group_by_cosine(unit, 0.95)
    for groups in (whole, blocks):
        together = {tuple(np.flatnonzero(groups == g)) for g in np.unique(groups) if (groups == g).sum() > 1}
        assert together == {(3, 150, 199), (50, 51), (0, 120)}


def test_one_scene_photographed_again_and_again_is_found(path: Path) -> None:
    planted = Planted(width=256)
    rng = np.random.default_rng(2)
    scene = np.abs(rng.normal(size=256)).astype(np.float32) + 0.5
    planted.features = [scene + rng.normal(scale=0.02, size=256).astype(np.float32) for _ in planted.rows]
    report = inspect_quality(planted.write(path))
    assert report["near-duplicates"].examples[0].values["n_images"] == 48


def test_classes_with_few_images_are_counted_in_training(planted: Planted, path: Path) -> None:
    for row in range(len(planted.rows)):
        planted.change(row, split="validation" if row < 6 else "train")
    report = inspect_quality(planted.write(path))
    assert found(report) == {"few-images": 1}
    assert report["few-images"].examples[0].values == {"class": "ants", "n": 18}
    assert found(inspect_quality(path, min_images_per_class=18)) == {}


def test_imbalance(path: Path) -> None:
    planted = Planted(n_per_class=200)
    planted.rows, planted.features = planted.rows[:220], planted.features[:220]
    report = inspect_quality(planted.write(path))
    assert found(report) == {"imbalance": 1}
    assert report["imbalance"].examples[0].values == {"largest": "ants", "smallest": "bees", "ratio": 10.0}


def test_planted_label_errors_are_found_and_no_others(path: Path) -> None:
    planted = Planted(n_per_class=60, classes=("ants", "bees", "wasps"))
    wrong = {5: "bees", 17: "wasps", 70: "ants", 130: "ants"}
    truth = {f"{planted.rows[row].ref.path}": planted.rows[row].ref.label for row in wrong}
    for row, label in wrong.items():
        planted.change(row, label=label)
    report = inspect_quality(planted.write(path))
    assert found(report) == {"probable-label-errors": 4}
    examples = report["probable-label-errors"].examples
    assert {example.images[0].path: example.values["other"] for example in examples} == truth
    margins = [example.values["probability_given"] - example.values["probability_other"] for example in examples]
    assert margins == sorted(margins)


def test_copies_do_not_vouch_for_a_wrong_label(path: Path) -> None:
    planted = Planted(n_per_class=40)
    for row in (0, 1, 2):
        copy(planted, 0, row)
        planted.change(row, label="bees")
    report = inspect_quality(planted.write(path))
    assert found(report) == {"identical-files": 1, "probable-label-errors": 3}


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ([None] * 48, "no labels"),
        (["ants"] * 48, "one class"),
        (["ants"] * 45 + ["bees"] * 3, "at least 5 different images"),
    ],
)
def test_what_cannot_be_checked_is_said(planted: Planted, path: Path, labels: list[str | None], reason: str) -> None:
    for row, label in enumerate(labels):
        planted.change(row, label=label)
    report = inspect_quality(planted.write(path))
    assert reason in report.skipped["Probable label errors"]
    assert "probable-label-errors" not in found(report)


def test_of_too_many_images_a_sample_is_compared(planted: Planted, path: Path) -> None:
    report = inspect_quality(planted.write(path), max_compared=30)
    assert "30 of 48 images" in report.skipped["Features of all images"]


def test_features_that_are_not_finite_are_left_out(
    planted: Planted, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "stored", lambda values, *_: values)  # what headstart writes is finite
    planted.features[4][0] = np.nan
    report = inspect_quality(planted.write(path))
    assert found(report) == {"features-not-finite": 1}


def test_all_are_counted_and_the_first_listed(planted: Planted, path: Path) -> None:
    for row in range(20):
        planted.change(row, notes=("from-L",))
    report = inspect_quality(planted.write(path), max_examples=5)
    assert (report["converted"].count, len(report["converted"].examples)) == (20, 5)
    assert json.loads(json.dumps(report.to_dict()))["findings"][0]["name"] == "converted"


def test_no_cache_and_no_folder_are_said(planted: Planted, path: Path, tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="no cache"):
        inspect_quality(path)
    with pytest.raises(DataError, match="There is no folder"):
        inspect_quality(planted.write(path), tmp_path / "nowhere")
