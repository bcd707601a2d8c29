"""The mean of the probabilities of several heads, each on some columns of the features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import validate_data

from headstart.errors import ParameterError
from headstart.heads.base import Head, encode, weighted_rows
from headstart.heads.catalogue import make_head, member_spec
from headstart.heads.head_specs import fit_weighted


class EnsembleHead(Head):
    """Probabilities averaged over heads that are fitted on the same rows.

    Parameters
    ----------
    members : sequence of mapping
        A head each: ``type``, and where they are not the defaults, ``scaling``, ``params``, ``random_state``, ``features``,
        ``widths`` as in :class:`headstart.types.HeadSpec`, and ``columns``, pairs of the first column and the one after the
        last; by default all columns.

    Attributes
    ----------
    members_ : list of Pipeline
        The fitted heads.
    """

    def __init__(self, members: Sequence[Mapping[str, Any]] = ()) -> None:
        self.members = members

    def make_members(self) -> list[Any]:
        """Return the unfitted heads; raise ParameterError if there is none, or a head cannot be made."""
        if not self.members:
            raise ParameterError("An ensemble has no members. They are chosen by a search, or given in its parameters.")
        return [make_head(member_spec(member)) for member in self.members]

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> EnsembleHead:
        """Fit every head on rows of features, shape (n_samples, n_features), with labels and weights."""
        X, y = validate_data(self, X, y, dtype=(np.float64, np.float32))
        X, y, weights, _ = weighted_rows(X, y, sample_weight)
        self.classes_, _ = encode(y)
        pairs = zip(self.make_members(), self.members, strict=True)
        self.members_ = [fit_weighted(head, columns_of(X, member), y, weights) for head, member in pairs]
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the mean of the probabilities, shape (n_samples, n_classes), float64."""
        X = self._validated(X)
        pairs = zip(self.members_, self.members, strict=True)
        found = [head.predict_proba(columns_of(X, member)) for head, member in pairs]
        mean: NDArray[np.float64] = np.mean(found, axis=0, dtype=np.float64)
        return mean


def columns_of(X: NDArray[Any], member: Mapping[str, Any]) -> NDArray[Any]:
    """Return the columns that a member is fitted on; raise ValueError if there are fewer."""
    parts = member.get("columns") or [(0, X.shape[1])]
    last = max(end for _, end in parts)
    if last > X.shape[1]:
        raise ValueError(f"A member has columns up to {last}. Received: {X.shape[1]} columns.")
    return (
        np.concatenate([X[:, start:end] for start, end in parts], axis=1) if len(parts) > 1 else X[:, slice(*parts[0])]
    )
