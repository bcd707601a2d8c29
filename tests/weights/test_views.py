"""Views of the real network, from images to the exported model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.backbones import registry
from headstart.backbones.convnet import Weights
from headstart.backbones.precision import Device, adds_up_int8, cpu_flags
from headstart.backbones.registry import ViewsBackbone, build_backbone, turned
from headstart.backbones.vgg16 import VGG16
from headstart.cache.reader import open_cache
from headstart.errors import RecipeMismatchError
from headstart.evaluation import evaluate_head
from headstart.exchange.keras_file import export_keras
from headstart.exchange.onnx_file import export_onnx
from headstart.extract.options import ExtractOptions
from headstart.extract.run import extract_features
from headstart.fit import fit_head
from headstart.heads.catalogue import default_spec
from headstart.predict import Predictor
from headstart.runtime import import_keras
from headstart.types import VIEWS, Backbone, FeatureBatch
from headstart.verify import verify_cache
from pictures import class_folders, picture

pytestmark = pytest.mark.weights

SIZE = 64

#: Probabilities agree to this in float32.
TOLERANCE = 1e-4


def backbone(imagenet: Weights, views: str = "mirrored") -> Backbone:
    recipe = VGG16.recipe(weights_sha256=imagenet.sha256, input_size_px=SIZE, views=views)
    return build_backbone(recipe, imagenet, batch_size=8, device="cpu")


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)


def near(ours: FeatureBatch, theirs: FeatureBatch, share: float = 1e-5) -> None:
    for found, expected in (ours.features, theirs.features), (ours.pooled, theirs.pooled):
        assert np.abs(found - expected).max() <= share * np.abs(expected).max()


def test_a_symmetric_image_has_its_own_averages_and_a_symmetric_map(imagenet: Weights, images: np.ndarray) -> None:
    half = images[:, :, : SIZE // 2]
    symmetric = np.concatenate([half, half[:, :, ::-1]], axis=2)
    single, mirrored = backbone(imagenet, "single").forward(symmetric), backbone(imagenet).forward(symmetric)
    np.testing.assert_array_equal(mirrored.pooled, single.pooled)
    np.testing.assert_array_equal(mirrored.features, mirrored.features[:, :, ::-1])
    near(mirrored, FeatureBatch((single.features + single.features[:, :, ::-1]) / 2, single.pooled))


@pytest.mark.parametrize("views", ["mirrored", "dihedral"])
def test_every_view_of_an_image_has_the_same_features_turned(imagenet: Weights, images: np.ndarray, views: str) -> None:
    together = backbone(imagenet, views)
    seen = together.forward(images)
    for steps in VIEWS[views][-1:]:
        found = together.forward(turned(images, steps))
        np.testing.assert_array_equal(found.features, turned(seen.features, steps))
        np.testing.assert_array_equal(found.pooled, seen.pooled)
    single = backbone(imagenet, "single").forward(images)
    assert np.abs(single.features - seen.features).max() > 0.1 * seen.features.max()


@pytest.mark.parametrize("engine", ["ncnn", "openvino"])
def test_every_engine_gives_the_same(
    imagenet: Weights, images: np.ndarray, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(engine)
    monkeypatch.setattr(registry, "is_installed", lambda name: name == engine)
    received = backbone(imagenet).forward(images)
    monkeypatch.setattr(registry, "is_installed", lambda _name: False)
    near(received, backbone(imagenet).forward(images))


def test_bfloat16_is_chosen_by_its_proof(
    imagenet: Weights, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.extract import network

    pytest.importorskip("openvino")
    native = Device("cpu", "/CPU:0", 8, "bfloat16")
    for module in (network, registry):
        monkeypatch.setattr(module, "pick_device", lambda _name: native)
    run = network.Network(ExtractOptions(input_size_px=SIZE, views="mirrored"))
    chosen, reason = run.backbone(None, images, lambda: pytest.fail("no sample is needed"))
    assert isinstance(chosen, ViewsBackbone)
    assert (chosen.recipe.precision, chosen.recipe.views) == ("bfloat16", "mirrored")
    assert "lowest cosine to float32" in reason


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("views") / "data", n_per_class=6)


def extracted(data: Path, views: str) -> Path:
    """A cache of the data in these views, made once."""
    output = data.parent / f"{views}.h5"
    if not output.exists():
        extract_features(data, output, views=views, precision="float32", input_size_px=SIZE, batch_size=8)
    return output


@pytest.fixture
def cache(data: Path, imagenet: Weights) -> Path:
    return extracted(data, "mirrored")


def test_a_cache_grows_and_is_verified_by_its_own_views(tmp_path: Path, imagenet: Weights) -> None:
    data, output = class_folders(tmp_path / "data", n_per_class=6), tmp_path / "grown.h5"
    options = ExtractOptions(precision="float32", input_size_px=SIZE, batch_size=8)
    extract_features(data, output, options=options, views="mirrored")
    picture(data / "bee" / "new.png", 99)
    with pytest.raises(RecipeMismatchError, match="views: mirrored ≠ single"):
        extract_features(data, output, options=options)
    assert extract_features(data, output, options=options, views="mirrored").n_computed == 1
    found = verify_cache(output, data)
    assert (found.findings, found.n_recomputed) == ((), 13)


@pytest.mark.skipif(not adds_up_int8(cpu_flags()), reason="int8 is refused on this processor")
def test_int8_is_quantised_and_proven(data: Path, tmp_path: Path, imagenet: Weights) -> None:
    pytest.importorskip("openvino")
    output = tmp_path / "int8.h5"
    done = extract_features(data, output, views="mirrored", precision="int8", input_size_px=SIZE)
    assert done.precision_reason.startswith("int8: as asked for")
    assert verify_cache(output, data).findings == ()
    with open_cache(output) as opened:
        assert opened.recipe.quantization is not None
        assert opened.recipe.views == "mirrored"


def test_new_images_are_predicted_in_the_same_views(cache: Path, data: Path, tmp_path: Path) -> None:
    head = fit_head(cache, default_spec("logistic"), output=tmp_path / "head").folder
    predictor = Predictor(head, batch_size=8)
    assert isinstance(predictor.backbone, ViewsBackbone)
    from_cache, _ = evaluate_head(head, cache)
    from_folder, _ = evaluate_head(head, data, batch_size=8)
    assert from_folder.log_loss == pytest.approx(from_cache.log_loss, abs=1e-3)  # the cache stores float16
    with open_cache(cache) as opened:
        batch = next(opened.batches())
        with pytest.raises(RecipeMismatchError, match="views: mirrored ≠ single"):
            predictor.bundle.predict_proba([batch], replace(opened.recipe, views="single"))


@pytest.mark.parametrize(
    ("views", "features"),
    [("mirrored", ("flatten",)), ("mirrored", ("avg", "block4_conv3", "max", "gem")), ("dihedral", ("flatten",))],
)
def test_an_exported_model_sees_all_views(
    data: Path, tmp_path: Path, imagenet: Weights, views: str, features: tuple[str, ...]
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    head = fit_head(extracted(data, views), default_spec("ridge", features=features), output=tmp_path / "head").folder
    paths = sorted(data.rglob("*.png"))[:5]
    expected = np.stack([p.probabilities for p in Predictor(head, batch_size=8).predict(paths)])
    pixels = np.stack([np.asarray(Image.open(path)) for path in paths])
    session = onnxruntime.InferenceSession(
        export_onnx(head, tmp_path / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {"images": pixels})
    assert np.abs(found - expected).max() < TOLERANCE
    (mirrored,) = session.run(None, {"images": pixels[:, :, ::-1]})
    if features != ("flatten",):
        assert np.abs(mirrored - expected).max() < TOLERANCE
    export_keras(head, tmp_path / "model.keras")
    model = import_keras().saving.load_model(tmp_path / "model.keras")
    assert np.abs(model.predict(pixels, verbose=0) - expected).max() < TOLERANCE
