"""Predictions of heads for numbers with many settings; work that the settings share is done once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from headstart.heads.grid_predictions import Division, Outcome, Settings, grouped
from headstart.heads.regression.number_heads import standardised
from headstart.heads.ridge import ridge_path


def along_ridge(rows: Division, settings: Settings) -> Iterator[Outcome]:
    """Yield the outcomes of ridge regression; one decomposition serves every alpha."""
    wanted, mean, scale = standardised(rows.y, rows.weights)
    for group in grouped(settings, "alpha"):
        alphas = [settings[number]["alpha"] for number in group]
        path = ridge_path(rows.X, wanted[:, None], alphas, weights=rows.weights)
        for number, coef, intercept in zip(group, path.coefs, path.intercepts, strict=True):
            yield Outcome(number, mean + scale * (rows.X_test @ coef[0] + intercept[0]))


def along_kernel_ridge(rows: Division, settings: Settings) -> Iterator[Outcome]:
    """Yield the outcomes of kernel ridge; one kernel serves every alpha."""
    wanted, mean, scale = standardised(rows.y, rows.weights)
    root = np.ones(len(wanted)) if rows.weights is None else np.sqrt(rows.weights)
    for numbers, kernel, kernel_test in kernels(rows, settings, "alpha"):
        weighted = kernel * np.outer(root, root)
        for number in numbers:
            system = weighted + settings[number]["alpha"] * np.eye(len(root))
            dual = root * linalg.solve(system, root * wanted, assume_a="pos")
            yield Outcome(number, mean + scale * (kernel_test @ dual))


def along_svr(rows: Division, settings: Settings) -> Iterator[Outcome]:
    """Yield the outcomes of SVR; one kernel serves every C."""
    from sklearn.svm import SVR

    wanted, mean, scale = standardised(rows.y, rows.weights)
    for numbers, kernel, kernel_test in kernels(rows, settings, "C"):
        for number in numbers:
            svr = SVR(C=settings[number]["C"], epsilon=settings[number]["epsilon"], kernel="precomputed")
            svr.fit(kernel, wanted, sample_weight=rows.weights)
            yield Outcome(number, mean + scale * svr.predict(kernel_test))


def kernels(
    rows: Division, settings: Settings, along: str
) -> Iterator[tuple[list[int], NDArray[np.float64], NDArray[np.float64]]]:
    """Yield the places of settings that share an RBF kernel, that of the rows to fit on, and that of the rows to predict."""
    from sklearn.metrics.pairwise import euclidean_distances

    among: Any = euclidean_distances(rows.X, squared=True)
    between: Any = euclidean_distances(rows.X_test, rows.X, squared=True)
    for group in grouped(settings, along):
        setting = settings[group[0]]
        gamma = setting["gamma_factor"] * rows.gamma(setting["gamma"])
        yield group, np.exp(-gamma * among), np.exp(-gamma * between)
