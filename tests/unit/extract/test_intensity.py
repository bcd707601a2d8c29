"""The rules of a recipe, from the options of an extraction to whatever decodes its images again."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image

from fakes import FakeBackbone, FakeNetwork
from headstart.backbones.registry import build_backbone, network_recipe
from headstart.cache.reader import open_cache
from headstart.cache.writer import ShardWriter
from headstart.errors import HeadstartError, RecipeMismatchError
from headstart.extract.estimate import forecast_extraction
from headstart.extract.network import Network
from headstart.extract.options import ExtractOptions
from headstart.extract.run import extract_features
from headstart.extract.summary import ExtractionSummary
from headstart.fit import fit_head
from headstart.images.decode import sentences
from headstart.predict import Predictor
from headstart.repair import repair_cache
from headstart.types import Recipe
from headstart.verify import verify_cache

pytestmark = pytest.mark.slow


class RulesNetwork(FakeNetwork):
    """Hands out a fake backbone of the recipe that the options ask for."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.options = ExtractOptions(**options)  # type: ignore[arg-type]

    def wanted(self, existing: Recipe | None) -> Recipe:
        asked = Network(self.options).wanted(existing)
        self.made.recipe = replace(self.made.recipe, page=asked.page, intensity=asked.intensity)
        return self.made.recipe


def run(data: Path, path: Path, **options: object) -> ExtractionSummary:
    return extract_features(data, path, network=RulesNetwork(**options), **options)  # type: ignore[arg-type]


def picture(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, values, photometric="minisblack", metadata=None)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four pictures of 12 bits in 16, and one of 8 bits."""
    for number in range(4):
        values = np.random.default_rng(number).integers(100, 4000, (40, 40))
        values[0, 0], values[0, 1] = 100 - number, 4000 + number
        picture(tmp_path / "cells" / "ab"[number % 2] / f"{number}.tif", values.astype(np.uint16))
    Image.new("RGB", (40, 40), "red").save(tmp_path / "cells" / "a" / "plain.png")
    return tmp_path / "cells"


def features(path: Path) -> np.ndarray:
    with open_cache(path) as cache:
        return np.concatenate([batch.features for batch in cache.batches(np.arange(cache.n_images))])


def recipe(path: Path) -> Recipe:
    with open_cache(path) as cache:
        return cache.recipe


def test_the_default_is_unwritten_and_low_range_is_told(data: Path, tmp_path: Path) -> None:
    summary = run(data, tmp_path / "c.h5")
    assert '"intensity"' not in recipe(tmp_path / "c.h5").to_json()
    assert '"page"' not in recipe(tmp_path / "c.h5").to_json()
    assert summary.notes == {"low-range": 4}
    assert sentences(summary.notes)[0].startswith("Decoded: in 4 images few of the 256 levels are used")
    assert summary.to_dict()["notes"] == {"low-range": 4}


def test_the_range_of_the_data_set_is_found_once_and_kept(data: Path, tmp_path: Path) -> None:
    cache = tmp_path / "c.h5"
    summary = run(data, cache, intensity="range")
    assert recipe(cache).intensity == (97.0, 4003.0)
    assert not summary.notes
    before = features(cache)
    picture(data / "a" / "9.tif", np.full((40, 40), 60_000, np.uint16))
    again = run(data, cache, intensity="range")
    assert again.n_computed == 1
    assert again.notes == {"clipped": 1}
    assert recipe(cache).intensity == (97.0, 4003.0)
    with open_cache(cache) as opened:
        kept = [row for row, path in enumerate(opened.paths) if path != "a/9.tif"]
    np.testing.assert_array_equal(features(cache)[kept], before)
    with pytest.raises(RecipeMismatchError, match="intensity"):
        run(data, cache)


def test_given_numbers_make_the_same_features_as_those_found(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "found.h5", intensity="range")
    run(data, tmp_path / "given.h5", intensity=(97, 4003))
    assert recipe(tmp_path / "found.h5").fingerprint == recipe(tmp_path / "given.h5").fingerprint
    np.testing.assert_array_equal(features(tmp_path / "found.h5"), features(tmp_path / "given.h5"))
    by_type = run(data, tmp_path / "type.h5")
    assert by_type.recipe != recipe(tmp_path / "given.h5")
    assert (features(tmp_path / "type.h5") != features(tmp_path / "given.h5")).any()


def test_percentiles_leave_hot_pixels_out(data: Path, tmp_path: Path) -> None:
    hot = np.random.default_rng(9).integers(100, 4000, (40, 40)).astype(np.uint16)
    hot[3, 5] = 65535
    picture(data / "b" / "hot.tif", hot)
    run(data, tmp_path / "c.h5", intensity="percentiles")
    low, high = recipe(tmp_path / "c.h5").intensity or (0, 0)
    assert 100 <= low < 200
    assert 3900 < high <= 4000


def test_a_set_of_8_bits_has_no_intensity(tmp_path: Path) -> None:
    for number in range(3):
        path = tmp_path / "photos" / "a" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (number * 50, 0, 0)).save(path)
    run(tmp_path / "photos", tmp_path / "c.h5", intensity="range")
    assert recipe(tmp_path / "c.h5").intensity is None


def test_an_unknown_intensity_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(HeadstartError, match="Unknown intensity 'auto'"):
        run(data, tmp_path / "c.h5", intensity="auto")
    with pytest.raises(HeadstartError, match="the lower first"):
        Network(ExtractOptions(intensity=(5.0, 1.0))).wanted(None)
    with pytest.raises(HeadstartError, match="page, where it is written"):
        Network(ExtractOptions(page=0)).wanted(None)


@pytest.mark.parametrize("options", [{"intensity": (97.0, 4003.0)}, {"page": "max"}])
def test_whatever_decodes_again_goes_by_the_recipe(data: Path, tmp_path: Path, options: dict[str, object]) -> None:
    picture(data / "b" / "stack.tif", np.random.default_rng(5).integers(0, 4000, (3, 40, 40)).astype(np.uint16))
    cache = tmp_path / "c.h5"
    summary = run(data, cache, **options)
    assert "first-page" not in summary.notes or "page" not in options
    backbone = FakeBackbone(recipe(cache))
    assert not verify_cache(cache, data, backbone=backbone).findings
    whole = features(cache)
    with h5py.File(cache, "r+") as file:
        file["features"][2] = 0
    assert repair_cache(cache, data, backbone=FakeBackbone(recipe(cache))).images
    np.testing.assert_array_equal(features(cache), whole)
    forecast = forecast_extraction(data, cache, network=RulesNetwork(**options), **options)  # type: ignore[arg-type]
    assert forecast.up_to_date


def test_stacks_are_told_of(data: Path, tmp_path: Path) -> None:
    for number in range(6):
        stack = np.random.default_rng(number).integers(0, 255, (3, 40, 40)).astype(np.uint8)
        picture(data / "a" / f"stack{number}.tif", stack)
    summary = run(data, tmp_path / "c.h5")
    assert summary.notes["first-page"] == 6
    assert "in 6 images only the first page was taken" in sentences(summary.notes)[0]
    assert not run(data, tmp_path / "c.h5").n_computed


def test_rows_of_older_rules_are_computed_again(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As decoded before: 16 bits by Pillow's mode, here all images; the row of 8 bits is kept."""
    old = {"from-uint16": "from-I;16"}

    append = ShardWriter.append

    def append_old(self: ShardWriter, batch: object, rows: list) -> None:  # type: ignore[type-arg]
        append(self, batch, [replace(row, notes=tuple(old.get(n, n) for n in row.notes)) for row in rows])

    with monkeypatch.context() as patched:
        patched.setattr(ShardWriter, "append", append_old)
        run(data, tmp_path / "c.h5")
    summary = run(data, tmp_path / "c.h5")
    assert (summary.n_computed, summary.computed) == (4, {"decoded by older rules": 4})
    assert summary.reused == {"unchanged": 1}
    assert not run(data, tmp_path / "c.h5").n_computed


