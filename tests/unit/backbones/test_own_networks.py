"""ONNX models of the user's own: described, tried, run by every engine, refused in sentences, and checked."""

from __future__ import annotations

import hashlib
import pickle
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper
from PIL import Image

from headstart import Predictor, extract_features, fit_head, open_cache
from headstart.backbones.own_networks import onnx_check, onnx_description, onnx_trial
from headstart.backbones.own_networks.onnx_check import check_model
from headstart.backbones.own_networks.onnx_description import open_model, read_description
from headstart.backbones.own_networks.onnx_engines import SESSIONS
from headstart.backbones.own_networks.onnx_trial import examine, report_on, try_model
from headstart.backbones.registry import backbone_spec, spec_of
from headstart.backbones.spec import BackboneSpec
from headstart.errors import HeadstartError, WeightsError
from headstart.exchange.keras_file import export_keras
from headstart.exchange.onnx_file import export_onnx
from headstart.extract.network import Network
from headstart.extract.options import ExtractOptions
from headstart.heads.catalogue import default_spec
from headstart.repair import repair_cache
from headstart.types import Recipe
from headstart.verify import verify_cache
from headstart_cli.app import make_app
from onnx_models import (
    DESCRIPTION,
    KERNEL,
    SIZE,
    changed,
    expected_maps,
    model_bytes,
    patch_nodes,
    write_model,
)
from pictures import class_folders

