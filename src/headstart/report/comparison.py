"""The results of a comparison of heads, and the recommendation that follows from them."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.report.text_tables import interval_text
from headstart.scores import ALPHA, METRICS, AnyScore, Estimate, Metric, PositiveRates
from headstart.types import ENSEMBLE, HeadSpec, Recipe

#: Baselines that know nothing of the images: name → what they know.
KNOW_NOTHING = {"majority": "the shares of the classes", "mean": "the mean of the numbers"}


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
    """One of several caches of the same images from which each head chose, or all of them side by side."""

    name: str  # display name and path
    path: str
    differs: str  # description of the recipe fields that differ between the caches
    recipe: Recipe | None  # None for all caches side by side

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
    """The results of one head.

    Attributes
    ----------
    name : str
        Name in the catalogue, or of a baseline (``majority``).
    baseline : bool
    spec : HeadSpec | None
        The setting chosen on all training images; None for some baselines.
    metrics : Mapping[str, Estimate]
        Metrics by name, over the held-out images of all folds.
    fold_accuracy : tuple[float, ...]
        Accuracy of each fold, NaN for numbers; all heads use the same folds.
    probabilities : NDArray[np.float32]
        Out-of-fold probabilities, or numbers in a single column, rows as in ``Comparison.y_true``; the mean over repeats;
        shape (n_samples, n_outputs).
    cost : Cost
    difference : Estimate | None
        ``Comparison.metric`` minus that of the best head, paired, with a simultaneous interval; None for the best.
    p_value : float | None
        P-value of the difference, below 0.05 exactly if the interval does not contain 0; None for the best.
    fold_settings : tuple[str, ...]
        Settings chosen inside the folds; empty if there was nothing to choose.
    held_out : Score | None
        Score on the given test split, fitted on all training images; not used for any choice.
    held_out_probabilities : NDArray[np.floating[Any]] | None
        Probabilities on that split, rows as in ``Comparison.held_out_y_true``; shape (n_held_out, n_classes).
    learning_curve : tuple[CurvePoint, ...]
        Empty unless requested.
    notes : tuple[str, ...]
        Sentences on e.g. failed convergence, or a search that ended at the edge of its grid.
    cache : str
        Name of the chosen cache and its differences; empty for a single cache, and for baselines without features.
    positive : PositiveRates | None
        Out-of-fold rates of the positive class; None if none was named.
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
    held_out: AnyScore | None = None
    held_out_probabilities: NDArray[np.floating[Any]] | None = field(default=None, repr=False)
    learning_curve: tuple[CurvePoint, ...] = ()
    notes: tuple[str, ...] = ()
    cache: str = ""
    positive: PositiveRates | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Heads compared on the same folds of one cache, or of several caches of the same images.

    Attributes
    ----------
    cache : str
        Path of the (first) cache.
    recipe : Recipe
    class_names : tuple[str, ...]
        Columns of the probabilities.
    y_true : NDArray[np.int64] or NDArray[np.float64]
        True classes, or numbers, of the scored images, in the order of the rows used; shape (n_samples,).
    paths : Sequence[str]
    folds : str
        Descriptions of the folds, of the intervals, and of the test behind the p-values.
    interval : str
    test : str
    heads : tuple[HeadResult, ...]
        Sorted by ``metric``, best first, baselines last.
    recommended : str
    recommendation : str
        A sentence on it, and on whether its lead is significant.
    leaks : tuple[str, ...]
        Leaks between splits, and how they were handled; empty if there are none.
    left_out : Mapping[str, str]
        Heads that could not be fitted, with the reasons.
    held_out : str
        Description of the given test split; empty without one.
    command : str
        The command, and the machine it ran on.
    machine : str
    versions : Mapping[str, str]
    seconds : float
    caches : tuple[Candidate, ...]
        Caches from which each head chose; empty if there was only one.
    not_in_all : tuple[str, ...]
        Sentences on images left out because they are not in all caches.
    fit_command : str
        Command that fits the recommended head with a search over the caches; empty if there was only one.
    metric : str
        Metric by which heads are ranked, compared and recommended.
    held_out_paths : Sequence[str]
        Paths and true classes of the images of the given test split, and its name; empty without one.
    held_out_y_true : NDArray[np.int64] | None
    held_out_split : str
    fold_names : Sequence[str]
        Folds in which each image is scored (exchange/prediction_table.py); empty if unknown.
    expected : Estimate | None
        Expected ``metric`` of the recommended head on other images, corrected for its selection; None if not corrected.
    correction : str
    positive : str | None
        The positive class, if one was named.
    metrics : tuple[Metric, ...]
        The metrics of the heads in display order; heads are told by the first.
    """

    cache: str
    recipe: Recipe
    class_names: tuple[str, ...]
    y_true: NDArray[Any] = field(repr=False)
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
    held_out_y_true: NDArray[Any] | None = field(default=None, repr=False)
    held_out_split: str = ""
    fold_names: Sequence[str] = field(default=(), repr=False)
    expected: Estimate | None = None
    correction: str = ""
    positive: str | None = None
    metrics: tuple[Metric, ...] = METRICS

    @property
    def is_of_numbers(self) -> bool:
        """Whether heads predict numbers, not classes."""
        return self.y_true.dtype.kind == "f"

    def __getitem__(self, name: str) -> HeadResult:
        """Return the result of a head; KeyError where it was not compared."""
        return {head.name: head for head in self.heads}[name]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, without the probabilities of single images."""
        values = asdict(self)
        for name in ("y_true", "paths", "fold_names", "held_out_y_true", "held_out_paths", "metrics"):
            del values[name]
        for head in values["heads"]:
            del head["probabilities"], head["held_out_probabilities"]
        return values | {"n_samples": len(self.y_true)}


