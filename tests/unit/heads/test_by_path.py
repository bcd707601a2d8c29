from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin

from fakes import FakeBackbone
from headstart.bundles.bundle import Bundle, load_bundle, save_bundle
from headstart.bundles.trusted_types import check_savable
from headstart.errors import BundleError, DataError, HeadstartError, ParameterError
from headstart.heads.catalogue import default_spec, make_head
from headstart.heads.head_specs import fit_with_checks
from headstart.heads.transforms import design_matrix
from headstart.types import FeatureBatch

IMAGES = np.random.default_rng(0).integers(0, 256, (24, 35, 35, 3), dtype=np.uint8)
LABELS = np.repeat([0, 2], 12)

SAVED = {
    "sklearn.naive_bayes.GaussianNB": {"var_smoothing": 1e-3},
    "sklearn.discriminant_analysis.LinearDiscriminantAnalysis": {"solver": "lsqr", "shrinkage": "auto"},
    "sklearn.neural_network.MLPClassifier": {"hidden_layer_sizes": [5], "max_iter": 5},
    "sklearn.linear_model.RidgeClassifier": {},
    "sklearn.neighbors.KNeighborsClassifier": {"algorithm": "brute"},
    "sklearn.gaussian_process.GaussianProcessClassifier": {},
    "sklearn.linear_model.SGDClassifier": {"loss": "log_loss"},
}


@pytest.fixture(scope="module")
def batch() -> FeatureBatch:
    return FakeBackbone().forward(IMAGES)


def bundle_of(path: str, params: dict[str, Any], batch: FeatureBatch) -> Bundle:
    spec = default_spec(path, params=params)
    head = make_head(spec).fit(design_matrix([batch], spec.features), LABELS)
    return Bundle(head, spec, FakeBackbone().recipe, ("ant", "bee", "cat"))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("path", list(SAVED))
def test_a_classifier_of_scikit_learn_is_fitted_saved_and_comes_back(
    path: str, batch: FeatureBatch, tmp_path: Path
) -> None:
    before = bundle_of(path, SAVED[path], batch)
    check_savable(before.spec)
    after = load_bundle(save_bundle(tmp_path / "head", before, metrics={}))
    assert after.spec == before.spec
    probabilities = before.predict_proba([batch], before.recipe)
    np.testing.assert_array_equal(after.predict_proba([batch], before.recipe), probabilities)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


def test_a_classifier_without_probabilities_is_calibrated(batch: FeatureBatch) -> None:
    head = bundle_of("sklearn.svm.LinearSVC", {"C": 0.5}, batch).head.steps[-1][1]
    assert type(head).__name__ == "CalibratedClassifierCV"
    assert (head.estimator.C, head.estimator.random_state, head.cv.random_state) == (0.5, 0, 0)


def test_the_seed_is_handed_on_where_one_is_taken() -> None:
    assert (
        make_head(default_spec("sklearn.linear_model.SGDClassifier", params={"loss": "log_loss"}, random_state=7))[
            -1
        ].random_state
        == 7
    )


@pytest.mark.parametrize(
    ("path", "match"),
    [
        ("sklearn.naive_bayes.Gauss", "There is no classifier sklearn.naive_bayes.Gauss"),
        ("no_such_package.Classifier", "There is no classifier no_such_package"),
        ("sklearn.linear_model.Ridge", "is no classifier"),
        ("sklearn.base.clone", "is no classifier"),
        ("os.system", "is no classifier"),
        ("sklearn..GaussianNB", "not an import path"),
        ("sklearn.naive_bayes.GaussianNB()", "not an import path"),
        ("sklearn.ensemble.VotingClassifier", "estimators"),
    ],
)
def test_what_is_no_classifier_is_refused(path: str, match: str) -> None:
    with pytest.raises(ParameterError, match=match):
        default_spec(path)


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"depth": 3}, r"takes no depth\. It takes: priors, var_smoothing"),
        ({"smoothing": 3}, r"It takes: priors, var_smoothing\. Did you mean var_smoothing\?"),
        ({"var_smoothing": -1.0}, "var_smoothing"),
        ({"priors": {1, 2}}, "Expected: a number"),
        ({"var_smoothing": float("nan")}, "Expected: a number"),
    ],
)
def test_parameters_are_checked_by_the_classifier_before_a_fit(params: dict[str, Any], match: str) -> None:
    with pytest.raises(ParameterError, match=match):
        default_spec("sklearn.naive_bayes.GaussianNB", params=params)