def test_a_head_predicts_by_the_rules_of_its_cache(data: Path, tmp_path: Path) -> None:
    cache = tmp_path / "c.h5"
    for number in range(5):
        picture(data / "b" / f"dark{number}.tif", np.full((40, 40), 100 + number, np.uint16))
    run(data, cache, intensity="range")
    fit_head(cache, "ridge", output=tmp_path / "head")
    predictor = Predictor(tmp_path / "head", backbone=FakeBackbone(recipe(cache)))
    with open_cache(cache) as opened:
        expected = predictor.bundle.predict_proba(opened.batches(np.arange(opened.n_images)), opened.recipe)
        predicted = list(predictor.predict([data / path for path in opened.paths]))
    np.testing.assert_allclose([one.probabilities for one in predicted], expected, atol=0.01)
    assert {one.top(predictor.class_names, 1)[0][0] for one in predicted if "dark" in one.path} == {"b"}
    other = FakeBackbone(replace(recipe(cache), intensity=None))
    with pytest.raises(RecipeMismatchError, match="intensity"):
        Predictor(tmp_path / "head", backbone=other)


def test_workers_have_the_numbers_that_were_found() -> None:
    network = Network(ExtractOptions(intensity="range", page="max", device="gpu:0,gpu:1"))
    network.weights = None  # type: ignore[assignment]
    network.options = replace(network.options, intensity=(1.0, 2.0))
    there = pickle.loads(pickle.dumps(network))
    assert (there.options.intensity, there.options.page, there.options.device) == ((1.0, 2.0), "max", "auto")
    assert (there.wanted(None).intensity, there.wanted(None).page) == ((1.0, 2.0), "max")


def test_a_backbone_has_the_recipe_that_it_was_built_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = replace(RulesNetwork().made.recipe, page=2, intensity=(0.0, 9.0), views="mirrored")
    plain = network_recipe(asked)
    assert (plain.page, plain.intensity, plain.views) == (None, None, "single")
    monkeypatch.setattr("headstart.backbones.registry.engine_backbone", lambda recipe, *rest: FakeBackbone(recipe))
    assert build_backbone(asked).recipe == asked


def test_recipes_with_rules_survive_their_text() -> None:
    asked = replace(RulesNetwork().made.recipe, page="mean", intensity=(-1000.0, 0.5))
    assert Recipe.from_json(asked.to_json()) == asked
    for field in ('"page": 1', '"page": "median"', '"page": true', '"intensity": [2, 1]', '"intensity": [1]',
                  '"intensity": null', '"intensity": [NaN, 1]', '"page": null', '"intensity": [0, 1e999]'):  # fmt: skip
        with pytest.raises(ValueError, match="where it is written"):
            Recipe.from_json(RulesNetwork().made.recipe.to_json()[:-1] + f", {field}}}")