def ranked(results: Sequence[HeadResult], metric: Metric) -> list[HeadResult]:
    """Return the results, the best by a metric first, of equal ones the best log-loss; baselines last."""

    def place(result: HeadResult) -> tuple[bool, float, float]:
        gain = metric.gain(result.metrics[metric.name].value)
        log_loss = result.metrics["log_loss"].value if "log_loss" in result.metrics else 0.0
        return result.baseline, math.inf if math.isnan(gain) else -gain, log_loss

    return sorted(results, key=place)


def recommend(results: Sequence[HeadResult], metric: Metric, expected: Estimate | None = None) -> tuple[str, str]:
    """Return the name of the head to take, and one sentence that says why, and what of it is noise.

    ``expected`` is the expected score of the best on other images, corrected for the choice.
    """
    best, *others = ranked(results, metric)
    heads = [other for other in others if not other.baseline]
    where = f" on {best.cache}" if best.cache else ""
    sentence = f"{metric.title} {figure_text(best.metrics[metric.name])} on images it was not fitted on"
    if expected is not None and heads:
        sentence += f"; as the best of {len(heads) + 1} heads, expect {figure_text(expected)} on other images"
    chance = next((other for other in others if other.name in KNOW_NOTHING), None)
    if chance is not None and not is_better(best, chance, metric):
        return best.name, (
            f"By {metric.title}, no head is better than chance: the best, {best.name}{where}, has {sentence}, and "
            f"{chance.name}, which knows {KNOW_NOTHING[chance.name]} alone, {chance.metrics[metric.name].value:.3f}: the "
            "difference is within noise. Check the labels, or add images."
        )
    rivals = [other for other in others if other is not chance]
    return best.name, f"Take {best.name}{where}: {sentence}{noise_of(best, rivals, metric)}."


def is_better(one: HeadResult, other: HeadResult, metric: Metric) -> bool:
    """Return whether a head is better than another one beyond noise, one of them being the best, which has no p-value."""
    p_value = one.p_value if other.p_value is None else other.p_value
    gains = [metric.gain(head.metrics[metric.name].value) for head in (one, other)]
    return p_value is not None and p_value < ALPHA and gains[0] > gains[1]


def figure_text(figure: Estimate) -> str:
    """Return a figure with its interval."""
    return f"{figure.value:.3f} (95 % interval {interval_text(figure.low, figure.high)})"


def noise_of(best: HeadResult, rivals: Sequence[HeadResult], metric: Metric) -> str:
    """Return, in words, which differences between the best head and the others are noise; nothing where there are none."""
    beaten = [head for head in rivals if is_better(best, head, metric)]
    ahead = [head for head in rivals if is_better(head, best, metric)]  # a baseline, which is never recommended
    noise = [head for head in rivals if head not in (*beaten, *ahead)]
    if not rivals:
        return ""
    if ahead:
        return f"; {listed([head.name for head in ahead])}, a baseline, is better beyond noise"
    if not noise:
        return "; it is better than every other head, beyond noise"
    words = f"; its difference to {listed([head.name for head in noise])} is within noise"
    quick = min((best, *noise), key=lambda head: head.cost.fit_seconds)
    if quick is not best and best.cost.fit_seconds > 3 * quick.cost.fit_seconds:
        times = best.cost.fit_seconds / max(quick.cost.fit_seconds, 1e-3)
        words += f" ({quick.name} fits {times:.0f} × faster)"
    return f"{words}, that to {listed([head.name for head in beaten])} is not" if beaten else words


def listed(names: Sequence[str]) -> str:
    """Return names as people list them."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def fit_command(
    best: HeadResult,
    caches: Sequence[Candidate],
    features: Sequence[str] | None,
    scaling: str | None,
    scored: str,
    *,
    same_images: bool,
) -> str:
    """Return what fits the recommended head; empty of one cache alone, and where there is nothing to fit.

    Where not all caches hold the ``same_images``, ``fit-head`` refuses to choose among them or to join them: it is given
    the one that was chosen here, and there is no command for a join or an ensemble. ``scored`` is the split that is held
    out; empty for none.
    """
    single = [cache for cache in caches if cache.recipe is not None]
    is_ensemble = best.name == ENSEMBLE
    on_several = bool(best.cache) and best.cache not in [cache.title for cache in single]
    joined = len(single) < len(caches) if is_ensemble else on_several
    if not caches or best.spec is None or ((on_several or is_ensemble) and not same_images):
        return ""
    paths = [cache.path for cache in single if same_images or cache.title == best.cache]
    words = ["fit-head", *paths, *(["--join"] if joined else []), "--type", best.spec.type]
    words += ["--features", ",".join(features)] if features else []
    words += ["--scaling", scaling] if scaling else []
    words += ["--validation", scored] if scored else []
    return shlex.join([*words, "--search"])


def pareto_optimal(heads: Sequence[HeadResult], costs: dict[str, float], metric: Metric = METRICS[0]) -> set[str]:
    """Return the Pareto-optimal heads in a metric, by default accuracy, and cost, without baselines."""
    points = [
        (head.name, metric.gain(head.metrics[metric.name].value), costs[head.name])
        for head in heads
        if not head.baseline
    ]
    return {
        name
        for name, accuracy, cost in points
        if not any(a >= accuracy and c <= cost and (a > accuracy or c < cost) for _, a, c in points)
    }