def test_what_the_rows_do_not_allow_is_said_in_words() -> None:
    path = "sklearn.naive_bayes.MultinomialNB"
    with pytest.raises(DataError, match="MultinomialNB cannot be fitted on these features: Negative values"):
        fit_with_checks(make_head(default_spec(path)), path, -np.eye(4), np.array([0, 0, 1, 1]))


def test_trees_are_refused_before_the_fit() -> None:
    with pytest.raises(BundleError, match=r"RandomForestClassifier cannot be saved.*tree\._tree\.Tree.*output=None"):
        check_savable(default_spec("sklearn.ensemble.RandomForestClassifier"))


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> str:
    class Foreign(ClassifierMixin, BaseEstimator):
        def fit(self, X: Any, y: Any) -> Foreign:
            self.classes_ = np.unique(y)
            return self

        def predict_proba(self, X: Any) -> np.ndarray:
            return np.full((len(X), len(self.classes_)), 1 / len(self.classes_))

    module = types.ModuleType("foreign_package")
    module.Foreign = Foreign  # type: ignore[attr-defined]
    Foreign.__module__, Foreign.__qualname__ = "foreign_package", "Foreign"
    monkeypatch.setitem(sys.modules, "foreign_package", module)
    return "foreign_package.Foreign"


def test_a_class_of_other_people_can_be_fitted_but_not_saved(foreign: str, batch: FeatureBatch, tmp_path: Path) -> None:
    bundle = bundle_of(foreign, {}, batch)
    assert bundle.predict_proba([batch], bundle.recipe).shape == (24, 3)
    with pytest.raises(BundleError, match="only scikit-learn's own"):
        check_savable(bundle.spec)
    with pytest.raises(BundleError, match=r"foreign_package\.Foreign"):
        save_bundle(tmp_path / "head", bundle, metrics={})
    assert not list(tmp_path.iterdir())


def test_a_bundle_that_names_code_of_other_people_does_not_import_it(batch: FeatureBatch, tmp_path: Path) -> None:
    folder = save_bundle(tmp_path / "head", bundle_of("sklearn.naive_bayes.GaussianNB", {}, batch), metrics={})
    (tmp_path / "evil_package.py").write_text("raise SystemExit('imported')")
    metadata = json.loads((folder / "bundle.json").read_text())
    metadata["spec"]["type"] = "evil_package.Classifier"
    (folder / "bundle.json").write_text(json.dumps(metadata))
    sys.path.insert(0, str(tmp_path))
    try:
        with pytest.raises(BundleError, match=r"evil_package\.Classifier is none of scikit-learn's"):
            load_bundle(folder)
    finally:
        sys.path.remove(str(tmp_path))
    assert "evil_package" not in sys.modules


@pytest.mark.parametrize("path", ["sklearn.naive_bayes.BernoulliNB", "sklearn.svm.LinearSVC", "sklearn.no.Such"])
def test_a_head_of_another_class_than_its_bundle_says_is_refused(
    path: str, batch: FeatureBatch, tmp_path: Path
) -> None:
    folder = save_bundle(tmp_path / "head", bundle_of("sklearn.linear_model.RidgeClassifier", {}, batch), metrics={})
    metadata = json.loads((folder / "bundle.json").read_text())
    metadata["spec"]["type"] = path
    (folder / "bundle.json").write_text(json.dumps(metadata))
    with pytest.raises(HeadstartError, match="holds no head of this kind"):
        load_bundle(folder)
