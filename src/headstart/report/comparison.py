"""The results of a comparison of heads as immutable values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from headstart.scores import Estimate, PositiveRates, Score
    from headstart.types import HeadSpec, Recipe


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a head on the machine that measured it."""

    fit_seconds: float  # one fit with the chosen setting on all training images, features in memory
    search_seconds: float  # the hyperparameter search; 0 if there was none
    head_ms: float  # milliseconds per image from cached features to probabilities, in batches
    total_ms: float | None  # the same from pixels, including the backbone; None if its rate is unknown
    size_bytes: int
    peak_bytes: int | None  # peak memory of the fit, above the level before; None if not measured


@dataclass(frozen=True, slots=True)
class Candidate:
    """One of several caches of the same images from which each head chose."""

    name: str  # display name and path
    path: str
    differs: str  # description of the recipe fields that differ between the caches
    recipe: Recipe

    @property
    def title(self) -> str:
        """Name and differences."""
        return f"{self.name} ({self.differs})"


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """A point of a learning curve: images per class (median of the folds), and accuracy on the folds' held-out images."""

    images_per_class: float
    accuracy: Estimate


@dataclass(frozen=True, slots=True)
class HeadResult:
    """The results of one head."""

    name: str  # name in the catalogue, or of a baseline (``majority``)
    baseline: bool
    spec: HeadSpec | None  # the setting chosen on all training images; None for some baselines
    metrics: Mapping[str, Estimate]  # metrics by name, over the held-out images of all folds
    fold_accuracy: tuple[float, ...]  # accuracy of each fold; all heads use the same folds
    #: Out-of-fold probabilities, rows as in ``Comparison.y_true``; the mean over repeats; shape (n_samples, n_classes)
    probabilities: NDArray[np.float32] = field(repr=False)
    cost: Cost
    #: ``Comparison.metric`` minus that of the best head, paired, with a simultaneous interval; None for the best
    difference: Estimate | None = None
    #: P-value of the difference, below 0.05 exactly if the interval does not contain 0; None for the best
    p_value: float | None = None
    fold_settings: tuple[str, ...] = ()  # settings chosen inside the folds; empty if there was nothing to choose
    #: Score on the given test split, fitted on all training images; not used for any choice
    held_out: Score | None = None
    #: Probabilities on that split, rows as in ``Comparison.held_out_y_true``; shape (n_held_out, n_classes)
    held_out_probabilities: NDArray[np.floating[Any]] | None = field(default=None, repr=False)
    learning_curve: tuple[CurvePoint, ...] = ()  # empty unless requested
    notes: tuple[str, ...] = ()  # sentences on e.g. failed convergence, or a search that ended at the edge of its grid.
    #: Name of the chosen cache and its differences; empty for a single cache, and for baselines without features
    cache: str = ""
    positive: PositiveRates | None = None  # out-of-fold rates of the positive class; None if none was named


@dataclass(frozen=True, slots=True)
class Comparison:
    """Heads compared on the same folds of one cache, or of several caches of the same images."""

    cache: str  # path of the (first) cache
    recipe: Recipe
    class_names: tuple[str, ...]  # columns of the probabilities
    #: True classes of the scored images, in the order of the rows used; shape (n_samples,)
    y_true: NDArray[np.int64] = field(repr=False)
    paths: Sequence[str] = field(repr=False)
    folds: str  # descriptions of the folds, of the intervals, and of the test behind the p-values
    interval: str
    test: str
    heads: tuple[HeadResult, ...]  # sorted by ``metric``, best first, baselines last
    recommended: str
    recommendation: str  # a sentence on it, and on whether its lead is significant
    leaks: tuple[str, ...] = ()  # leaks between splits, and how they were handled; empty if there are none
    left_out: Mapping[str, str] = field(default_factory=dict)  # heads that could not be fitted, with the reasons
    held_out: str = ""  # description of the given test split; empty without one
    command: str = ""  # the command, and the machine it ran on
    machine: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    caches: tuple[Candidate, ...] = ()  # caches from which each head chose; empty if there was only one
    not_in_all: tuple[str, ...] = ()  # sentences on images left out because they are not in all caches
    #: Command that fits the recommended head with a search over the caches; empty if there was only one
    fit_command: str = ""
    metric: str = "accuracy"  # metric by which heads are ranked, compared and recommended
    #: Paths and true classes of the images of the given test split, and its name; empty without one
    held_out_paths: Sequence[str] = field(default=(), repr=False)
    held_out_y_true: NDArray[np.int64] | None = field(default=None, repr=False)
    held_out_split: str = ""
    #: Folds in which each image is scored (exchange/prediction_table.py); empty if unknown
    fold_names: Sequence[str] = field(default=(), repr=False)
    #: Expected ``metric`` of the recommended head on other images, corrected for its selection; None if not corrected
    expected: Estimate | None = None
    correction: str = ""
    positive: str | None = None  # the positive class, if one was named

    def __getitem__(self, name: str) -> HeadResult:
        """Return the result of a head; KeyError where it was not compared."""
        return {head.name: head for head in self.heads}[name]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, without the probabilities of single images."""
        values = asdict(self)
        for name in ("y_true", "paths", "fold_names", "held_out_y_true", "held_out_paths"):
            del values[name]
        for head in values["heads"]:
            del head["probabilities"], head["held_out_probabilities"]
        return values | {"n_samples": len(self.y_true)}
