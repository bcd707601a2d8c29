"""What every head promises, whatever its type."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from headstart.errors import HeadstartError
from headstart.heads.catalogue import default_spec, heads_for, make_head
from headstart.heads.class_mean import ClassMeanHead
from headstart.heads.dense import DenseHead
from headstart.heads.ensemble import EnsembleHead
from headstart.heads.linear import LinearSVM, LogisticHead
from headstart.heads.neighbours import NeighboursHead
from headstart.heads.ridge import RidgeHead
from headstart.heads.svm import LinearSVMHead, RBFSVMHead
from headstart.heads.transforms import BlockScaler, SqrtL2Scaler

pytestmark = pytest.mark.slow

#: A grid of two for each type.
GRIDS = {
    "dense": {"classifier__hidden": [(), (8,)]},
    "logistic": {"classifier__C": [0.1, 1.0]},
    "linear-svm": {"classifier__C": [0.1, 1.0]},
    "rbf-svm": {"classifier__gamma": ["scale", 0.1]},
    "ridge": {"classifier__alpha": [0.1, 1.0]},
    "knn": {"classifier__n_neighbors": [1, 5]},
    "nearest-class-mean": {"classifier__shrinkage": [0.1, 1.0]},
}


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    X, y = make_classification(
        150, 20, n_informative=8, n_classes=3, class_sep=2.0, n_clusters_per_class=1, random_state=0
    )
    return (X - X.min()).astype(np.float32), y


def unequal(estimator: object) -> dict[str, str]:
    """Checks that cannot hold exactly: folds and batches are drawn from the rows, and two rows are not one of weight 2."""
    kinds = ("dense", "sparse") if isinstance(estimator, DenseHead | LinearSVMHead | RBFSVMHead) else ()
    return {
        f"check_sample_weight_equivalence_on_{kind}_data": "folds or batches are drawn from the rows" for kind in kinds
    }


@parametrize_with_checks(
    [
        DenseHead(hidden=(8,), epochs=30, learning_rate=0.05, random_state=0),
        LinearSVM(tol=1e-12),
        LogisticHead(tol=1e-12),
        LinearSVMHead(random_state=0),
        RBFSVMHead(random_state=0),
        RidgeHead(),
        NeighboursHead(),
        NeighboursHead(metric="euclidean", class_weight="balanced"),
        ClassMeanHead(),
        EnsembleHead(members=({"type": "ridge"}, {"type": "logistic", "scaling": "l2"})),
        SqrtL2Scaler(),
        BlockScaler(),
        BlockScaler("standard"),
    ],
    expected_failed_checks=unequal,
)
def test_scikit_learn_conventions(estimator: object, check: object) -> None:
    check(estimator)


@pytest.mark.parametrize("name", heads_for("classification"))
def test_probabilities(name: str, data: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = data
    head = make_head(default_spec(name, features=["avg"])).fit(X, y)
    probabilities = head.predict_proba(X)
    assert probabilities.shape == (len(X), 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(head.predict(X), head.classes_[probabilities.argmax(axis=1)])
    assert head.score(X, y) > 0.8


@pytest.mark.parametrize("name", heads_for("classification"))
def test_the_same_seed_gives_the_same_head(name: str, data: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = data
    first, second = (
        make_head(default_spec(name, features=["avg"], random_state=3)).fit(X, y).predict_proba(X) for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", heads_for("classification"))
def test_heads_work_inside_scikit_learn(name: str, data: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = data
    head = make_head(default_spec(name, features=["avg"]))
    search = GridSearchCV(head, GRIDS[name], cv=2, n_jobs=2 if name == "logistic" else 1).fit(X, y)
    assert set(search.best_params_) == set(GRIDS[name])
    assert cross_val_score(make_pipeline(StandardScaler(), clone(head)), X, y, cv=2).shape == (2,)


@pytest.mark.parametrize("name", heads_for("classification"))
def test_labels_of_any_kind(name: str, data: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = data
    words = np.array(["ant", "bee", "cat"])[y]
    head = make_head(default_spec(name, features=["avg"])).fit(X, words)
    assert set(head.predict(X)) <= {"ant", "bee", "cat"}


@pytest.mark.parametrize("name", heads_for("classification"))
def test_an_unknown_parameter_is_refused_with_those_that_exist(name: str) -> None:
    with pytest.raises(HeadstartError, match=r"takes no depth\. It takes: \w+"):
        default_spec(name, features=["avg"], params={"depth": 3})


def test_an_unknown_head_is_refused_with_those_that_exist() -> None:
    with pytest.raises(HeadstartError, match="dense, logistic, linear-svm, rbf-svm"):
        default_spec("forest")
