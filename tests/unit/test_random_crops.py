"""Random crops of training images: what they are, their caches, and that fits alone see them."""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from caches import write_cache
from commands import exit_code
from fakes import FakeBackbone, FakeNetwork
from headstart import fit
from headstart.cache.integrity import Finding
from headstart.cache.reader import open_cache
from headstart.errors import DataError, RecipeMismatchError
from headstart.evaluate.quality_report import inspect_quality
from headstart.evaluate.random_crops import crops_folder, crops_of, open_crops
from headstart.evaluation import evaluate_head
from headstart.extract.options import ExtractOptions
from headstart.extract.run import extract_crops, extract_features
from headstart.fit import fit_head
from headstart.heads.catalogue import check_crops, default_spec
from headstart.heads.grid_predictions import Table, outcomes
from headstart.heads.head_specs import fit_with_checks
from headstart.heads.ridge import RidgeHead
from headstart.images.load import decode_resized, load_image
from headstart.images.resize import CROP_AREA, CROP_ASPECT, keras_bilinear, random_crop, resize_crop
from headstart.images.samples import DecodeRules
from headstart.labelling.clustering import cluster_images
from headstart.selection import cross_validation
from headstart.selection.compare import compare_heads
from headstart.selection.search import search_head
from headstart.storage.bucket import location
from headstart.types import ImageRef, Recipe
from headstart.verify import remedies, verify_cache
from pictures import picture

SEED = bytes(range(32))


def test_a_crop_depends_on_image_and_number_alone() -> None:
    assert [random_crop(SEED, number, 500, 375) for number in (1, 2)] == FIRST_TWO
    assert random_crop(SEED, 1, 500, 375) != random_crop(SEED[::-1], 1, 500, 375)


#: Written down once: other crops would be other features under the same recipe.
FIRST_TWO = [((41, 1, 384, 372), True), ((104, 9, 371, 364), False)]


@pytest.mark.parametrize(("width", "height"), [(500, 375), (800, 60), (40, 60)])
def test_crops_are_as_large_and_as_wide_as_they_are_said_to_be(width: int, height: int) -> None:
    found = [random_crop(SEED, number, width, height) for number in range(1, 1500)]
    boxes = np.array([box for box, _ in found])
    x, y, widths, heights = boxes.T
    assert min(x.min(), y.min(), (width - x - widths).min(), (height - y - heights).min()) == 0
    slack, shares, aspects = (
        2 / min(width, height),
        widths * heights / (width * height),
        widths / heights * height / width,
    )
    assert CROP_AREA[0] - 2 * slack <= shares.min() < 0.65 + slack
    assert 0.95 < shares.max() <= 1
    assert CROP_ASPECT[0] - 2 * slack <= aspects.min() < 0.85
    assert 1.2 < aspects.max() <= CROP_ASPECT[1] + 2 * slack
    assert (shares == 1).mean() < 0.2
    assert 0.45 < np.mean([flipped for _, flipped in found]) < 0.55
    assert len({box for box, _ in found}) > 1000


def test_an_image_of_a_pixel_is_taken_whole() -> None:
    assert random_crop(SEED, 1, 1, 1)[0] == (0, 0, 1, 1)


def test_a_crop_is_resized_as_the_image_is() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    for number in range(1, 6):
        (x, y, width, height), flipped = random_crop(SEED, number, 80, 60)
        expected = keras_bilinear(pixels[y : y + height, x : x + width], 32)
        found = resize_crop(pixels, 32, "keras-bilinear", seed=SEED, number=number)
        np.testing.assert_array_equal(found, expected[:, ::-1] if flipped else expected)
        assert found.flags.c_contiguous


