"""An entry of the catalogue: what is known of a type of head before its estimator is imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headstart.heads.head_specs import Parameter


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadType:
    """An entry of the catalogue: everything that is known of a type of head before its estimator is imported.

    Some abilities are methods of the estimator: ``fit_rows(rows, y)`` with ``streaming_bytes(n_features, n_classes)`` fits
    it without the whole matrix in memory (heads/out_of_core.py); ``to_layers()`` gives its dense layers for export.
    """

    #: Import path of the estimator: a scikit-learn classifier with ``predict_proba``, or a regressor for the task
    #: ``regression``. Saved heads hold it: a module of an estimator keeps its name.
    estimator: str
    task: str = "classification"  # task of the targets that it can predict (evaluate/targets.py)
    features: tuple[str, ...] = ("avg",)
    scaling: str = "sqrt-l2"
    params: Mapping[str, Parameter] = field(default_factory=dict)
    #: Values that a search tries, in every combination; the defaults are among them
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    unscaled: HeadType | None = None  # entry to use instead where the features are not scaled
    #: Commands that search the setting by default: ``fit-head``, ``benchmark-heads``
    searched_by: tuple[str, ...] = ("benchmark-heads",)
    max_search_images: int = 20_000  # images that a search uses at most, drawn by class
    #: Import path of a function that predicts with many settings in less time than one by one
    #: (heads/grid_predictions.py); empty for none
    grid_solver: str = ""
    grid_probabilities: bool = False  # whether the predictions of ``grid_solver`` have probabilities
    #: Whether predictions depend on inner products of rows or distances between them alone
    rotation_invariant: bool = False
    baseline: bool = False  # whether it is compared with the others, but never recommended
    #: Whether the estimator has a Keras network, ``network_``: it is saved as a file of its own, heads are fitted one
    #: at a time, and the memory of TensorFlow is counted
    keras: bool = False
    #: Arrays of the size of the float32 feature matrix that exist at the same time during a fit, the matrix included
    matrix_copies: int = 4
    #: Up to this many rows or columns, whichever are fewer, a fit decomposes a square float64 matrix of that size
    max_square: int = 0
    saved_types: tuple[str, ...] = ()  # import paths of other classes of this package in a fitted estimator
