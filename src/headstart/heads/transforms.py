"""From cached features to the matrix that a head is fitted on: pooling, joining, scaling."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.preprocessing import FunctionTransformer, Normalizer, StandardScaler, normalize
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from headstart.errors import HeadstartError
from headstart.heads.head_specs import GEM_POWER, POOLINGS, SCALINGS, by_cache
from headstart.texts import did_you_mean
from headstart.types import FeatureBatch


def design_matrix(
    batches: Iterable[FeatureBatch],
    features: Sequence[str],
    *,
    n_samples: int | None = None,
) -> NDArray[np.float32]:
    """Return what a head is fitted on, shape (n_samples, n_features), float32.

    Parameters
    ----------
    batches : iterable of FeatureBatch
        Cached or fresh features.
    features : sequence of str
        ``flatten``, ``avg``, ``max``, ``gem`` or ``crops`` of the stored layer, or names of pooled layers; joined in this
        order. HeadstartError is raised for others. In features of several recipes, ``2:avg`` is one of the second.
    n_samples : int, optional
        Rows to come, where it is known: the matrix is then allocated once.
    """
    parts = (join(batch, features) for batch in batches)
    if n_samples is None:
        blocks = list(parts)
        if not blocks:
            raise HeadstartError("There are no features to make a matrix of.")
        return np.concatenate(blocks)
    return fill(parts, n_samples)


def fill(parts: Iterator[NDArray[np.float32]], n_samples: int) -> NDArray[np.float32]:
    """Return the parts one below the other, in one array that is allocated once."""
    first = next(parts, None)
    if first is None or n_samples < len(first):
        raise HeadstartError(
            f"Expected features of {n_samples} images. Received: {0 if first is None else len(first)}."
        )
    matrix = np.empty((n_samples, first.shape[1]), np.float32)
    matrix[: len(first)] = first
    row = len(first)
    for part in parts:
        matrix[row : row + len(part)] = part
        row += len(part)
    if row != n_samples:
        raise HeadstartError(f"Expected features of {n_samples} images. Received: {row}.")
    return matrix


def check_features(features: Sequence[str], pooled_layers: Sequence[str]) -> None:
    """Raise HeadstartError where a name is neither a pooling nor a pooled layer."""
    known = (*POOLINGS, *pooled_layers)
    unknown = [name for name in features if name not in known]
    if unknown or not features:
        raise HeadstartError(
            f"Unknown features {', '.join(unknown) or '(none)'}. Expected some of: {', '.join(known)}."
            f"{did_you_mean(unknown, known)}"
        )


def join(batch: FeatureBatch, features: Sequence[str]) -> NDArray[np.float32]:
    """Return the named features of one batch side by side, float32; of a join, those of one recipe after the other."""
    if batch.others:
        parts = (replace(batch, others=()), *batch.others)
        names = by_cache(features, len(parts))
        return np.concatenate([join(*part) for part in zip(parts, names, strict=True)], axis=1)
    check_features(features, tuple(dict.fromkeys(batch.pooled_column_layer)))
    return np.concatenate([one_feature(batch, name) for name in features], axis=1, dtype=np.float32)


def one_feature(batch: FeatureBatch, name: str) -> NDArray[np.floating[Any]]:
    """Return one feature of a batch, shape (n_images, width)."""
    if name == "flatten":
        return batch.features.reshape(len(batch), -1)
    if name == "avg":
        mean: NDArray[np.float32] = batch.features.mean(axis=(1, 2), dtype=np.float32)
        return mean
    if name == "max":
        largest: NDArray[np.floating[Any]] = batch.features.max(axis=(1, 2))
        return largest
    if name == "gem":
        return generalised_mean(batch.features)
    if name == "crops":
        return average_crops(batch.features)
    start = batch.pooled_column_layer.index(name)
    return batch.pooled[:, start : start + batch.pooled_column_layer.count(name)]


def average_crops(maps: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Return averages over the whole map and over its four corners, side by side, shape (n_images, 5 * n_channels), float32.

    A corner is the map without a row and a column: upper left, upper right, lower left, lower right. They are the views of
    Krizhevsky, Sutskever & Hinton (NIPS 2012), who cut corners and the middle out of the pixels, at the cost of no pass
    through the network.
    """
    maps = maps.astype(np.float32)
    parts = [maps, *(maps[:, rows, columns] for rows, columns in corners(*maps.shape[1:3]))]
    return np.concatenate([part.mean(axis=(1, 2)) for part in parts], axis=1)


def corners(height: int, width: int) -> list[tuple[slice, slice]]:
    """Return rows and columns of the four corners of a map; one row or column stays whole."""
    up_down, left_right = (
        (slice(0, max(length - 1, 1)), slice(min(length - 1, 1), length)) for length in (height, width)
    )
    return [(rows, columns) for rows in up_down for columns in left_right]


