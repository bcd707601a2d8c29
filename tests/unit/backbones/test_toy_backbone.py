"""The backbone and the engine of CONTRIBUTING.md: one registry line each, and every step from images to predictions works."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headstart import Predictor, compare_heads, extract_features, fit_head, forecast_extraction, load_bundle, open_cache
from headstart.backbones.registry import BACKBONES, build_backbone
from headstart.errors import HeadstartError, RecipeMismatchError
from headstart.extract import estimate
from headstart.extract.engine import ENGINES
from headstart.images.load import load_image

PAGE = Path(__file__).resolve().parents[3] / "CONTRIBUTING.md"


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run the examples of the page, which register a backbone and an engine for this test."""
    monkeypatch.setitem(BACKBONES, "block-means", None)  # both are restored at the end
    monkeypatch.setitem(ENGINES, "one-by-one", None)
    namespace: dict[str, Any] = {}
    page = PAGE.read_text(encoding="utf-8").partition("## Add a backbone")[2]
    examples = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(examples) == 2
    for example in examples:
        assert len(example.splitlines()) < 40
        exec(example, namespace)
    return namespace


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twelve reddish and twelve bluish images: colours that a head can tell apart by block means."""
    for channel, name in ((0, "ant"), (2, "bee")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(12):
            pixels = np.random.default_rng([channel, number]).integers(0, 128, (5, 5, 3), dtype=np.uint8)
            pixels[..., channel] += 127
            picture = Image.fromarray(pixels).resize((40, 30), Image.Resampling.NEAREST)
            picture.save(tmp_path / "data" / name / f"{number:03d}.png")
    return tmp_path / "data"


@pytest.fixture
def cache(data: Path, tmp_path: Path, names: dict[str, Any]) -> Path:
    extract_features(data, tmp_path / "toy.h5", backbone="block-means", shard_images=8)
    return tmp_path / "toy.h5"


def test_the_cache_has_the_shapes_and_layers_of_the_description(cache: Path, data: Path) -> None:
    with open_cache(cache) as opened:
        assert (opened.recipe.backbone, opened.recipe.weights, opened.recipe.layer) == ("block-means", "none", "coarse")
        assert opened.recipe.precision == "float32"
        assert opened.map_shape == (4, 4, 3)
        assert opened.pooled_column_layer == ("fine",) * 3 + ("coarse",) * 3
        pixels = load_image(data, opened.refs()[0], size_px=32, resize_preset=opened.recipe.resize).pixels
        (batch,) = opened.batches([0])
        expected = pixels.reshape(4, 8, 4, 8, 3).mean(axis=(1, 3), dtype=np.float32)
        np.testing.assert_array_equal(batch.features[0], expected.astype(np.float16))


def test_a_dry_run_knows_its_rate_and_disk(
    data: Path, tmp_path: Path, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate, "MEASURED_SECONDS", 0.0)
    found = forecast_extraction(data, tmp_path / "toy.h5", backbone="block-means")
    assert found.rate is not None
    assert "numpy" in found.rate.reason
    assert 4 * 4 * 3 * 2 + 6 * 4 < found.row_bytes < 1000


def test_a_head_is_fitted_compared_saved_and_predicts_with_the_backbone_built_again(
    cache: Path, data: Path, tmp_path: Path
) -> None:
    fit_head(cache, "logistic", output=tmp_path / "head")
    compared = compare_heads(cache, heads=("ridge", "knn"), n_splits=2, n_repeats=1, near_duplicates=False)
    assert compared["ridge"].metrics["accuracy"].value > 0.9
    assert load_bundle(tmp_path / "head").recipe.backbone == "block-means"
    predictor = Predictor(tmp_path / "head")
    assert type(predictor.backbone).__name__ == "BlockMeans"
    found = {Path(one.path).parent.name: one.top(predictor.class_names, 1)[0][0] for one in predictor.predict([data])}
    assert found == {"ant": "ant", "bee": "bee"}


def test_another_engine_makes_the_same_cache(cache: Path, data: Path, tmp_path: Path) -> None:
    extract_features(data, tmp_path / "other.h5", backbone="block-means", engine="one-by-one", shard_images=8)
    with open_cache(cache) as one, open_cache(tmp_path / "other.h5") as other:
        assert one.recipe.fingerprint == other.recipe.fingerprint
        assert one.rows.path[:] == other.rows.path[:]
        for mine, theirs in zip(one.batches(), other.batches(), strict=True):
            np.testing.assert_array_equal(mine.features, theirs.features)
            np.testing.assert_array_equal(mine.pooled, theirs.pooled)


def test_what_the_backbone_cannot_do_is_refused(data: Path, tmp_path: Path, names: dict[str, Any]) -> None:
    for options, message in (
        ({"layer": "block5_pool"}, "Unknown layer of block-means 'block5_pool'. Expected one of: fine, coarse"),
        ({"precision": "bfloat16"}, "Unknown precision 'bfloat16'. Expected one of: float32"),
        ({"precision": "int8"}, "Unknown precision 'int8'"),
        ({"backbone": "resnet"}, "Unknown backbone 'resnet'. Expected an ONNX file or one of: vgg16, "),
    ):
        with pytest.raises(HeadstartError, match=re.escape(message)):
            extract_features(data, tmp_path / "toy.h5", **({"backbone": "block-means"} | options))


def test_without_the_registry_line_its_features_are_foreign(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_cache(cache) as opened:
        recipe = opened.recipe
    monkeypatch.delitem(BACKBONES, "block-means")
    with pytest.raises(RecipeMismatchError, match="block-means"):
        build_backbone(recipe)
