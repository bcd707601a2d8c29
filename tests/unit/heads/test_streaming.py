"""Heads that are fitted on rows taken some at a time are those that are fitted on the whole matrix."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.exceptions import ConvergenceWarning

from headstart.errors import HeadstartError
from headstart.heads import out_of_core
from headstart.heads.catalogue import default_spec, make_head
from headstart.heads.out_of_core import (
    Memory,
    PackedRows,
    ReadRows,
    fit_streamed,
    matrix_fits,
    pack,
    packed_block,
)

pytestmark = pytest.mark.slow


def problem(n_classes=3, n_samples=240, n_features=30, seed=0):
    """Return rows, most of their values zero and all of them exact in float16, and labels."""
    rng = np.random.default_rng(seed)
    y = np.arange(n_samples) % n_classes
    centres = 2 * rng.random((n_classes, n_features)) * (rng.random((n_classes, n_features)) < 0.3)
    X = np.maximum(rng.normal(centres[y] - 0.8, 1.0), 0).astype(np.float16).astype(np.float32)
    return X, y


def streamed(X, y, head_type, *, memory=None, **options):
    head = make_head(default_spec(head_type, **options))
    rows = ReadRows(lambda numbers: X[numbers], X.shape)
    return fit_streamed(head, head_type, rows, y, memory or Memory())


def whole(X, y, head_type, **options):
    return make_head(default_spec(head_type, **options)).fit(X, y)


@pytest.fixture(params=["packed", "read"], autouse=True)
def kept(request, monkeypatch):
    """Pack the rows, or read them anew in every pass; in blocks of eight rows either way."""
    monkeypatch.setattr(out_of_core, "BLOCK_VALUES", 8 * 30)
    if request.param == "read":
        monkeypatch.setattr("headstart.heads.out_of_core.pack", lambda rows, max_bytes: None)


@pytest.mark.parametrize("scaling", ["none", "l2", "sqrt-l2", "standard"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_logistic_is_that_of_the_whole_matrix(scaling, n_classes):
    X, y = problem(n_classes)
    options = {"scaling": scaling, "params": {"C": 0.1, "class_weight": "balanced"}}
    ours, theirs = streamed(X, y, "logistic", **options), whole(X, y, "logistic", **options)
    np.testing.assert_allclose(ours[-1].coef_, theirs[-1].coef_, atol=2e-3)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-3)
    assert vars(ours[-1]).keys() == vars(theirs[-1]).keys()


@pytest.mark.parametrize("scaling", ["none", "l2", "sqrt-l2", "standard"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_ridge_is_that_of_the_whole_matrix(scaling, n_classes):
    X, y = problem(n_classes)
    options = {"scaling": scaling, "params": {"alpha": 0.5, "class_weight": "balanced"}}
    ours, theirs = streamed(X, y, "ridge", **options), whole(X, y, "ridge", **options)
    np.testing.assert_allclose(ours[-1].coef_, theirs[-1].coef_, atol=1e-5)
    np.testing.assert_allclose(ours[-1].intercept_, theirs[-1].intercept_, atol=1e-5)
    assert vars(ours[-1]).keys() == vars(theirs[-1]).keys()
    # Held-out scores of 24 rows instead of left-out scores of all 240: the temperature is of the same order.
    assert 1 / 3 < ours[-1].temperature_ / theirs[-1].temperature_ < 3


@pytest.mark.parametrize(
    "params",
    [{"views": 1}, {"views": 1, "early_stopping": True, "class_weight": "balanced"}, {"views": 3, "epochs": 20}],
)
def test_dense_takes_the_same_steps(params):
    X, y = problem()
    params = {"hidden": [8], "epochs": 5, **params}
    ours, theirs = streamed(X, y, "dense", params=params), whole(X, y, "dense", params=params)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-4)
    assert vars(ours[-1]).keys() == vars(theirs[-1]).keys()
    assert ours[-1].history_.keys() == theirs[-1].history_.keys()
    np.testing.assert_allclose(ours[-1].history_["loss"], theirs[-1].history_["loss"], rtol=1e-3)


@pytest.mark.parametrize(("head_type", "module"), [("logistic", "linear"), ("ridge", "ridge")])
def test_a_fit_that_runs_out_of_passes_says_so(head_type, module, monkeypatch):
    monkeypatch.setattr(f"headstart.heads.{module}.MAX_PASSES", 2)
    with pytest.warns(ConvergenceWarning, match="has not converged in 2 passes over the images"):
        streamed(*problem(), head_type)


@given(
    hnp.arrays(np.float32, (out_of_core.PACKED_ROWS + 3, 3), elements=st.sampled_from([0, 0, 1, -2.5, 0.1, 1e6])),
    st.lists(st.integers(0, out_of_core.PACKED_ROWS + 2), min_size=1),
)
def test_packed_rows_are_the_rows(X, numbers):
    rows = pack(ReadRows(lambda some: X[some], X.shape), np.inf)
    np.testing.assert_array_equal(rows.take(np.array(numbers)).toarray(), X[numbers])
    assert rows.shape == X.shape


def test_packed_rows_of_a_cache_take_four_bytes_a_value():
    X = problem()[0]
    rows = PackedRows(X.shape[1])
    rows.append(packed_block(X))
    assert rows.n_bytes == 4 * np.count_nonzero(X) + 8 * (len(X) + 1)


def test_wide_rows_are_packed_a_few_at_a_time():
    asked = []
    X = np.eye(5, 100, dtype=np.float32)  # 240 numbers at a time here: two rows
    rows = pack(ReadRows(lambda some: asked.append(len(some)) or X[some], X.shape), np.inf)
    assert sorted(asked) == [1, 2, 2]  # by several threads
    np.testing.assert_array_equal(rows.take(np.array([4, 0])).toarray(), X[[4, 0]])


def test_rows_that_do_not_fit_are_not_packed():
    X = problem()[0]
    rows = ReadRows(lambda some: X[some], X.shape)
    assert pack(rows, 3 * np.count_nonzero(X)) is None


@pytest.mark.parametrize("head_type", ["logistic", "ridge", "dense"])
def test_the_bound_chooses(head_type):
    memory = Memory(2**34)
    assert matrix_fits(head_type, (1000, 25_088), memory)
    assert not matrix_fits(head_type, (200_000, 25_088), memory)


@pytest.mark.parametrize("head_type", ["linear-svm", "rbf-svm", "knn", "sklearn.naive_bayes.GaussianNB"])
def test_a_head_that_needs_the_whole_matrix_says_what_to_do(head_type):
    with pytest.raises(HeadstartError, match=r"need about .* GiB.*features=\['avg'\].*dense, logistic, ridge"):
        matrix_fits(head_type, (200_000, 25_088), Memory(2**32))


def test_a_bound_below_the_work_space_is_refused():
    with pytest.raises(HeadstartError, match="more than there is"):
        streamed(*problem(), "logistic", memory=Memory(2**20))