IMAGES = np.random.default_rng(1).integers(0, 256, (5, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try models in this process, which is faster."""
    monkeypatch.setattr(
        onnx_description, "try_model", lambda path, sha256, settings: examine(path.read_bytes(), sha256, settings)
    )


def features(spec: BackboneSpec, engine: str, images: np.ndarray = IMAGES, **options: Any) -> np.ndarray:
    weights = spec.loaded(None)
    recipe = spec.recipe(weights=weights.name, weights_sha256=weights.sha256)
    backbone = spec.engine(engine)(recipe, weights, spec=spec, device="cpu", **options)
    maps: np.ndarray = backbone.forward(images).features
    assert maps.shape[1:] == spec.map_shape(recipe)
    return maps


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("engine", SESSIONS)
def test_features_are_those_of_the_described_preprocessing(engine: str, tmp_path: Path) -> None:
    vectors = backbone_spec(str(write_model(tmp_path / "a")))
    maps = backbone_spec(str(write_model(tmp_path / "b", description=f'{DESCRIPTION}output = "patches"')))
    expected = expected_maps(IMAGES)
    np.testing.assert_allclose(features(maps, engine), expected, atol=1e-4)
    np.testing.assert_allclose(features(vectors, engine)[:, 0, 0], expected.mean(axis=(1, 2)), atol=1e-4)
    assert np.array_equal(features(maps, engine)[3:4], features(maps, engine, IMAGES[3:4]))  # whatever is beside it


def tokens(n_first: int) -> list[Any]:
    """Return the map as tokens behind so many others, the first of them ones."""
    first = helper.make_tensor("first", TensorProto.FLOAT, [1, n_first, 5], np.arange(n_first * 5) // 5 + 1.0)
    return [
        *patch_nodes()[:2],
        helper.make_node("Reshape", ["patches", "shape"], ["columns"]),
        helper.make_node("Transpose", ["columns"], ["rows"], perm=[0, 2, 1]),
        helper.make_node("Constant", [], ["first"], value=first),
        helper.make_node("Shape", ["images"], ["n"], start=0, end=1),
        helper.make_node("Constant", [], ["rest"], value_ints=[1, 1]),
        helper.make_node("Concat", ["n", "rest"], ["repeats"], axis=0),
        helper.make_node("Tile", ["first", "repeats"], ["others"]),
        helper.make_node("Concat", ["others", "rows"], ["features"], axis=1),
    ]


def channels_last(*, map_too: bool = True) -> bytes:
    """Return the map of arrays whose last axis are the channels, of images of any size."""
    nodes = [
        helper.make_node("Transpose", ["images"], ["first"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["first", "kernel"], ["linear"], strides=[4, 4]),
        helper.make_node("Relu", ["linear"], ["relu"]),
        helper.make_node("Transpose", ["relu"], ["features"], perm=[0, 2, 3, 1] if map_too else [0, 1, 2, 3]),
    ]
    return model_bytes(nodes, shape=["n", "height", "width", 3])


def with_tokens(n_first: int, n_images: int | str = 1) -> bytes:
    constants = [("kernel", KERNEL), ("shape", np.array([-1, 5, 16]))]
    return model_bytes(tokens(n_first), shape=[n_images, 3, SIZE, SIZE], constants=constants)


VARIANTS: dict[str, tuple[bytes, str]] = {
    "channels last": (channels_last(), f"size = {SIZE}"),
    "channels last, map channels first": (channels_last(map_too=False), f"size = {SIZE}"),
    "four at a time": (model_bytes(shape=[4, 3, SIZE, SIZE]), 'output = "patches"'),
    "patches": (with_tokens(1), 'output_kind = "patch-tokens"'),
    "patches behind registers": (with_tokens(5), 'output_kind = "patch-tokens"'),
}


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("variant", VARIANTS)
def test_layouts_and_tokens(variant: str, tmp_path: Path) -> None:
    data, more = VARIANTS[variant]
    spec = backbone_spec(str(write_model(tmp_path, data, DESCRIPTION + more)))
    for engine in SESSIONS:
        np.testing.assert_allclose(features(spec, engine), expected_maps(IMAGES), atol=1e-4)


@pytest.mark.usefixtures("in_process")
def test_the_class_token_is_the_first_one(tmp_path: Path) -> None:
    spec = backbone_spec(str(write_model(tmp_path, with_tokens(1), f'{DESCRIPTION}output_kind = "class-token"')))
    assert np.array_equal(features(spec, "onnxruntime"), np.ones((5, 1, 1, 5)))


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(("kind", "number"), [("uint8", TensorProto.UINT8), ("float16", TensorProto.FLOAT16)])
def test_inputs_of_other_types(kind: str, number: int, tmp_path: Path) -> None:
    cast = helper.make_node("Cast", ["images"], ["values"], to=TensorProto.FLOAT)
    nodes = [cast, helper.make_node("GlobalMaxPool", ["values"], ["largest"])]
    nodes.append(helper.make_node("Flatten", ["largest"], ["features"]))
    spec = backbone_spec(str(write_model(tmp_path, model_bytes(nodes, kind=number, constants=()), "")))
    for engine in SESSIONS:
        assert np.array_equal(features(spec, engine)[:, 0, 0], IMAGES.max(axis=(1, 2))), kind


def test_every_step_from_images_to_predictions(tmp_path: Path) -> None:
    data, path = class_folders(tmp_path / "data", n_per_class=6), write_model(tmp_path / "model")
    cache = tmp_path / "own.h5"
    extract_features(data, cache, backbone=str(path), shard_images=8)
    assert extract_features(data, cache, backbone=str(path)).n_computed == 0
    with open_cache(cache) as opened:
        recipe = opened.recipe
        assert (recipe.backbone, recipe.layer, recipe.pooled_layers) == ("onnx:own", "features", ())
        assert Recipe.from_json(recipe.to_json()) == recipe
    assert verify_cache(cache, data, weights=path).findings == ()
    assert repair_cache(cache, data, weights=path)
    fitted = fit_head(cache, default_spec("logistic", features=("avg",)), output=tmp_path / "head")
    images = sorted(data.rglob("*.png"))
    with pytest.raises(WeightsError, match=r"is not given: own\.onnx \(SHA-256 [0-9a-f]{64}\)"):
        Predictor(fitted.folder)
    other = write_model(tmp_path / "other", model_bytes(constants=[("kernel", KERNEL + 1)]))
    with pytest.raises(WeightsError, match="is not the network of these features"):
        Predictor(fitted.folder, weights=other)
    moved = path.rename(tmp_path / "elsewhere.onnx")  # neither its place nor its description is needed any more
    found = Predictor(fitted.folder, weights=moved).predict(images)
    rows = np.stack([one.probabilities for one in found])
    assert rows.shape == (len(images), 2)
    np.testing.assert_allclose(rows.sum(axis=1), 1)


EXPORTED = {
    "vector": (model_bytes(), ""),
    "inner map": (model_bytes(), 'output = "patches"'),
    "older operators": (model_bytes(opset=13), ""),
    "newer operators": (model_bytes(opset=21), ""),
    "channels last": VARIANTS["channels last"],
    "channels last, map channels first": VARIANTS["channels last, map channels first"],
    "patches": (with_tokens(5, n_images="n"), 'output_kind = "patch-tokens"'),
    "class token": (with_tokens(5, n_images="n"), 'output_kind = "class-token"'),
}


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("variant", EXPORTED)
def test_a_head_and_its_network_are_one_onnx_file(variant: str, tmp_path: Path) -> None:
    data, (model, more) = class_folders(tmp_path / "data", n_per_class=4), EXPORTED[variant]
    path = write_model(tmp_path, model, DESCRIPTION + more)
    extract_features(data, tmp_path / "own.h5", backbone=str(path), views="mirrored")
    spec = default_spec("logistic", features=("avg",), scaling="standard")
    head = fit_head(tmp_path / "own.h5", spec, output=tmp_path / "head").folder
    with pytest.raises(WeightsError, match="is not given"):
        export_onnx(head, tmp_path / "classifier.onnx")
    exported = export_onnx(head, tmp_path / "classifier.onnx", weights=path)
    images = sorted(data.rglob("*.png"))
    expected = np.stack([found.probabilities for found in Predictor(head, weights=path).predict(images)])
    session = onnxruntime.InferenceSession(exported)
    (found,) = session.run(None, {"images": np.stack([np.asarray(Image.open(image)) for image in images])})
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.usefixtures("in_process")
def test_a_network_for_a_fixed_number_of_images_is_not_exported(tmp_path: Path) -> None:
    data, path = class_folders(tmp_path / "data"), write_model(tmp_path, model_bytes(shape=[4, 3, SIZE, SIZE]))
    extract_features(data, tmp_path / "own.h5", backbone=str(path))
    head = fit_head(tmp_path / "own.h5", default_spec("logistic", features=("avg",)), output=tmp_path / "head").folder
    with pytest.raises(HeadstartError, match="takes 4 images at a time"):
        export_onnx(head, tmp_path / "classifier.onnx", weights=path)
    with pytest.raises(HeadstartError, match=r"cannot be part of a Keras file.*ends in \.onnx"):
        export_keras(head, tmp_path / "classifier.keras", weights=path)


def test_a_model_is_tried_once_and_another_file_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Path] = []

    def trial(path: Path, sha256: str, settings: dict[str, Any]) -> dict[str, Any]:
        tried.append(path)
        return examine(path.read_bytes(), sha256, settings)

    monkeypatch.setattr(onnx_description, "try_model", trial)
    path = write_model(tmp_path)
    spec = backbone_spec(str(path))
    spec.loaded(None)
    assert tried == [path]
    copy = write_model(tmp_path / "copy")
    spec.loaded(copy)
    assert tried == [path, copy]


@pytest.mark.usefixtures("in_process")
def test_other_machines_need_no_file(tmp_path: Path) -> None:
    path = write_model(tmp_path)
    network = Network(ExtractOptions(backbone=str(path)))
    recipe = network.wanted(None)
    sent = pickle.dumps(network)
    path.unlink()
    received = pickle.loads(sent)
    assert received.wanted(None) == recipe
    maps = received.build("float32").forward(IMAGES).features
    np.testing.assert_allclose(maps[:, 0, 0], expected_maps(IMAGES).mean(axis=(1, 2)), atol=1e-4)
    assert spec_of(recipe).map_shape(recipe) == (1, 1, 5)


def external(model: Any) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../secret")


def inside_of_a_branch(model: Any) -> None:
    nodes = [helper.make_node("RandomNormal", [], ["noise"], shape=[1])]
    inner = helper.make_graph(nodes, "branch", [], [helper.make_empty_tensor_value_info("noise")])
    model.graph.node.append(helper.make_node("If", ["flag"], ["unused"], then_branch=inner, else_branch=inner))


def ends_with(*nodes: Any, output: str = "end") -> bytes:
    return model_bytes([*patch_nodes(), *nodes], output=output)


REFUSED: dict[str, tuple[bytes, dict[str, Any], str]] = {
    "text": (b"no model", {}, "no ONNX model"),
    "nothing": (b"", {}, "no ONNX model"),
    "a pickle": (pickle.dumps({"state": np.zeros(3)}), {}, "no ONNX model"),
    "half": (model_bytes()[:500], {}, "no ONNX model|cannot be read"),
    "tensors elsewhere": (changed(model_bytes(), external), {}, "'kernel' lies in another file"),
    "random": (ends_with(helper.make_node("RandomNormalLike", ["features"], ["end"])), {}, "RandomNormalLike"),
    "random inside": (changed(model_bytes(), inside_of_a_branch), {}, "RandomNormal"),
    "loop": (ends_with(helper.make_node("Loop", ["n", "features"], ["end"])), {}, "Loop"),
    "unknown operator": (ends_with(helper.make_node("Steal", ["features"], ["end"], domain="evil")), {}, "evil|Steal"),
    "another input": (model_bytes(), {"input": "pixels"}, "one input is expected.*'images'"),
    "output": (model_bytes(), {"output": "logits"}, "no output or inner value 'logits'.*'features'"),
    "size": (model_bytes(), {"size": 20}, "16 × 16 pixels. Expected: 20 × 20"),
    "no size": (model_bytes(shape=["n", 3, "h", "w"]), {}, "Write size"),
    "no layout": (model_bytes(shape=["n", "a", "b", "c"]), {}, "Write layout"),
    "layout": (model_bytes(), {"layout": "NHWC"}, "not that of RGB images in NHWC"),
    "three axes": (model_bytes(shape=[3, 16, 16]), {}, "four axes"),
    "integers": (model_bytes(kind=TensorProto.INT64), {}, "neither float32, float16 nor uint8"),
    "uint8 with a mean": (model_bytes(kind=TensorProto.UINT8), {"mean": [1, 1, 1]}, "takes pixels as they are"),
    "a vector as a map": (model_bytes(), {"output_kind": "map"}, r"\(1, 5\), which is not that of a map"),
    "tokens": (with_tokens(1), {}, "class-token"),
    "not finite": (ends_with(helper.make_node("Log", ["linear"], ["end"])), {}, "not finite"),
    "oblong": (ends_with(helper.make_node("Conv", ["images", "kernel"], ["end"], strides=[4, 2])), {}, "a square one"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_a_backbone_is_refused(case: str, tmp_path: Path) -> None:
    data, settings, words = REFUSED[case]
    path = write_model(tmp_path, data)
    sha256 = hashlib.sha256(data).hexdigest()
    report = report_on(path, sha256, {**onnx_description.DEFAULTS, **settings})
    assert re.search(words, report.get("error", "")), report


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_a_model_that_takes_all_memory_ends_in_a_sentence(tmp_path: Path) -> None:
    grow = helper.make_node("Expand", ["features", "huge"], ["end"])
    data = model_bytes(
        [*patch_nodes(), grow], output="end", constants=[("kernel", KERNEL), ("huge", np.array([2**38, 5]))]
    )
    with pytest.raises(HeadstartError, match=r"cannot be used as a backbone|was refused"):
        open_model(write_model(tmp_path, data))


@pytest.mark.parametrize(
    ("ending", "words"),
    [("import os; os.kill(os.getpid(), 11)", "was ended by SIGSEGV"), ("raise SystemExit(9)", "exit code 9")],
)
def test_a_model_that_ends_the_process_is_refused(
    ending: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command: Callable[..., list[str]] = lambda *_: [sys.executable, "-c", ending]  # noqa: E731
    monkeypatch.setattr(onnx_trial, "isolated_command", command)
    with pytest.raises(HeadstartError, match=words):
        try_model(write_model(tmp_path), "", dict(onnx_description.DEFAULTS))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("scale = 0", "scale must be a number other than 0"),
        ('scale = "1/0"', "scale must be"),
        ("mean = [1, 2]", "mean must be one number or three"),
        ("std = 0", "std must be one number or three, none of them 0"),
        ("mean = [nan, 0, 0]", "mean must be"),
        ("size = 0", "size must be the height and width"),
        ('channels = "GRB"', "channels must be RGB or BGR. Received: 'GRB'"),
        ("means = 3", "unknown key 'means'.*Did you mean mean"),
        ("mean = ", "cannot be read as TOML"),
        ("a" * 70_000, "longer than"),
    ],
)
def test_descriptions_are_checked(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(text)
    with pytest.raises(HeadstartError, match=words):
        read_description(path)


def test_a_missing_description_is_explained(tmp_path: Path) -> None:
    path = write_model(tmp_path)
    path.with_suffix(".toml").unlink()
    with pytest.raises(HeadstartError, match=r"needs a description: there is no .*own\.toml(.|\n)*mean = \[0.485"):
        open_model(path)
    path.unlink()
    with pytest.raises(HeadstartError, match="There is no ONNX model at"):
        open_model(path)


USUAL = 'channels = "RGB"\nscale = "1/255"\nmean = [0.485, 0.456, 0.406]\nstd = [0.229, 0.224, 0.225]\n'

WRONG = {
    "order": USUAL.replace("RGB", "BGR"),
    "mean": USUAL.replace("0.485, 0.456, 0.406", "0.4, 0.5, 0.5"),
    "scale": USUAL.replace('"1/255"', "1"),
}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    Image.fromarray(IMAGES[0]).save(tmp_path / "image.png")
    return tmp_path / "image.png"


@pytest.mark.usefixtures("in_process")
def test_the_check_proves_a_description_by_a_reference(tmp_path: Path, image: Path) -> None:
    path = write_model(tmp_path, description=f'{USUAL}output = "patches"')
    reference = tmp_path / "features.npy"
    maps = features(backbone_spec(str(path)), "onnxruntime", IMAGES[:1])
    np.save(reference, maps.transpose(0, 3, 1, 2))  # as the network itself gives it
    found = check_model(path, image, reference, seconds=0)
    assert found.problems == ()
    assert found.cosine == pytest.approx(1)
    assert set(found.images_per_second) == set(SESSIONS)
    red = (IMAGES[0, ..., 0] / 255 - 0.485) / 0.229
    assert found.inputs[0] == pytest.approx((red.mean(), red.std()), abs=1e-5)
    for wrong in WRONG.values():
        write_model(tmp_path, description=f'{wrong}output = "patches"')
        (problem,) = check_model(path, image, reference, seconds=0).problems
        assert "not those of the reference" in problem
        assert 'channels = "RGB"\nscale = "1/255"\nmean = [0.485, 0.456, 0.406]' in problem


@pytest.mark.usefixtures("in_process")
def test_the_check_doubts_what_no_network_is_trained_with(tmp_path: Path, image: Path) -> None:
    path = write_model(tmp_path, description=USUAL)
    assert check_model(path, image, seconds=0).problems == ()
    for case, wrong in WRONG.items():
        write_model(tmp_path, description=wrong)
        (problem,) = check_model(path, image, seconds=0).problems
        assert ("in the other order" if case == "order" else "none of the usual ones") in problem


@pytest.mark.usefixtures("in_process")
def test_a_reference_that_does_not_fit_is_refused(tmp_path: Path, image: Path) -> None:
    path, reference = write_model(tmp_path, description=USUAL), tmp_path / "features.npy"
    np.save(reference, np.zeros((1, 7)))
    with pytest.raises(HeadstartError, match=r"has the shape \(1, 7\).*which is\s+1×1×5"):
        check_model(path, image, reference, seconds=0)
    np.save(reference, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(HeadstartError, match="cannot be read as a NumPy array"):
        check_model(path, image, reference, seconds=0)
    with reference.open("wb") as file:  # a header that claims a terabyte
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (2**38,)})
    with pytest.raises(HeadstartError, match="cannot be read as a NumPy array"):
        check_model(path, image, reference, seconds=0)


@pytest.mark.usefixtures("in_process")
def test_the_command_ends_with_1_where_a_description_is_wrong(
    tmp_path: Path, image: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_check, "per_second", lambda *_: 1.0)
    path = write_model(tmp_path, description=WRONG["order"])
    with pytest.raises(SystemExit) as end:
        make_app("backbones", "doctor")(["backbones", "check", str(path), "--image", str(image)])
    assert end.value.code == 1
    output = capsys.readouterr()
    assert "features: 1×1×5" in output.out
    assert "in the other order" in output.err
