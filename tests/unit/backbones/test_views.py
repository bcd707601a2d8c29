"""Features as the mean over an image and its mirror image, whatever the backbone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fakes import FakeBackbone
from headstart.backbones import registry
from headstart.backbones.registry import MirroredBackbone, build_backbone, in_views
from headstart.backbones.vgg16 import VGG16
from headstart.cache.reader import open_cache
from headstart.errors import HeadstartError
from headstart.types import FeatureBatch, Recipe

RECIPE = VGG16.recipe(weights_sha256="0" * 64)
GOLDEN = Path(__file__).resolve().parents[2] / "data" / "cache_v1.h5"


class Lopsided(FakeBackbone):
    """Its features tell an image from its mirror image, which those of the fake alone do not; counts the passes."""

    def __init__(self, batch_size: int = 4) -> None:
        super().__init__(batch_size=batch_size)
        self.passes: list[int] = []

    def forward(self, images: np.ndarray) -> FeatureBatch:
        self.passes.append(len(images))
        found = super().forward(images)
        return FeatureBatch(
            found.features * np.arange(1, 8, dtype=np.float32)[:, None], found.pooled, found.pooled_column_layer
        )


class Started(Lopsided):
    """A fake whose pass is started and fetched."""

    fetched = 0

    def start(self, images: np.ndarray) -> Callable[[], FeatureBatch]:
        def fetch() -> FeatureBatch:
            self.fetched += 1
            return self.forward(images)

        return fetch


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 35, 35, 3), np.uint8)


def equal(ours: FeatureBatch, theirs: FeatureBatch) -> None:
    np.testing.assert_array_equal(ours.features, theirs.features)
    np.testing.assert_array_equal(ours.pooled, theirs.pooled)


def test_the_features_are_the_mean_of_both_views(images: np.ndarray) -> None:
    plain, mirrored = Lopsided().forward(images), Lopsided().forward(images[:, :, ::-1])
    found = MirroredBackbone(Lopsided()).forward(images)
    assert found.features.dtype == found.pooled.dtype == np.float32
    np.testing.assert_allclose(found.features, (plain.features + mirrored.features[:, :, ::-1]) / 2, rtol=1e-6)
    np.testing.assert_allclose(found.pooled, (plain.pooled + mirrored.pooled) / 2, rtol=1e-6)
    assert np.abs(found.features - plain.features).max() > 1
    assert np.abs(found.pooled - plain.pooled).max() > 0.1


def test_mirror_images_have_maps_that_are_mirror_images_and_the_same_averages(images: np.ndarray) -> None:
    backbone = MirroredBackbone(Lopsided())
    seen, mirrored = backbone.forward(images), backbone.forward(images[:, :, ::-1])
    equal(mirrored, FeatureBatch(seen.features[:, :, ::-1], seen.pooled))


def test_a_row_depends_on_its_image_alone(images: np.ndarray) -> None:
    backbone = MirroredBackbone(Lopsided())
    together = backbone.forward(images)
    equal(backbone.forward(images[3:4]), FeatureBatch(together.features[3:4], together.pooled[3:4]))


def test_a_batch_and_its_mirror_images_are_one_pass(images: np.ndarray) -> None:
    inner = Lopsided(batch_size=7)
    backbone = MirroredBackbone(inner)
    assert backbone.batch_size == 3
    backbone.forward(images[: backbone.batch_size])
    assert inner.passes == [6]
    inner.batch_size = 1  # memory has run out
    assert backbone.batch_size == 1


@pytest.mark.parametrize("kind", [Lopsided, Started])
def test_a_pass_is_started_where_the_backbone_can(kind: type[Lopsided], images: np.ndarray) -> None:
    inner = kind()
    fetch = MirroredBackbone(inner).start(images)
    assert inner.passes == ([] if kind is Started else [10])
    equal(fetch(), MirroredBackbone(Lopsided()).forward(images))
    assert inner.passes == [10]


def test_it_says_what_it_is_and_what_it_runs_on() -> None:
    inner = FakeBackbone()
    inner.device = "gpu:1"  # type: ignore[attr-defined]
    backbone = in_views(inner, "mirrored")
    assert isinstance(backbone, MirroredBackbone)
    assert backbone.device == "gpu:1"
    assert backbone.recipe == replace(inner.recipe, views="mirrored")
    assert in_views(inner, "single") is inner


def test_no_engine_is_told_of_views(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Recipe] = []

    def engine(recipe: Recipe, *_options: object) -> FakeBackbone:
        asked.append(recipe)
        return FakeBackbone(recipe)

    monkeypatch.setattr(registry, "engine_backbone", engine)
    wanted = replace(RECIPE, views="mirrored")
    assert build_backbone(wanted).recipe == wanted
    assert build_backbone(RECIPE).recipe == RECIPE
    assert asked == [RECIPE, RECIPE]


def test_a_recipe_of_single_views_is_written_as_before() -> None:
    with open_cache(GOLDEN) as cache:
        recipe = cache.recipe
    assert recipe.views == "single"
    assert "views" not in json.loads(recipe.to_json())
    assert RECIPE.fingerprint == "d7f6dabadb18a2dff188e5708767edb6e9974d7fa18384eaea72cd6cec49a489"


def test_a_recipe_of_mirrored_views_is_another_and_is_read_as_it_was_written() -> None:
    recipe = replace(RECIPE, views="mirrored")
    assert json.loads(recipe.to_json()) == json.loads(RECIPE.to_json()) | {"views": "mirrored"}
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert recipe.fingerprint != RECIPE.fingerprint
    assert recipe.differences(RECIPE) == ("views: mirrored ≠ single",)


@pytest.mark.parametrize("views", ["single", "both", "", None, ["mirrored"]])
def test_other_views_are_refused(views: object) -> None:
    text = json.dumps(json.loads(RECIPE.to_json()) | {"views": views})
    with pytest.raises(ValueError, match="views, where it is written, is mirrored"):
        Recipe.from_json(text)
    if views != "single":
        with pytest.raises(HeadstartError, match="Expected one of: single, mirrored"):
            VGG16.recipe(weights_sha256="0" * 64, views=views)  # type: ignore[arg-type]