def test_a_jpeg_that_is_decoded_at_a_smaller_scale_is_cropped_too(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 640, dtype=np.uint8)[None, :, None].repeat(480, 0).repeat(3, 2)
    Image.fromarray(ramp).save(tmp_path / "a.jpg", quality=95)
    data = (tmp_path / "a.jpg").read_bytes()
    for number in (1, 2, 3):
        rules = DecodeRules(random_crop=number)
        full, draft = (
            decode_resized(data, "a.jpg", 32, how, rules).pixels for how in ("pillow-antialias", "jpeg-draft")
        )
        assert np.abs(full.astype(int) - draft).max() < 6
        assert np.abs(full.astype(int) - decode_resized(data, "a.jpg", 32, "pillow-antialias").pixels).max() > 6


def test_the_digest_of_the_file_decides(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 1)
    data = (tmp_path / "a.png").read_bytes()
    ref = ImageRef("a.png", None, None, None, len(data), 0)
    loaded = load_image(tmp_path, ref, size_px=35, resize_preset="keras-bilinear", rules=DecodeRules(random_crop=2))
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    seed = hashlib.sha256(data).digest()
    np.testing.assert_array_equal(loaded.pixels, resize_crop(pixels, 35, "keras-bilinear", seed=seed, number=2))
    assert loaded.row.sha256 == seed.hex()


@pytest.mark.parametrize("number", [0, -1, 1.0, True, "1"])
def test_a_recipe_says_the_number_of_a_crop(number: object) -> None:
    recipe = FakeBackbone().recipe
    cropped = replace(recipe, random_crop=3)
    assert Recipe.from_json(cropped.to_json()) == cropped
    assert '"random_crop": 3' in cropped.to_json()
    assert "random_crop" not in recipe.to_json()
    assert cropped.differences(recipe) == ("random_crop: 3 ≠ 0",)
    text = json.dumps(json.loads(recipe.to_json()) | {"random_crop": number})
    with pytest.raises(ValueError, match="random_crop, where it is written, is 1 or more"):
        Recipe.from_json(text)


class CropNetwork(FakeNetwork):
    """A fake whose recipe has the crop of the options."""

    def __init__(self, options: ExtractOptions) -> None:
        super().__init__()
        self.made.recipe = replace(self.made.recipe, random_crop=options.random_crop)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("crops") / "data"
    for split, n in (("train", 8), ("val", 3)):
        for number in range(n):
            for name in ("ant", "bee"):
                picture(folder / split / name / f"{number}.png", 100 * number + len(split) + (name == "bee"))
    return folder


def extracted(data: Path, output: Path, n_crops: int = 2, **options: Any) -> list[Any]:
    given: Any = FakeNetwork()
    extract_features(data, output, network=given, **options)
    return list(extract_crops(data, output, n_crops, network=CropNetwork, **options))