def generalised_mean(maps: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Return ``mean(x ** 3) ** (1 / 3)`` over the positions of each channel, shape (n_images, n_channels), float32.

    Radenović, Tolias & Chum, PAMI 2018: between average and maximum. It has no meaning for negative values, which a layer
    after a ReLU does not have: HeadstartError where there are some.
    """
    positive = maps.astype(np.float32)
    if positive.min(initial=0) < 0:
        raise HeadstartError(
            "The feature gem is for layers without negative values.", hint="Use `features` avg or max."
        )
    largest = positive.max(axis=(1, 2), keepdims=True)
    positive /= np.where(
        largest > 0, largest, 1
    )  # at most 1: no power overflows, and what underflows counts for nothing
    powers = np.mean(positive**GEM_POWER, axis=(1, 2), dtype=np.float32)
    means: NDArray[np.float32] = powers ** np.float32(1 / GEM_POWER) * largest[:, 0, 0]
    return means


class SqrtL2Scaler(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Square root of each value, its sign kept, then each row divided by its L2 norm.

    Evens out the few large activations; the Hellinger kernel of Arandjelović & Zisserman, "Three things everyone should
    know to improve object retrieval", CVPR 2012. Rows of zeros stay zeros.
    """

    def fit(self, X: Any, y: Any = None) -> SqrtL2Scaler:
        """Learn nothing but the number of features."""
        validate_data(self, X, accept_sparse="csr", dtype=(np.float64, np.float32))
        return self

    def transform(self, X: Any) -> Any:
        """Return the scaled rows, sparse where they were, float32 where they were."""
        check_is_fitted(self, "n_features_in_")
        X = validate_data(self, X, accept_sparse="csr", dtype=(np.float64, np.float32), reset=False)
        if sparse.issparse(X):
            rooted = X.copy()
            rooted.data = signed_sqrt(rooted.data)
        else:
            rooted = signed_sqrt(X)
        return normalize(rooted, norm="l2", copy=False)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def signed_sqrt(values: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Return sign(x) · sqrt(|x|)."""
    rooted: NDArray[np.floating[Any]] = np.sign(values) * np.sqrt(np.abs(values))
    return rooted


class BlockScaler(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Blocks of columns, e.g. the features of several backbones, each scaled on its own.

    Parameters
    ----------
    scaling : str
        ``sqrt-l2``, ``l2`` or ``standard``.
    widths : sequence of int, optional
        Columns of each block; by default all columns are one block.

    Attributes
    ----------
    scalers_ : list
        The fitted scaler of each block.
    """

    def __init__(self, scaling: str = "sqrt-l2", widths: Sequence[int] | None = None) -> None:
        self.scaling, self.widths = scaling, widths

    @property
    def with_mean(self) -> bool:
        """Whether a mean is subtracted, after which zeros are no zeros any more."""
        return self.scaling == "standard"

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> BlockScaler:
        """Fit the scaler of each block; raise ValueError if the widths are not those of the columns."""
        X = self._validated(X, reset=True)
        given = self._given(X, sample_weight)
        self.scalers_ = [make_scaler(self.scaling).fit(block, **given) for block in self._blocks(X)]
        return self

    @available_if(lambda self: self.with_mean)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> BlockScaler:
        """Learn from some more rows; only of scalers that learn something of all rows."""
        first = not hasattr(self, "scalers_")
        X = self._validated(X, reset=first)
        blocks, given = self._blocks(X), self._given(X, sample_weight)
        scalers = [make_scaler(self.scaling) for _ in blocks] if first else self.scalers_
        self.scalers_ = [scaler.partial_fit(block, **given) for scaler, block in zip(scalers, blocks, strict=True)]
        return self

    def transform(self, X: Any) -> Any:
        """Return the scaled rows, sparse where they were, float32 where they were."""
        check_is_fitted(self, "scalers_")
        blocks = self._blocks(self._validated(X, reset=False))
        scaled = [scaler.transform(block) for scaler, block in zip(self.scalers_, blocks, strict=True)]
        return sparse.hstack(scaled, format="csr") if sparse.issparse(X) else np.concatenate(scaled, axis=1)

    def _given(self, X: Any, sample_weight: Any) -> dict[str, Any]:
        """Return the weights for a scaler, checked; the others than ``standard`` look at one row at a time."""
        if sample_weight is None:
            return {}
        weights = _check_sample_weight(sample_weight, X, ensure_non_negative=True)
        return {"sample_weight": weights} if self.scaling == "standard" else {}

    def _validated(self, X: Any, *, reset: bool) -> Any:
        accept_sparse = False if self.with_mean else "csr"
        return validate_data(self, X, accept_sparse=accept_sparse, dtype=(np.float64, np.float32), reset=reset)

    def _blocks(self, X: Any) -> list[Any]:
        widths = [X.shape[1]] if self.widths is None else self.widths
        if sum(widths) != X.shape[1]:
            raise ValueError(f"Blocks of {widths} columns are {sum(widths)}. Received: {X.shape[1]} columns.")
        return [X[:, start:end] for start, end in pairwise(np.cumsum([0, *widths]).tolist())]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = not self.with_mean
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def make_scaler(name: str, widths: Sequence[int] = ()) -> Any:
    """Return an unfitted scaler, of blocks with ``widths`` if there are several.

    Raises HeadstartError if there is none of that name.
    """
    makers = {
        "sqrt-l2": SqrtL2Scaler,
        "l2": Normalizer,
        "standard": StandardScaler,
        "none": lambda: FunctionTransformer(accept_sparse=True),
    }
    if name not in makers:
        raise HeadstartError(f"Unknown scaling {name!r}. Expected one of: {', '.join(SCALINGS)}.")
    return BlockScaler(name, tuple(widths)) if len(widths) > 1 and name != "none" else makers[name]()
