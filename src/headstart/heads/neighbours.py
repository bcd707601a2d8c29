"""The classes of the nearest images."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.validation import validate_data

from headstart.heads.base import Head, encode


class NeighboursHead(Head):
    """The classes of the nearest rows, nearer ones with more weight, and probabilities that are never 0.

    A neighbour at distance d weighs ``exp(−(d² − d₁²) / d̄²)``: d₁ is the distance of the nearest row and d̄² the mean
    squared distance of the neighbours, so that nothing depends on the unit of the features. To the neighbours' weights,
    ``smoothing`` rows are added that are divided as the training classes are (a Dirichlet prior): without them, a class
    that is not among the neighbours would have probability 0, and one such image an infinite log-loss.

    Parameters
    ----------
    n_neighbors : int
        Number of neighbors; all rows where there are fewer.
    metric : "cosine" or "euclidean"
        Distance between rows.
    smoothing : float
        Pseudo-count of rows, above 0.
    class_weight : None, "balanced" or mapping
        Weights of neighbours by class, as in scikit-learn.

    Attributes
    ----------
    rows_, labels_ : ndarray or CSR matrix of shape (n_samples, n_features), ndarray of shape (n_samples,), int64
        The training rows, and the index of each one's class in ``classes_``.
    class_weight_, prior_ : ndarray of shape (n_classes,), float64
        Weight of a row of each class, and share of each class in the weights of all rows.
    """

    _sparse = True

    def __init__(
        self, n_neighbors: int = 10, *, metric: str = "cosine", smoothing: float = 0.1, class_weight: Any = None
    ) -> None:
        self.n_neighbors = n_neighbors
        self.metric = metric
        self.smoothing = smoothing
        self.class_weight = class_weight

    def fit(self, X: Any, y: Any) -> NeighboursHead:
        """Keep rows of features, an array or CSR matrix of shape (n_samples, n_features), and their labels."""
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=(np.float64, np.float32))
        self.classes_, labels = encode(y)
        self.rows_, self.labels_ = X.copy(), labels
        self.class_weight_ = compute_class_weight(self.class_weight, classes=self.classes_, y=y)
        shares = np.bincount(labels) * self.class_weight_
        self.prior_ = shares / shares.sum()
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return probabilities of shape (n_samples, n_classes), float64, in the order of ``classes_``."""
        X = self._validated(X)
        search = NearestNeighbors(
            n_neighbors=min(self.n_neighbors, self.rows_.shape[0]), metric=self.metric, algorithm="brute"
        ).fit(self.rows_)
        distances, indices = search.kneighbors(X)
        distances = distances.astype(np.float64)
        weights = _nearness(distances if self.metric == "cosine" else distances**2)
        counts = np.tile(self.smoothing * self.prior_, (len(indices), 1))
        for labels, weight in zip(self.labels_[indices].T, weights.T, strict=True):  # the nearest ones, the next …
            counts[np.arange(len(counts)), labels] += weight * self.class_weight_[labels]
        probabilities: NDArray[np.float64] = counts / counts.sum(axis=1, keepdims=True)
        return probabilities


def _nearness(squared: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return weights of neighbours, 1 for the nearest, from squared distances sorted in each row.

    The cosine distance is half the squared distance of rows of length 1; a factor changes nothing here.
    """
    scale = squared.mean(axis=1, keepdims=True)
    return np.exp(-(squared - squared[:, :1]) / np.where(scale > 0, scale, 1.0))
