"""The recommended head, in one sentence."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from headstart.evaluate.significance import ALPHA
from headstart.report.text_tables import interval_text
from headstart.selection.comparison_setup import MAJORITY

if TYPE_CHECKING:
    from headstart.report.comparison import Candidate, HeadResult
    from headstart.scores import Estimate, Metric


def ranked(results: Sequence[HeadResult], metric: Metric) -> list[HeadResult]:
    """Return the results, the best by a metric first, of equal ones the best log-loss; baselines last."""

    def place(result: HeadResult) -> tuple[bool, float, float]:
        gain = metric.gain(result.metrics[metric.name].value)
        return result.baseline, math.inf if math.isnan(gain) else -gain, result.metrics["log_loss"].value

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
    chance = next((other for other in others if other.name == MAJORITY), None)
    if chance is not None and not is_better(best, chance, metric):
        return best.name, (
            f"By {metric.title}, no head is better than chance: the best, {best.name}{where}, has {sentence}, and "
            f"{MAJORITY}, which knows the shares of the classes alone, {chance.metrics[metric.name].value:.3f}: the "
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
    joined: bool,
) -> str:
    """Return what fits the recommended head; empty of one cache alone, and where there is nothing to fit.

    Where not all caches hold the same images (``joined``), ``fit-head`` refuses to choose among them, and is given the
    one that was chosen here. ``scored`` is the split that is held out; empty for none.
    """
    if not caches or best.spec is None:
        return ""
    paths = [cache.path for cache in caches if joined or cache.title == best.cache]
    words = ["fit-head", *paths, "--type", best.spec.type]
    words += ["--features", ",".join(features)] if features else []
    words += ["--scaling", scaling] if scaling else []
    words += ["--validation", scored] if scored else []
    return shlex.join([*words, "--search"])
