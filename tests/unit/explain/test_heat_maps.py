"""Heat maps where the truth is known: one cell of an image, in its upper left quadrant, decides the class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fakes import FakeBackbone
from headstart.backbones.registry import ViewsBackbone
from headstart.bundles.bundle import Bundle
from headstart.decisions.cutoffs import Cutoff
from headstart.decisions.rule import DecisionRule
from headstart.errors import ParameterError, RecipeMismatchError
from headstart.explain.explanations import Explanation, explain_images
from headstart.explain.heat_maps import activation_layer, covered, grid_of, scores_of
from headstart.heads.base import outputs_of
from headstart.heads.catalogue import HEAD_TYPES, default_spec, head_kind, make_head
from headstart.heads.transforms import design_matrix
from headstart.predict import Predictor, collect_images
from headstart.types import Backbone, FeatureBatch, HeadSpec

#: The head of a test is fitted on images of these classes; that of ``plain`` has no coloured cell.
NAMES = ("plain", "red", "nothing", "green")
COLOURS = {1: (255, 0, 0), 3: (0, 255, 0)}

#: Where the coloured cell of the explained image is, of 7 rows and columns.
ROW, COLUMN = 1, 2


def image(seed: int, label: int, row: int, column: int) -> NDArray[np.uint8]:
    """Dim noise; of a class with a colour, one cell has it."""
    pixels = np.random.default_rng(seed).integers(90, 110, (35, 35, 3), dtype=np.uint8)
    if label in COLOURS:
        pixels[5 * row : 5 * row + 5, 5 * column : 5 * column + 5] = COLOURS[label]
    return pixels


def training(labels: Sequence[int]) -> NDArray[np.uint8]:
    """The coloured cell lies anywhere in the upper left quadrant."""
    return np.stack([image(i, label, i % 3, i // 3 % 3) for i, label in enumerate(labels)])


def head_of(spec: HeadSpec, labels: Sequence[int], *backbones: Backbone) -> Predictor:
    found = backbones or (FakeBackbone(),)
    pixels = training(labels)
    first, *others = (
        one.forward(np.kron(pixels, np.ones((1, size // 35, size // 35, 1), np.uint8)))
        for one, size in ((one, one.recipe.input_size_px) for one in found)
    )
    batch = replace(first, others=tuple(others))
    X, y, task = design_matrix([batch], spec.features), np.array(labels), head_kind(spec.type).task
    used = y == 0 if task == "anomaly" else slice(None)  # these learn from normal images only
    head = make_head(spec).fit(X[used], y[used])
    recipes = [one.recipe for one in found]
    names = ("target",) if task == "regression" else NAMES
    bundle = Bundle(head, spec, recipes[0], names, joined_recipes=tuple(recipes[1:]))
    return Predictor(bundle, backbone=list(found))


def explained(predictor: Predictor, label: int = 1, **options: Any) -> Explanation:
    (one,) = explain_images(predictor, image(99, label, ROW, COLUMN), **options)
    assert one.heat_map is not None
    return one


def place(one: Explanation) -> tuple[int, ...]:
    """Where the largest value is."""
    assert one.heat_map is not None
    return tuple(map(int, np.unravel_index(one.heat_map.values.argmax(), one.heat_map.values.shape)))


TWO, THREE = [0, 1] * 12, [0, 1, 3] * 9


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * kind.keras) for name, kind in HEAD_TYPES.items()]
)
def test_occlusion_finds_the_cell_that_decides_for_every_head(name: str) -> None:
    spec = default_spec(name, params={"epochs": 100, "learning_rate": 0.01} if HEAD_TYPES[name].keras else None)
    predictor = head_of(spec, TWO)
    one = explained(predictor)
    assert one.method == "occlusion"
    assert one.class_name == predictor.class_names[one.output or 0]
    assert place(one) == (ROW, COLUMN)
    assert one.heat_map is not None
    outputs = predictor.probabilities(loaded(predictor))
    np.testing.assert_allclose(one.heat_map.score, scores_of(outputs, one.output or 0)[0], rtol=1e-3)


def loaded(predictor: Predictor) -> Any:
    root, found = collect_images(image(99, 1, ROW, COLUMN))
    ((images, _),) = predictor.batches(root, [ref for _, ref in found])
    return list(images.values())


@pytest.mark.parametrize("scaling", ["standard", "none"])
@pytest.mark.parametrize("name", ["logistic", "linear-svm", "ridge", "nearest-class-mean", "ordinal-ridge"])
def test_class_activation_adds_up_to_the_log_odds(name: str, scaling: str) -> None:
    check_activation(default_spec(name, scaling=scaling))


@pytest.mark.slow
def test_a_dense_head_without_hidden_layers_is_linear_and_one_with_them_is_not() -> None:
    params = {"epochs": 100, "learning_rate": 0.01}
    spec = default_spec("dense", scaling="standard", features=["avg"], params={**params, "hidden": ()})
    check_activation(spec)
    one = explained(head_of(replace(spec, params={**params, "hidden": (8,)}), TWO))
    assert (one.method, place(one)) == ("occlusion", (ROW, COLUMN))
    views = head_of(replace(spec, params={**params, "hidden": (), "views": 2}), TWO)
    assert explained(views).method == "occlusion"  # a mean of two softmaxes


def test_sigmoids_that_are_divided_by_their_sum_are_not_linear(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = head_of(default_spec("linear-svm", scaling="standard"), TWO)
    classifier = predictor.bundle.head.steps[-1][1]
    (layer,) = classifier.to_layers()
    assert activation_layer(predictor.bundle) is not None
    monkeypatch.setattr(classifier, "to_layers", lambda: (replace(layer, normalised=True),))
    assert activation_layer(predictor.bundle) is None


def check_activation(spec: HeadSpec) -> None:
    one = explained(head_of(spec, TWO))
    assert one.method == "cam"
    assert one.heat_map is not None
    np.testing.assert_allclose(one.heat_map.values.mean() + one.heat_map.constant, one.heat_map.score)
    np.testing.assert_allclose(one.heat_map.score, np.log(one.value / (1 - one.value)), rtol=1e-3)  # float32 layers
    assert place(one) == (ROW, COLUMN)


def test_class_activation_is_coefficients_times_the_scaled_map() -> None:
    predictor = head_of(default_spec("logistic", scaling="standard"), TWO)
    scaler, classifier = (step for _, step in predictor.bundle.head.steps)
    features = FakeBackbone().forward(image(99, 1, ROW, COLUMN)[None]).features[0]
    expected = ((features - scaler.mean_) / scaler.scale_) @ classifier.coef_[0]
    for name, sign in (("red", 1), ("plain", -1)):
        one = explained(predictor, class_name=name)
        assert one.heat_map is not None
        np.testing.assert_allclose(one.heat_map.values, sign * expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(one.heat_map.constant, sign * classifier.intercept_[0], rtol=1e-5)


def test_class_activation_of_more_classes_is_the_mean_log_ratio_to_the_others() -> None:
    predictor = head_of(default_spec("logistic", scaling="standard"), THREE)
    one = explained(predictor, 3)
    assert (one.class_name, one.method, place(one)) == ("green", "cam", (ROW, COLUMN))
    assert one.heat_map is not None
    assert one.prediction.probabilities is not None
    logs = np.log(one.prediction.probabilities[[0, 1, 3]])
    np.testing.assert_allclose(one.heat_map.score, logs[2] - logs[:2].mean(), rtol=1e-4)


def test_a_linear_head_is_occluded_by_its_activation_less_the_mean_activation() -> None:
    predictor = head_of(default_spec("ridge", scaling="standard"), TWO)
    exact, occluded = (explained(predictor, method=method).heat_map for method in ("cam", "occlusion"))
    assert exact is not None
    assert occluded is not None
    np.testing.assert_allclose(occluded.values, (exact.values - exact.values.mean()) / 49, rtol=1e-2, atol=1e-3)


def test_another_class_than_the_predicted_one_has_the_opposite_map() -> None:
    predictor = head_of(default_spec("logistic"), TWO)
    red, plain = (explained(predictor, class_name=name).heat_map for name in ("red", "plain"))
    assert red is not None
    assert plain is not None
    np.testing.assert_allclose(plain.values, -red.values, atol=1e-9)


def test_the_class_that_a_threshold_decides_for_is_explained() -> None:
    predictor = head_of(default_spec("logistic"), TWO)
    assert explained(predictor).class_name == "red"
    rule = DecisionRule(Cutoff("plain", 1e-6, "recall=0.99"))
    careful = Predictor(replace(predictor.bundle, decision=rule), backbone=predictor.backbones)
    assert explained(careful).class_name == "plain"
    assert explained(careful, class_name="red").class_name == "red"


@pytest.mark.parametrize("views", ["flips", "dihedral"])
def test_averaged_views_keep_the_position(views: str) -> None:
    predictor = head_of(default_spec("logistic"), TWO, ViewsBackbone(FakeBackbone(), views))
    for method in ("occlusion", "occlusion-pixels"):
        assert place(explained(predictor, method=method)) == (ROW, COLUMN)
    exact = head_of(default_spec("logistic", scaling="none"), TWO, ViewsBackbone(FakeBackbone(), views))
    assert place(explained(exact, method="cam")) == (ROW, COLUMN)


def test_pixels_are_occluded_where_inner_layers_decide_too() -> None:
    spec = replace(default_spec("logistic"), features=("block4_conv3", "avg"))
    predictor = head_of(spec, TWO)
    one = explained(predictor)
    assert (one.method, one.missing, place(one)) == ("occlusion-pixels", "", (ROW, COLUMN))
    partial = explained(predictor, method="occlusion")
    assert "inner layers block4_conv3 is not shown" in partial.missing
    inner = head_of(replace(spec, features=("block4_conv3",)), TWO)
    with pytest.raises(ParameterError, match="logistic on block4_conv3 of 1 backbones"):
        explained(inner, method="occlusion")


def test_pixels_are_occluded_for_joined_features() -> None:
    larger = FakeBackbone(replace(FakeBackbone().recipe, input_size_px=70))
    spec = replace(default_spec("logistic"), features=("1:avg", "2:avg"), widths=(16, 16))
    predictor = head_of(spec, TWO, FakeBackbone(), larger)
    one = explained(predictor)
    assert (one.method, place(one)) == ("occlusion-pixels", (ROW, COLUMN))
    for method in ("cam", "occlusion"):
        with pytest.raises(ParameterError, match="one backbone"):
            explained(predictor, method=method)


def test_an_ensemble_is_occluded_as_a_whole() -> None:
    members = [{"type": "logistic"}, {"type": "ridge", "scaling": "standard"}]
    one = explained(head_of(HeadSpec("ensemble", ("avg",), "none", params={"members": members}), TWO))
    assert (one.method, place(one)) == ("occlusion", (ROW, COLUMN))


def test_a_flattened_map_knows_positions() -> None:
    one = explained(head_of(replace(default_spec("ridge"), features=("flatten",)), TWO))
    assert (one.method, place(one)) == ("occlusion", (ROW, COLUMN))


def test_probabilities_of_exactly_0_and_1_have_finite_scores() -> None:
    predictor = head_of(HeadSpec("sklearn.tree.DecisionTreeClassifier", ("avg",), "none"), TWO)
    one = explained(predictor)
    assert one.value == 1.0
    assert one.heat_map is not None
    assert np.isfinite(one.heat_map.values).all()
    assert place(one) == (ROW, COLUMN)


def test_scores_of_a_very_sure_head_still_differ() -> None:
    scores = scores_of(np.array([[1.0, 1e-20], [1.0, 1e-30]]), 0)
    np.testing.assert_allclose(scores, np.log(10) * np.array([20, 30]))


class Vectors(FakeBackbone):
    """A network without positions."""

    def forward(self, images: NDArray[np.uint8]) -> FeatureBatch:
        batch = super().forward(images)
        return replace(batch, features=batch.features.mean(axis=(1, 2), keepdims=True))


def test_a_network_without_a_map_is_explained_by_its_pixels() -> None:
    predictor = head_of(default_spec("logistic", scaling="none"), TWO, Vectors())
    one = explained(predictor)
    assert (one.method, place(one)) == ("occlusion-pixels", (ROW, COLUMN))
    with pytest.raises(ParameterError, match="a map side of 1"):
        explained(predictor, method="occlusion")


def test_large_maps_are_occluded_in_blocks_that_cover_all() -> None:
    assert grid_of(224, 20) == (14, 14)
    assert grid_of(9, 3) == (9, 3)
    values = np.zeros((20, 9, 1))
    edges = np.linspace(0, 1, 15)
    for start, end in pairwise(edges.tolist()):
        values += covered(np.zeros((20, 9, 1)), ((start, end), (0.0, 1.0)), 1.0)
    assert (values == 1).all()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("knn", {"method": "cam"}, r"linear in avg alone.*knn on avg \(scaling sqrt-l2\).*`method='auto'`"),
        ("logistic", {"method": "lime"}, "no method 'lime'.*auto, cam, occlusion"),
        ("logistic", {"class_name": "rde"}, "no image of a class 'rde'.*plain, red.*mean red"),
        ("logistic", {"class_name": "nothing"}, "no image of a class 'nothing'"),
        ("ridge-regression", {"class_name": "red"}, "predicts a number.*Leave out `class_name`"),
    ],
)
def test_what_cannot_be_explained_is_refused(name: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        explained(head_of(default_spec(name), TWO), **options)


def test_imported_features_cannot_be_explained() -> None:
    bundle = head_of(default_spec("logistic"), TWO).bundle
    foreign = replace(bundle, recipe=replace(bundle.recipe, backbone="foreign:mine"))
    with pytest.raises(RecipeMismatchError, match="headstart cannot run"):
        explain_images(foreign, image(0, 1, 0, 0))


def test_an_image_that_cannot_be_read_is_among_the_others(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    predictor = head_of(default_spec("logistic"), TWO)
    good = image(99, 1, ROW, COLUMN)
    found = list(explain_images(predictor, [good, tmp_path / "bad.png", good]))
    assert [bool(one.prediction.failure) for one in found] == [False, True, False]
    assert np.isnan(found[1].value)
    assert found[1].heat_map is None
    np.testing.assert_array_equal(found[0].pixels, good)


def test_outputs_are_those_of_predictions() -> None:
    predictor = head_of(default_spec("logistic"), TWO)
    pixels = image(99, 1, ROW, COLUMN)
    X = design_matrix([FakeBackbone().forward(pixels[None])], ("avg",))
    expected = outputs_of(predictor.bundle.head, X, len(NAMES))[0]
    (one,) = explain_images(predictor, [pixels])
    assert one.prediction.probabilities is not None
    np.testing.assert_allclose(one.prediction.probabilities, expected)
    assert one.value == expected.max()
