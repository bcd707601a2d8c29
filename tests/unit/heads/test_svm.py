from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from sklearn.svm import SVC

from headstart.heads.svm import RBFSVMHead


def rows() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    X = 2.0 * rng.random((60, 5)) + np.eye(3, 5)[y]
    return X * (rng.random(X.shape) < 0.8), y


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
@pytest.mark.parametrize("gamma", ["scale", "auto", 0.3])
def test_the_factor_multiplies_what_scikit_learn_takes_gamma_for(gamma: str | float, form) -> None:
    X, y = rows()
    head = RBFSVMHead(gamma=gamma, gamma_factor=2.5).fit(form(X), y)
    assert head.gamma_ == pytest.approx(2.5 * SVC(gamma=gamma).fit(form(X), y)._gamma)


def test_without_a_factor_gamma_goes_to_scikit_learn_as_it_is() -> None:
    assert RBFSVMHead().fit(*rows()).gamma_ == "scale"