@pytest.fixture(scope="module")
def cache(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("crops") / "photos.h5"
    extracted(data, output)
    return output


def test_training_images_alone_have_crops(cache: Path, data: Path) -> None:
    assert crops_folder(cache).name == "photos-crops"
    names = sorted(path.name for path in crops_folder(cache).glob("*.h5"))
    assert names == ["1.h5", "2.h5"]
    for number in (1, 2):
        with open_cache(crops_folder(cache) / f"{number}.h5") as crops, open_cache(cache) as images:
            assert crops.recipe == replace(images.recipe, random_crop=number)
            assert set(crops.splits) == {"train"}
            assert (crops.n_images, images.n_images) == (16, 22)
            assert set(crops.sha256) < set(images.sha256)


def test_a_crop_is_the_same_in_any_batch_and_order(cache: Path, data: Path, tmp_path: Path) -> None:
    few = tmp_path / "data"
    picture(few / "bee" / "other.png", 999)
    (few / "ant").mkdir()
    (few / "ant" / "x.png").write_bytes((data / "train" / "bee" / "5.png").read_bytes())
    extracted(few, tmp_path / "few.h5", n_crops=1)
    with open_cache(tmp_path / "few-crops" / "1.h5") as one, open_cache(crops_folder(cache) / "1.h5") as other:
        rows = [one.paths.index("ant/x.png")], [other.paths.index("train/bee/5.png")]
        found, expected = (next(c.batches(r)).features for c, r in zip((one, other), rows, strict=True))
    np.testing.assert_array_equal(found, expected)


def test_crops_grow_with_the_images_and_are_verified(data: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    for number in range(4):
        for name in ("ant", "bee"):
            picture(images / name / f"{number}.png", 10 * number + (name == "bee"))
    assert [done.n_computed for done in extracted(images, tmp_path / "a.h5")] == [8, 8]
    picture(images / "bee" / "new.png", 77)
    assert [done.n_computed for done in extracted(images, tmp_path / "a.h5", n_crops=3)] == [1, 1, 9]
    backbone = FakeBackbone(replace(FakeBackbone().recipe, random_crop=3))
    found = verify_cache(tmp_path / "a-crops" / "3.h5", images, backbone=backbone)
    assert (found.findings, found.n_recomputed) == ((), 9)
    with pytest.raises(RecipeMismatchError, match="random_crop: 3 ≠ 0"):
        verify_cache(tmp_path / "a-crops" / "3.h5", images, backbone=FakeBackbone())


def test_what_is_for_fits_alone_is_refused_elsewhere(cache: Path, tmp_path: Path) -> None:
    crops = crops_folder(cache) / "1.h5"
    head = fit_head(cache, default_spec("logistic"), output=tmp_path / "head").folder
    for call in (
        lambda: fit_head(crops, default_spec("logistic")),
        lambda: fit_head(cache, default_spec("logistic"), validation=crops),
        lambda: compare_heads(crops),
        lambda: compare_heads(cache, among=[crops]),
        lambda: inspect_quality(crops, None),
        lambda: cluster_images(crops, 2),
        lambda: evaluate_head(head, crops),
    ):
        with pytest.raises(DataError, match="random crops of training images, which are for fits alone"):
            call()


def test_a_folder_must_hold_the_crops_of_the_cache(cache: Path, tmp_path: Path, data: Path) -> None:
    spec = default_spec("logistic")
    with pytest.raises(DataError, match="no crops in"):
        fit_head(cache, spec, crops=tmp_path)
    (tmp_path / "other").mkdir()
    write_cache(tmp_path / "other" / "1.h5", range(4))
    with pytest.raises(RecipeMismatchError, match="another recipe"):
        fit_head(cache, spec, crops=tmp_path / "other")
    with pytest.raises(DataError, match="those of a single cache"):
        fit_head(cache, "logistic", crops=crops_folder(cache), among=[cache])
    with pytest.raises(DataError, match="a folder on a disk"):
        crops_folder(location("s3://bucket/a.h5"))


def test_crops_are_matched_by_the_bytes_of_their_image(cache: Path) -> None:
    with ExitStack() as stack:
        images = stack.enter_context(open_cache(cache))
        caches = open_crops(crops_folder(cache), images, stack)
        rows = np.array([images.paths.index(f"train/{name}/{n}.png") for name in ("bee", "ant") for n in (3, 1)])
        found = crops_of(images, rows, caches)
        digests = [images.sha256[row] for row in rows.tolist()]
        seen = [cache.sha256[row] for cache, own in zip(found.caches, found.rows, strict=True) for row in own.tolist()]
    assert [digests[place] for place in found.images.tolist()] == seen
    assert len(found) == 8
    assert found.note == "Fitted on 8 random crops of 4 training images too; they are never scored."


@pytest.mark.parametrize("streamed", [False, True])
def test_a_fit_takes_the_crops_of_its_training_images(
    cache: Path, monkeypatch: pytest.MonkeyPatch, streamed: bool
) -> None:
    monkeypatch.setattr(fit, "matrix_fits", lambda *_: not streamed)
    seen: dict[str, np.ndarray] = {}

    def kept(head: Any, _type: str, X: Any, y: Any, *rest: Any) -> Any:
        seen["X"], seen["y"] = (X.take(np.arange(X.shape[0]))[:], y) if streamed else (X, y)
        return head.fit(np.asarray(seen["X"]), y)

    monkeypatch.setattr(fit, "fit_streamed" if streamed else "fit_with_checks", kept)
    found = fit_head(cache, default_spec("logistic"), crops=crops_folder(cache))
    assert (found.n_train, found.score.n_samples, seen["X"].shape[0]) == (16, 6, 48)
    assert found.notes == ("Fitted on 32 random crops of 16 training images too; they are never scored.",)
    with open_cache(cache) as images, open_cache(crops_folder(cache) / "2.h5") as crops:
        rows = [row for row, split in enumerate(images.splits) if split == "train"]
        np.testing.assert_array_equal(
            seen["X"][:16], next(images.batches(rows)).features.mean((1, 2), dtype=np.float32)
        )
        order = [crops.sha256.index(images.sha256[row]) for row in rows]
        expected = next(crops.batches(order)).features.mean(axis=(1, 2), dtype=np.float32)
        np.testing.assert_array_equal(seen["X"][32:], expected)
    np.testing.assert_array_equal(seen["y"], np.tile(seen["y"][:16], 3))


def test_sets_of_classes_are_chosen_on_folds_that_are_fitted_on_crops_too(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_fitted: list[int] = []

    def kept(head: Any, X: Any, y: Any, weights: Any = None, groups: Any = None) -> Any:
        n_fitted.append(len(X))
        assert len(np.unique(groups)) == len(X) / 3
        return head.fit(X, y)

    monkeypatch.setattr(cross_validation, "fit_weighted", kept)
    found = fit_head(cache, default_spec("logistic"), crops=crops_folder(cache), coverage=0.5)
    assert found.chosen is not None
    assert sum(n_fitted) == 3 * 4 * 16  # two crops beside each image; each image is in the fits of four of five folds
    assert found.chosen.score is not None
    assert found.chosen.score.n_samples == 16


@pytest.mark.parametrize("head_type", ["ridge", "nearest-class-mean", "linear-svm"])
def test_a_head_that_leaves_rows_out_knows_which_are_crops_of_one_image(
    cache: Path, head_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(fit, "fit_with_checks", lambda *args: seen.append(args) or fit_with_checks(*args))
    fit_head(cache, default_spec(head_type), crops=crops_folder(cache))
    np.testing.assert_array_equal(seen[0][-1], np.tile(np.arange(16), 3))
    fit_head(cache, default_spec(head_type))
    assert seen[1][-1] is None


def test_a_calibration_that_knows_no_groups_is_refused(cache: Path) -> None:
    check_crops(default_spec("sklearn.naive_bayes.GaussianNB"))
    with pytest.raises(DataError, match="on both sides of its calibration"):
        fit_head(cache, default_spec("sklearn.svm.LinearSVC"), crops=crops_folder(cache))


@pytest.mark.parametrize("head_type", ["logistic", "knn"])
def test_folds_are_fitted_on_the_crops_of_their_training_images_alone(head_type: str) -> None:
    rng = np.random.default_rng(0)
    labels, images = np.arange(20) % 2, np.repeat(np.arange(20), 2)
    X = (np.abs(rng.normal(size=(60, 6))) + np.eye(6)[np.concatenate([labels, labels[images]])]).astype(np.float32)
    train, test = np.arange(12), np.arange(12, 20)
    settings: list[dict[str, Any]] = [{}]
    weights = np.concatenate([np.ones(20), np.full(40, 0.5)])

    def predicted(X: np.ndarray, train: np.ndarray, labels: np.ndarray, **more: Any) -> list[list[float]]:
        table = Table(X, ("avg",), "sqrt-l2", **more)
        found = outcomes(head_type, table, labels, train, test, settings, 0, probabilities=True)
        return [one.probabilities_of(2).tolist() for one in found]

    own = np.concatenate([train, 20 + np.flatnonzero(np.isin(images, train))])
    everything = np.concatenate([labels, labels[images]])
    expected = predicted(X, own, everything, weights=weights)
    np.testing.assert_allclose(predicted(X, train, labels, weights=weights, crops=images), expected, atol=1e-6)
    assert np.abs(np.array(predicted(X, train, labels)) - expected).max() > 1e-3


def test_folds_of_a_search_know_which_are_crops_of_one_image() -> None:
    rng = np.random.default_rng(0)
    labels, images = np.arange(20) % 2, np.repeat(np.arange(20), 2)
    base = rng.normal(size=(20, 6)) + np.eye(6)[labels]
    X = np.concatenate([base, base[images] + 0.1 * rng.normal(size=(40, 6))]).astype(np.float32)
    train, groups = np.arange(12), np.concatenate([np.arange(20), images])
    table = Table(X, ("avg",), "none", crops=images)
    (found,) = outcomes("ridge", table, labels, train, np.arange(12, 20), [{}], 0, probabilities=True)
    own = np.isin(groups, train)
    head = RidgeHead().fit(X[own], groups[own] % 2, groups=groups[own])
    np.testing.assert_allclose(found.probabilities_of(2), head.predict_proba(X[12:20]), rtol=1e-4)
    alone = RidgeHead().fit(X[own], groups[own] % 2).predict_proba(X[12:20])
    assert np.abs(alone - found.probabilities_of(2)).max() > 1e-3


def test_the_command_line_makes_and_takes_crops(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("headstart.extract.run.Network", CropNetwork)
    output, folder = tmp_path / "photos.h5", tmp_path / "photos-crops"
    assert exit_code(monkeypatch, "extract-features", data, "-o", output, "--augment", "2") == 0
    said = "".join(capsys.readouterr().out.split())
    assert "".join(f"32 random crops of training images, for fits alone: {folder}".split()) in said
    head = tmp_path / "head"
    options = ["--type", "logistic", "--no-search", "-o", head]
    assert exit_code(monkeypatch, "fit-head", output, "--crops", folder, *options) == 0
    assert "Fitted on 32 random crops of 16 training images too" in " ".join(capsys.readouterr().out.split())
    assert exit_code(monkeypatch, "fit-head", folder / "1.h5", "-o", tmp_path / "other") == 1
    assert "for fits alone" in " ".join(capsys.readouterr().err.split())


def test_the_remedy_of_damaged_crops_is_a_run_on_the_images(cache: Path) -> None:
    finding = Finding("image", "its bytes are not those that the row was made from", 0, "a.png")
    with open_cache(crops_folder(cache) / "2.h5") as crops:
        (found,) = remedies([finding], crops.path, None, crops.recipe, "")
    assert found.startswith(f"extract-features FOLDER -o {cache} ")
    assert "--augment 2 --check-bytes" in found


@pytest.mark.slow
def test_a_search_and_a_comparison_use_crops_and_never_score_them(cache: Path) -> None:
    found = fit_head(cache, "logistic", crops=crops_folder(cache))
    assert found.search is not None
    assert "of 16 images" in found.search.folds
    compared = compare_heads(
        cache,
        heads=("logistic", "ridge", "majority"),
        crops=crops_folder(cache),
        learning_curve=True,
        near_duplicates=False,
    )
    assert {head.name for head in compared.heads} == {"logistic", "ridge", "majority"}
    assert (len(compared.y_true), len(compared.heads[0].probabilities), len(compared.held_out_paths)) == (16, 16, 6)
    assert any("32 random crops of 16 training images" in sentence for sentence in compared.leaks)
    with open_cache(cache) as images:
        rows = np.flatnonzero(np.array(images.splits) == "train")
        plain = search_head(images, "logistic", rows)
    assert [trial.fold_scores for trial in plain.trials] != [trial.fold_scores for trial in found.search.trials]
