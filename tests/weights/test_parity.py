"""What the program predicts is what the Keras recipe and the exported model predict."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.backbones.convnet import Weights
from headstart.bundles.bundle import load_bundle, save_bundle
from headstart.cache.merge import MergedRow, merge
from headstart.cache.reader import open_cache
from headstart.evaluation import evaluate_head
from headstart.exchange.keras_file import export_keras
from headstart.exchange.onnx_file import export_onnx
from headstart.extract.options import ExtractOptions
from headstart.extract.run import extract_features
from headstart.fit import fit_head
from headstart.heads.catalogue import default_spec
from headstart.predict import Predictor
from headstart.runtime import import_keras
from pictures import class_folders

pytestmark = pytest.mark.weights

#: Pixels of a side: 64 show what 224 do, in a tenth of the time.
SIZE = 64

#: Probabilities agree to this in float32.
TOLERANCE = 1e-4

HEADS = {
    "dense": default_spec("dense", params={"epochs": 3}),
    "dense-raw": default_spec("dense", scaling="none", params={"epochs": 3}),
    "logistic": default_spec("logistic"),
    "joined": default_spec("logistic", features=("block4_conv3", "max", "block2_conv2"), scaling="standard"),
    "l2": default_spec("logistic", features=("flatten",), scaling="l2"),
    "linear-svm": default_spec("linear-svm"),
    "ridge": default_spec("ridge"),
    "gem": default_spec("ridge", features=("gem", "avg", "max")),
    "nearest-class-mean": default_spec("nearest-class-mean"),
}

#: Heads that are exported to Keras: one of each form of features and layers; ONNX files are written of all.
KERAS_HEADS = ("dense", "dense-raw", "joined", "l2", "gem")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("parity") / "data", n_per_class=6, classes=("ant", "bee", "cat"))


@pytest.fixture(scope="module")
def cache(data: Path, imagenet: Weights) -> Path:
    output = data.parent / "data.h5"
    extract_features(data, output, options=ExtractOptions(precision="float32", batch_size=8, input_size_px=SIZE))
    return output


@pytest.fixture(scope="module")
def heads(cache: Path) -> dict[str, Path]:
    return {name: fit_head(cache, spec, output=cache.parent / name).folder for name, spec in HEADS.items()}


@pytest.fixture(scope="module")
def images(data: Path) -> list[Path]:
    """Two of each class, in a batch of four and one that is not full."""
    return sorted(data.rglob("*.png"))[::3]


@pytest.fixture(scope="module")
def predicted(heads: dict[str, Path], images: list[Path]) -> dict[str, np.ndarray]:
    backbone = Predictor(heads["dense"], batch_size=4).backbone
    return {
        name: np.stack([p.probabilities for p in Predictor(folder, backbone=backbone).predict(images)])
        for name, folder in heads.items()
    }


def test_the_keras_recipe_gives_the_same_probabilities(
    heads: dict[str, Path], images: list[Path], predicted: dict[str, np.ndarray], imagenet: Weights
) -> None:
    keras = import_keras()
    vgg16 = keras.applications.VGG16(weights=None, include_top=False, input_shape=(SIZE, SIZE, 3))
    for layer, tensors in imagenet.tensors.items():
        vgg16.get_layer(layer).set_weights(tensors)
    vgg16.trainable = False
    network = load_bundle(heads["dense-raw"]).head.steps[-1][1].network_
    dense = [keras.layers.Dense(256, activation="relu"), keras.layers.Dense(3, activation="softmax")]
    recipe = keras.Sequential([vgg16, keras.layers.Flatten(), *dense])
    for layer, fitted in zip(dense, network.layers, strict=True):
        layer.set_weights(fitted.get_weights())
    pixels = np.stack([np.asarray(Image.open(path), np.float32) for path in images])
    inputs = keras.applications.vgg16.preprocess_input(np.rint(np.asarray(keras.layers.Resizing(SIZE, SIZE)(pixels))))
    assert np.abs(recipe.predict(inputs, verbose=0) - predicted["dense-raw"]).max() < TOLERANCE


#: Predicts with every model in the folder, where headstart cannot be imported.
PREDICT = """
import sys
sys.modules["headstart"] = None
import keras
import numpy as np
from pathlib import Path
for path in Path().glob("*.keras"):
    model = keras.saving.load_model(path)
    np.save(path.with_suffix(".npy"), model.predict(np.load("images.npy"), verbose=0, batch_size=4))
