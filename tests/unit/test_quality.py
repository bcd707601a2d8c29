"""Every finding is planted once, found, and nothing else with it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from caches import RECIPE
from fakes import FakeNetwork
from headstart.cache import shard
from headstart.cache.shard import ShardWriter
from headstart.errors import CacheError, DataError
from headstart.evaluate import neighbours
from headstart.extract.local import extract_features
from headstart.extract.options import ExtractOptions
from headstart.quality import inspect_quality
from headstart.quality.thumbnails import thumbnail
from headstart.report.findings import QualityReport
from headstart.report.html import quality_page
from headstart.schema import Failure, FeatureBatch, ImageRef, ImageRow

pytestmark = pytest.mark.slow

HOSTILE = "<img src=x onerror=alert(1)>.png"


class Planted:
    """A cache in the making: rows of two classes that a head can tell apart, 24 images each, all sound."""

    def __init__(self, n_per_class: int = 24, classes: Sequence[str] = ("ants", "bees"), width: int = 128) -> None:
        rng = np.random.default_rng(0)
        self.classes, self.rows, self.failures = tuple(classes), [], []
        self.features: list[NDArray[np.float32]] = []
        centres = np.abs(rng.normal(size=(len(classes), width)))
        for c, name in enumerate(classes):
            for i in range(n_per_class):
                ref = ImageRef(f"{name}/{i}.jpg", name, None, None, 1000, 1)
                self.rows.append(ImageRow(ref, hashlib.sha256(ref.path.encode()).hexdigest(), 640, 480, ()))
                self.features.append((centres[c] + np.abs(rng.normal(scale=0.7, size=width))).astype(np.float32))

    def change(self, row: int, **values: Any) -> None:
        """Change fields of a row, or of its ref."""
        in_ref = {name: values.pop(name) for name in list(values) if name in ImageRef.__dataclass_fields__}
        self.rows[row] = replace(self.rows[row], ref=replace(self.rows[row].ref, **in_ref), **values)

    def write(self, path: Path) -> Path:
        recipe = replace(RECIPE, pooled_layers=(), storage="float32", input_size_px=224)
        with ShardWriter(path, recipe=recipe, class_names=self.classes) as writer:
            maps = np.array(self.features)[:, None, None, :]
            writer.append(FeatureBatch(maps, np.empty((len(maps), 0), np.float32)), self.rows)
            for failure in self.failures:
                writer.add_failure(failure)
        return path


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
    unit = neighbours.unit_rows(features)
    whole = neighbours.group_by_cosine(unit, 0.95)
    monkeypatch.setattr(neighbours, "BLOCK", 7)
    blocks = neighbours.group_by_cosine(unit, 0.95)
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
    assert reason in report.skipped["Labels that are probably wrong"]
    assert "probable-label-errors" not in found(report)


def test_of_too_many_images_a_sample_is_compared(planted: Planted, path: Path) -> None:
    report = inspect_quality(planted.write(path), max_compared=30)
    assert "30 of 48 images" in report.skipped["Features of all images"]


def test_features_that_are_not_finite_are_left_out(
    planted: Planted, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard, "stored", lambda values, *_: values)  # what headstart writes is finite
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


# Thumbnails and the page


def photo(file: Path, seed: int) -> None:
    """Write a picture that is large enough, and unlike the others."""
    file.parent.mkdir(parents=True, exist_ok=True)
    blocks = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    Image.fromarray(blocks).resize((210, 140), Image.Resampling.NEAREST).save(file)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Pictures under names that attack: markup, direction of writing, line breaks, bytes that are no text."""
    root = tmp_path / "data"
    names = [HOSTILE, "\u202egnp.exe.png", "two\nlines.png", "\"'&{{ 7*7 }}.png", os.fsdecode(b"caf\xe9.png")]
    for seed, name in enumerate(names):
        photo(root / "<b>ants" / name, seed)
        (root / "<b>ants" / f"copy of {name}").write_bytes((root / "<b>ants" / name).read_bytes())
    photo(root / "bees" / "a.png", 100)
    (root / "bees" / "broken<script>alert(2).png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    return root


@pytest.fixture
def report(data: Path, tmp_path: Path) -> QualityReport:
    options = ExtractOptions(decode_threads=1)
    extract_features(data, tmp_path / "data.h5", options=options, network=FakeNetwork())
    return inspect_quality(tmp_path / "data.h5", data)


class Page(HTMLParser):
    """What a browser would make of a page: tags with their attributes, and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_shows_names_as_text_and_asks_for_nothing(report: QualityReport) -> None:
    page = Page(quality_page(report))
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "iframe", "object", "embed", "form", "b"}
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href"):
            address = attributes.get(name) or "#"
            assert address.startswith(("#", "data:image/jpeg;base64,")) or address == "data:,", address
    for name in (HOSTILE, r"\u202egnp.exe.png", r"two\nlines.png", "\"'&{{ 7*7 }}.png", r"caf\xe9.png", "<b>ants"):
        assert name in page.text
    assert "\u202e" not in page.text
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert str(policy).startswith("default-src 'none'; img-src data:; style-src 'sha256-")


def test_thumbnails_are_small_jpegs_of_the_images_listed(report: QualityReport) -> None:
    pictures = [attributes for tag, attributes in Page(quality_page(report)).tags if tag == "img"]
    assert len(pictures) >= 10
    assert all(attributes["alt"] for attributes in pictures)
    assert f"<b>ants/{HOSTILE}" in report.thumbnails
    assert all(jpeg.startswith(b"\xff\xd8\xff") and len(jpeg) < 20_000 for jpeg in report.thumbnails.values())


def test_an_image_that_has_changed_or_lies_outside_gets_no_thumbnail(data: Path, tmp_path: Path) -> None:
    file = data / "bees" / "a.png"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert thumbnail(data, "bees/a.png", digest) is not None
    assert thumbnail(data, "bees/a.png", "0" * 64) is None
    assert thumbnail(data / "<b>ants", "../bees/a.png", digest) is None
    assert thumbnail(tmp_path, str(file), digest) is None
    assert thumbnail(data, "bees/gone.png", digest) is None


def test_a_page_without_findings_or_pictures(planted: Planted, path: Path) -> None:
    page = Page(quality_page(inspect_quality(planted.write(path))))
    assert "Nothing was found." in page.text
    assert "They need the folder of images" in page.text
