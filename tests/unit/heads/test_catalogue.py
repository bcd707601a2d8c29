from __future__ import annotations

import inspect
import runpy
from pathlib import Path

import pytest

from headstart.heads.catalogue import HEAD_TYPES, TUTORIAL, HeadType, default_spec, head_kind, heads_with, make_head
from headstart.heads.dense import DenseHead
from headstart.heads.head_specs import imported
from headstart.selection.comparison_setup import CompareOptions
from headstart.selection.search import what_to_search


@pytest.mark.parametrize("name", list(HEAD_TYPES))
def test_every_value_of_a_grid_is_one_that_the_head_takes(name: str) -> None:
    kind = HEAD_TYPES[name]
    assert kind.grid
    for parameter, values in kind.grid.items():
        assert kind.params[parameter].default in values, "a search must not miss what a plain fit would have used"
        assert list(values) == sorted(set(values))
        for value in values:
            spec = default_spec(name, params={parameter: value})
            assert make_head(spec).get_params()[f"classifier__{parameter}"] == value


@pytest.mark.parametrize("name", list(HEAD_TYPES))
def test_every_default_is_a_value_that_the_head_takes(name: str) -> None:
    parameters = HEAD_TYPES[name].params
    assert all(parameter.kind.accepts(parameter.default) for parameter in parameters.values())


def test_on_features_that_are_not_scaled_a_dense_head_is_the_tutorials_in_full() -> None:
    spec = default_spec("dense", scaling="none", random_state=3)
    assert (spec.features, spec.scaling) == (("flatten",), "none")
    head = make_head(spec).named_steps["classifier"]
    assert head.get_params() == DenseHead(random_state=3).get_params()
    assert (head.hidden, head.activation, head.dropout, head.l2) == ((256,), "relu", 0, 0)
    assert (head.epochs, head.batch_size, head.learning_rate, head.schedule) == (10, 32, 0.001, "constant")
    chosen = default_spec("dense", features=["avg"], scaling="none", params={"epochs": 3})
    assert chosen.features == ("avg",)
    assert make_head(chosen).get_params()["classifier__epochs"] == 3


def test_the_dense_head_is_otherwise_trained_as_it_predicts_best() -> None:
    spec = default_spec("dense")
    head = make_head(spec).named_steps["classifier"]
    assert (spec.features, spec.scaling, head.hidden) == (("crops",), "l2", (256,))
    assert (head.epochs, head.learning_rate, head.schedule) == (40, 0.003, "linear")


@pytest.mark.parametrize(
    ("features", "params", "views"),
    [
        (["crops"], {}, 5),
        (["crops"], {"views": 1}, 1),
        (["avg"], {}, 1),
        (["crops", "block4_conv3"], {}, 1),  # what is joined is no view
    ],
)
def test_crops_alone_are_views_of_an_image(features: list[str], params: dict[str, int], views: int) -> None:
    spec = default_spec("dense", features=features, params=params)
    assert make_head(spec).named_steps["classifier"].views == views


def test_the_tutorials_grid_has_the_tutorials_values() -> None:
    for parameter, values in TUTORIAL.grid.items():
        assert TUTORIAL.params[parameter].default in values
        assert list(values) == sorted(set(values))
    assert head_kind("dense", "none") is TUTORIAL
    assert head_kind("ridge", "none") is HEAD_TYPES["ridge"]


@pytest.mark.parametrize("name", list(HEAD_TYPES))
def test_an_entry_agrees_with_its_estimator(name: str) -> None:
    kind = HEAD_TYPES[name]
    estimator = imported(kind.estimator)
    taken = set(inspect.signature(estimator).parameters)
    assert set(kind.params) <= taken
    assert f"{estimator.__module__}.{estimator.__qualname__}" == kind.estimator, "saved files name it so"
    assert hasattr(estimator, "fit_rows") == hasattr(estimator, "streaming_bytes")
    assert kind.keras == hasattr(estimator, "load_network")
    if kind.grid_solver:
        assert callable(imported(kind.grid_solver))


def test_a_list_from_a_file_is_a_tuple_of_the_estimator() -> None:
    spec = default_spec("dense", params={"hidden": [8, 4]})
    assert make_head(spec).named_steps["classifier"].hidden == (8, 4)


def test_what_is_searched_by_default_is_in_the_catalogue() -> None:
    searched = {name: what_to_search(name) for name in (*HEAD_TYPES, "sklearn.naive_bayes.GaussianNB")}
    by_default = {name for name, what in searched.items() if what != "none"}
    assert by_default == {"logistic", "linear-svm", "ridge", "ridge-regression", "ordinal-ridge"}
    assert CompareOptions().heads[-2:] == ("nearest-class-mean", "majority")
    assert heads_with("fit_rows") == ["dense", "logistic", "ridge"]
    assert heads_with("to_layers") == [
        "dense",
        "logistic",
        "linear-svm",
        "ridge",
        "nearest-class-mean",
        "ordinal-ridge",
    ]


def test_a_head_without_a_grid_has_nothing_to_search() -> None:
    assert HeadType(estimator="module.Class").grid == {}


def test_the_page_has_every_parameter_as_it_is_now() -> None:
    docs = Path(__file__).resolve().parents[3] / "docs"
    page = runpy.run_path(str(docs / "make_heads.py"))["page"]
    assert (docs / "heads.md").read_text(encoding="utf-8") == page(), "make docs writes docs/heads.md anew"
