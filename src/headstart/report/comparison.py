"""What a comparison of heads consists of: plain, frozen, free of I/O."""

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
    """What a head costs on the machine that measured it.

    Attributes
    ----------
    fit_seconds : float
        One fit with the chosen setting on all training images, features in memory.
    search_seconds : float
        Choosing that setting; 0 where there was nothing to choose.
    head_ms : float
        Milliseconds per image from cached features to probabilities, in batches.
    total_ms : float or None
        The same from pixels, the frozen backbone included; None where its rate is not known.
    size_bytes : int
        Of the saved head.
    peak_bytes : int or None
        Memory at the highest point of the fit, above what was there before; None where it was not measured.
    """

    fit_seconds: float
    search_seconds: float
    head_ms: float
    total_ms: float | None
    size_bytes: int
    peak_bytes: int | None


@dataclass(frozen=True, slots=True)
class Candidate:
    """One of several caches of the same images, among which each head chose.

    Attributes
    ----------
    name, path : str
        What it is called here, and where it lies.
    differs : str
        What of its recipe is not the same in all of them, in words.
    recipe : Recipe
        How its features were made.
    """

    name: str
    path: str
    differs: str
    recipe: Recipe

    @property
    def title(self) -> str:
        """Name and what differs."""
        return f"{self.name} ({self.differs})"


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One point of a learning curve: images per class (median of the folds), and accuracy on the folds' held-out images."""

    images_per_class: float
    accuracy: Estimate


@dataclass(frozen=True, slots=True)
class HeadResult:
    """How one head did.

    Attributes
    ----------
    name : str
        In the catalogue, or of a baseline (``majority``).
    baseline : bool
        Whether it is there only to be beaten.
    spec : HeadSpec or None
        The setting chosen on all training images; None for a baseline without one.
    metrics : mapping of str to Estimate
        By the name of the metric; over the held-out images of all folds.
    fold_accuracy : tuple of float
        Of each fold, in the order of the folds, which are the same for every head.
    probabilities : ndarray of shape (n_samples, n_classes), float32
        Out of fold, rows as in ``Comparison.y_true``; the mean over repeats.
    cost : Cost
        Time, memory and size.
    difference : Estimate or None
        ``Comparison.metric`` minus that of the best head, paired, with a simultaneous interval; None for the best.
    p_value : float or None
        Of that difference, by the same test: below 0.05 exactly where the interval does not hold 0; None for the best.
    fold_settings : tuple of str
        What was chosen inside each fold, in words; empty where nothing was.
    held_out : Score or None
        On the given test split, fitted on all training images; it chose nothing.
    held_out_probabilities : ndarray of shape (n_held_out, n_classes), or None
        Of that split, rows as in ``Comparison.held_out_y_true``.
    learning_curve : tuple of CurvePoint
        Empty unless asked for.
    notes : tuple of str
        What a reader must know: no convergence, a search that ended at the edge of its grid …
    cache : str
        Name of the cache chosen on all training images, and what differs in its recipe; empty where there was one alone, or
        for a baseline that looks at no features.
    positive : PositiveRates or None
        How well the positive class is told from the others, out of fold; None where none was named.
    """

    name: str
    baseline: bool
    spec: HeadSpec | None
    metrics: Mapping[str, Estimate]
    fold_accuracy: tuple[float, ...]
    probabilities: NDArray[np.float32] = field(repr=False)
    cost: Cost
    difference: Estimate | None = None
    p_value: float | None = None
    fold_settings: tuple[str, ...] = ()
    held_out: Score | None = None
    held_out_probabilities: NDArray[np.floating[Any]] | None = field(default=None, repr=False)
    learning_curve: tuple[CurvePoint, ...] = ()
    notes: tuple[str, ...] = ()
    cache: str = ""
    positive: PositiveRates | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Heads compared on the same folds of one cache, or of several of the same images.

    Attributes
    ----------
    cache : str
        Path of the cache, the first of several.
    recipe : Recipe
        How its features were made.
    class_names : tuple of str
        Columns of the probabilities.
    y_true : ndarray of shape (n_samples,), int
        True classes of the images scored, in the order of the rows used.
    paths : sequence of str
        Their paths.
    folds, interval, test : str
        How the folds were made, what the intervals are, and which test gave the p-values (with its source), in words.
    heads : tuple of HeadResult
        The best by ``metric`` first, baselines last.
    recommended : str
        Name of the head to take.
    recommendation : str
        One sentence that says so, and whether the difference to the next is noise.
    leaks : tuple of str
        What was found on both sides of a split, and what was done about it; empty where nothing was.
    left_out : mapping of str to str
        Heads that could not be fitted on these images, and why.
    held_out : str
        How the given test split was made, in words; empty without one.
    command, machine : str
        What made it, and where.
    versions : mapping of str to str
        Of the packages that matter.
    seconds : float
        That it took.
    caches : tuple of Candidate
        That each head chose among; empty where there was one alone.
    not_in_all : tuple of str
        Images that were left out because they do not lie in all of the caches, in words.
    fit_command : str
        Fits the recommended head, the cache chosen by a search; empty where there was one cache alone.
    metric : str
        By which the heads are ranked, compared and recommended.
    held_out_paths, held_out_y_true, held_out_split : sequence of str, ndarray of int, str
        Paths and true classes of the images of the given test split, and its name; empty without one.
    fold_names : sequence of str
        Folds that each image is scored in (exchange/prediction_table.py); empty where they are not known.
    expected : Estimate or None
        What ``metric`` to expect of the recommended head on other images: its figure less what it owes to being the best on
        these (``correction`` says how); None where it was not corrected.
    correction : str
        How ``expected`` was found, in words.
    positive : str or None
        The positive class, where one was named.
    """

    cache: str
    recipe: Recipe
    class_names: tuple[str, ...]
    y_true: NDArray[np.int64] = field(repr=False)
    paths: Sequence[str] = field(repr=False)
    folds: str
    interval: str
    test: str
    heads: tuple[HeadResult, ...]
    recommended: str
    recommendation: str
    leaks: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    held_out: str = ""
    command: str = ""
    machine: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    caches: tuple[Candidate, ...] = ()
    not_in_all: tuple[str, ...] = ()
    fit_command: str = ""
    metric: str = "accuracy"
    held_out_paths: Sequence[str] = field(default=(), repr=False)
    held_out_y_true: NDArray[np.int64] | None = field(default=None, repr=False)
    held_out_split: str = ""
    fold_names: Sequence[str] = field(default=(), repr=False)
    expected: Estimate | None = None
    correction: str = ""
    positive: str | None = None

    def __getitem__(self, name: str) -> HeadResult:
        """Return the result of a head; KeyError where it was not compared."""
        return {head.name: head for head in self.heads}[name]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, without the probabilities of single images."""
        values = asdict(self)
        for name in ("y_true", "paths", "fold_names", "held_out_y_true", "held_out_paths"):
            del values[name]
        for head in values["heads"]:
            del head["probabilities"], head["held_out_probabilities"]
        return values | {"n_samples": len(self.y_true)}
