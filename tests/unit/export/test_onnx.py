"""The parts of an ONNX model compute what the program computes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.backbones import registry
from headstart.backbones.registry import all_views
from headstart.errors import HeadstartError, MissingExtraError
from headstart.exchange import export_model
from headstart.exchange.onnx_file import linear_resize, mean_of_views, turned
from headstart.exchange.onnx_graph import Graph, activate, as_float
from headstart.heads.head_specs import ACTIVATIONS
from headstart.images.resize import keras_bilinear
from headstart.runtime import import_keras
from headstart.types import VIEWS, FeatureBatch

pytestmark = pytest.mark.slow

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def session(data: bytes) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])


def resizer(size_px: int) -> onnxruntime.InferenceSession:
    graph = Graph()
    graph.add("Flatten", linear_resize(graph, "images", size_px), axis=1, name="probabilities")
    return session(graph.to_bytes(size_px * size_px * 3, description="", metadata={}))


RESIZERS = {size_px: resizer(size_px) for size_px in (32, 61, 224)}


@settings(max_examples=60)
@given(
    size_px=st.sampled_from(list(RESIZERS)),
    height=st.integers(1, 400), width=st.integers(1, 400), n_images=st.integers(1, 2), seed=st.integers(0, 9),
)  # fmt: skip
def test_the_resize_is_the_same_bit_for_bit(size_px: int, height: int, width: int, n_images: int, seed: int) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (n_images, height, width, 3), np.uint8)
    (found,) = RESIZERS[size_px].run(None, {"images": images})
    expected = np.stack([keras_bilinear(image, size_px) for image in images])
    np.testing.assert_array_equal(found.reshape(expected.shape), expected)


@pytest.mark.parametrize("activation", [*ACTIVATIONS, "softmax", "sigmoid", "relu6"])
def test_activations_are_those_of_keras(activation: str) -> None:
    graph = Graph()
    values = graph.add("Cast", graph.add("Flatten", "images", axis=1), to=onnx.TensorProto.FLOAT)
    values = graph.add("Div", graph.add("Sub", values, graph.constant(128)), graph.constant(20))
    graph.add("Identity", activate(graph, activation, values), name="probabilities")
    images = np.random.default_rng(0).integers(0, 256, (5, 2, 2, 3), np.uint8)
    (found,) = session(graph.to_bytes(12, description="", metadata={})).run(None, {"images": images})
    inputs = (images.reshape(5, -1).astype(np.float32) - 128) / 20
    expected = np.asarray(import_keras().activations.get(activation)(inputs))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_what_is_not_known_is_refused_not_left_out() -> None:
    with pytest.raises(HeadstartError, match="swoosh"):
        activate(Graph(), "swoosh", "images")


@pytest.mark.parametrize("views", list(VIEWS)[1:])
def test_the_mean_over_views_is_that_of_the_backbones(views: str) -> None:
    graph, lopsided = Graph(), np.arange(16, dtype=np.float32).reshape(4, 4) / np.float32(3)
    pixels = graph.add("Transpose", as_float(graph, "images"), perm=[0, 3, 1, 2])
    seen = graph.add("Concat", *(turned(graph, pixels, steps) for steps in VIEWS[views]), axis=0)
    maps = graph.add("Mul", seen, graph.constant(lopsided))
    mean = mean_of_views(graph, maps, graph.add("Shape", pixels, end=1), views)
    graph.add("Flatten", mean, axis=1, name="probabilities")
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), np.uint8)
    (found,) = session(graph.to_bytes(48, description="", metadata={})).run(None, {"images": images})
    features = all_views(images, views) * lopsided[..., None]
    expected = registry.mean_of_views(FeatureBatch(features, np.empty((len(features), 0), np.float32)), views).features
    np.testing.assert_array_equal(found, expected.transpose(0, 3, 1, 2).reshape(3, -1))


def test_metadata_are_in_the_file() -> None:
    graph = Graph()
    graph.add("Flatten", linear_resize(graph, "images", 32), axis=1, name="probabilities")
    names = json.dumps(["é", "b"], ensure_ascii=False)
    data = graph.to_bytes(32 * 32 * 3, description="what it is", metadata={"class_names": names})
    meta = session(data).get_modelmeta()
    assert json.loads(meta.custom_metadata_map["class_names"]) == ["é", "b"]
    assert meta.description == "what it is"


def test_the_end_of_the_name_says_the_kind(tmp_path: Path) -> None:
    with pytest.raises(HeadstartError, match=r"\.keras or \.onnx"):
        export_model(tmp_path / "head", tmp_path / "model.pb")


def test_without_onnx_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r'pip install "headstart\[onnx\]"'):
        export_model(tmp_path / "head", tmp_path / "model.onnx")
