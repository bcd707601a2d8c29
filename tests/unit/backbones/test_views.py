"""Features as the mean over views of an image, whatever the backbone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fakes import FakeBackbone
from headstart.backbones import registry
from headstart.backbones.registry import ViewsBackbone, build_backbone, in_views, turned
from headstart.backbones.vgg16 import VGG16
from headstart.cache.reader import open_cache
from headstart.errors import HeadstartError
from headstart.types import VIEWS, FeatureBatch, Recipe

RECIPE = VGG16.recipe(weights_sha256="0" * 64)
GOLDEN = Path(__file__).resolve().parents[2] / "data" / "cache_v1.h5"


class Lopsided(FakeBackbone):
    """Its features tell an image from its other views, which those of the fake alone do not; counts the passes."""

    def __init__(self, batch_size: int = 4) -> None:
        super().__init__(batch_size=batch_size)
        self.passes: list[int] = []

    def forward(self, images: np.ndarray) -> FeatureBatch:
        self.passes.append(len(images))
        found = super().forward(images)
        places = np.arange(1, 50, dtype=np.float32).reshape(7, 7, 1) / np.float32(3)
        return FeatureBatch(found.features * places, found.pooled, found.pooled_column_layer)


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


#: Views by NumPy's own functions: the axes that are reversed (1: rows, 2: columns), then quarter turns.
TURNS = {
    "mirrored": [((), 0), ((2,), 0)],
    "flips": [((), 0), ((1,), 0), ((2,), 0), ((1, 2), 0)],
    "dihedral": [(axes, quarters) for axes in ((), (2,)) for quarters in range(4)],
}


@pytest.mark.parametrize("views", TURNS)
def test_the_features_are_the_mean_of_all_views(views: str, images: np.ndarray) -> None:
    assert len(VIEWS[views]) == len(TURNS[views])
    found = ViewsBackbone(Lopsided(), views).forward(images)
    maps, averages = [], []
    for axes, quarters in TURNS[views]:
        view = Lopsided().forward(np.rot90(np.flip(images, axes), quarters, (1, 2)))
        maps.append(np.flip(np.rot90(view.features, -quarters, (1, 2)), axes))
        averages.append(view.pooled)
    assert found.features.dtype == found.pooled.dtype == np.float32
    assert found.features.flags.c_contiguous
    np.testing.assert_allclose(found.features, np.mean(maps, axis=0), rtol=1e-5)
    np.testing.assert_allclose(found.pooled, np.mean(averages, axis=0), rtol=1e-5)
    plain = Lopsided().forward(images)
    assert np.abs(found.features - plain.features).max() > 1
    assert np.abs(found.pooled - plain.pooled).max() > 0.1


def test_two_views_are_added_and_halved(images: np.ndarray) -> None:
    plain, mirrored = Lopsided().forward(images), Lopsided().forward(images[:, :, ::-1])
    half = np.float32(0.5)
    mean = (plain.features + mirrored.features[:, :, ::-1]) * half
    equal(
        ViewsBackbone(Lopsided(), "mirrored").forward(images),
        FeatureBatch(mean, (plain.pooled + mirrored.pooled) * half),
    )


@pytest.mark.parametrize("views", TURNS)
def test_every_view_of_an_image_has_the_same_features_turned_exactly(views: str, images: np.ndarray) -> None:
    backbone = ViewsBackbone(Lopsided(), views)
    seen = backbone.forward(images)
    for steps in VIEWS[views]:
        equal(backbone.forward(turned(images, steps)), FeatureBatch(turned(seen.features, steps), seen.pooled))


@pytest.mark.parametrize("views", TURNS)
def test_a_row_depends_on_its_image_alone(views: str, images: np.ndarray) -> None:
    backbone = ViewsBackbone(Lopsided(), views)
    together = backbone.forward(images)
    equal(backbone.forward(images[3:4]), FeatureBatch(together.features[3:4], together.pooled[3:4]))


@pytest.mark.parametrize(
    ("views", "inner_size", "n_images"), [("mirrored", 7, 3), ("flips", 7, 1), ("dihedral", 16, 2)]
)
def test_the_views_of_a_batch_are_one_pass(views: str, inner_size: int, n_images: int, images: np.ndarray) -> None:
    inner = Lopsided(batch_size=inner_size)
    backbone = ViewsBackbone(inner, views)
    assert backbone.batch_size == n_images
    backbone.forward(images[:n_images])
    assert inner.passes == [n_images * len(VIEWS[views])]
    inner.batch_size = 1  # memory has run out
    assert backbone.batch_size == 1


@pytest.mark.parametrize("kind", [Lopsided, Started])
def test_a_pass_is_started_where_the_backbone_can(kind: type[Lopsided], images: np.ndarray) -> None:
    inner = kind()
    fetch = ViewsBackbone(inner, "flips").start(images)
    assert inner.passes == ([] if kind is Started else [20])
    equal(fetch(), ViewsBackbone(Lopsided(), "flips").forward(images))
    assert inner.passes == [20]


def test_it_says_what_it_is_and_what_it_runs_on() -> None:
    inner = FakeBackbone()
    inner.device = "gpu:1"  # type: ignore[attr-defined]
    backbone = in_views(inner, "mirrored")
    assert isinstance(backbone, ViewsBackbone)
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


@pytest.mark.parametrize("views", TURNS)
def test_a_recipe_of_several_views_is_another_and_is_read_as_it_was_written(views: str) -> None:
    recipe = replace(RECIPE, views=views)
    assert json.loads(recipe.to_json()) == json.loads(RECIPE.to_json()) | {"views": views}
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert recipe.fingerprint != RECIPE.fingerprint
    assert recipe.differences(RECIPE) == (f"views: {views} ≠ single",)


@pytest.mark.parametrize("views", ["single", "both", "", None, ["mirrored"]])
def test_other_views_are_refused(views: object) -> None:
    text = json.dumps(json.loads(RECIPE.to_json()) | {"views": views})
    with pytest.raises(ValueError, match=r"is mirrored or flips or dihedral\. Received: "):
        Recipe.from_json(text)
    if views != "single":
        with pytest.raises(HeadstartError, match="Expected one of: single, mirrored, flips, dihedral"):
            VGG16.recipe(weights_sha256="0" * 64, views=views)  # type: ignore[arg-type]