"""


@pytest.fixture(scope="module")
def from_exported(
    heads: dict[str, Path], images: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, np.ndarray]:
    """Probabilities by exported models, all of them in one process, since TensorFlow takes seconds to start."""
    folder = tmp_path_factory.mktemp("exported")
    for name in KERAS_HEADS:
        export_keras(heads[name], folder / f"{name}.keras")
    np.save(folder / "images.npy", np.stack([np.asarray(Image.open(path)) for path in images]))
    subprocess.run([sys.executable, "-c", PREDICT], cwd=folder, check=True, capture_output=True, timeout=300)
    return {name: np.load(folder / f"{name}.npy") for name in KERAS_HEADS}


@pytest.mark.parametrize("name", KERAS_HEADS)
def test_the_exported_model_needs_nothing_of_headstart(
    name: str, predicted: dict[str, np.ndarray], from_exported: dict[str, np.ndarray]
) -> None:
    assert np.abs(from_exported[name] - predicted[name]).max() < TOLERANCE


@pytest.mark.parametrize("name", list(HEADS))
def test_the_onnx_model_gives_the_same_probabilities(
    name: str, heads: dict[str, Path], images: list[Path], predicted: dict[str, np.ndarray], tmp_path: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model = export_onnx(heads[name], tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    found = [session.run(None, {"images": np.asarray(Image.open(path))[None]})[0] for path in images]
    assert np.abs(np.concatenate(found) - predicted[name]).max() < TOLERANCE
    assert json.loads(session.get_modelmeta().custom_metadata_map["class_names"]) == ["ant", "bee", "cat"]


def test_the_page_tells_how_to_use_it(heads: dict[str, Path], images: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    page = (Path(__file__).resolve().parents[2] / "docs" / "exchange.md").read_text(encoding="utf-8")
    (code,) = re.findall(
        r"^```python\n(.*?)^```$", page.partition("## The whole classifier")[2], re.MULTILINE | re.DOTALL
    )
    export_onnx(heads["logistic"], tmp_path / "model.onnx")
    Image.open(images[0]).resize((300, 200)).save(tmp_path / "photo.jpg")
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert result.stdout.split()[0] in {"ant", "bee", "cat"}


def test_exported_models_have_a_column_for_a_class_without_training_images(
    cache: Path, data: Path, images: list[Path], tmp_path: Path
) -> None:
    """The classes of a head are those of its cache, whether or not there were images of each to learn from."""
    onnxruntime = pytest.importorskip("onnxruntime")
    keras = import_keras()
    pixels = np.stack([np.asarray(Image.open(path)) for path in images[:4]])
    with open_cache(cache) as whole:
        rows = [MergedRow(0, row, ref) for row, ref in enumerate(whole.refs()) if ref.label != "bee"]
        names = whole.class_names
        merge(tmp_path / "two.h5", sources=[whole], rows=rows, failures=(), class_names=names, layout="")
    fit_head(tmp_path / "two.h5", "logistic", output=tmp_path / "head")
    older = replace(load_bundle(tmp_path / "head"), class_names=names)  # such versions kept classes without an image
    older.head.steps[-1][1].classes_ = np.array([0, 2])
    head = save_bundle(tmp_path / "older", older, metrics={})
    expected = np.stack([p.probabilities for p in Predictor(head, batch_size=4).predict(images[:4])])
    assert not expected[:, 1].any()
    export_keras(head, tmp_path / "model.keras")
    export_onnx(head, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    assert np.abs(session.run(None, {"images": pixels})[0] - expected).max() < TOLERANCE
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert np.abs(loaded.predict(pixels, verbose=0) - expected).max() < TOLERANCE


def test_a_head_that_keras_cannot_express_is_refused(cache: Path, tmp_path: Path) -> None:
    folder = fit_head(cache, default_spec("rbf-svm"), output=tmp_path / "head").folder
    with pytest.raises(Exception, match="cannot be expressed exactly"):
        export_keras(folder, tmp_path / "model.keras")


def test_a_folder_scores_as_its_cache_does(cache: Path, data: Path, heads: dict[str, Path]) -> None:
    from_cache, _ = evaluate_head(heads["logistic"], cache)
    from_folder, failures = evaluate_head(heads["logistic"], data, batch_size=8)
    assert failures == []
    assert from_folder.confusion == from_cache.confusion
    assert from_folder.log_loss == pytest.approx(from_cache.log_loss, abs=1e-3)  # the cache stores float16


def test_the_reduced_precision_is_chosen_by_proof(data: Path, tmp_path: Path, imagenet: Weights) -> None:
    summary = extract_features(data, tmp_path / "auto.h5", options=ExtractOptions(batch_size=8, input_size_px=SIZE))
    assert summary.recipe is not None
    assert summary.precision_reason.startswith(summary.recipe.precision)
    again = extract_features(data, tmp_path / "auto.h5", options=ExtractOptions(batch_size=8, input_size_px=SIZE))
    assert again.n_computed == 0
    assert again.precision_reason == summary.precision_reason
