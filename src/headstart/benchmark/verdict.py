"""Which head to take, in one sentence."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from headstart.evaluate.significance import ALPHA

if TYPE_CHECKING:
    from headstart.criteria import Metric
    from headstart.report.comparison import Candidate, HeadResult
    from headstart.scores import Estimate


def ranked(results: Sequence[HeadResult], metric: Metric) -> list[HeadResult]:
    """Return the results, the best by a metric first, of equal ones the best log-loss; baselines last."""

    def place(result: HeadResult) -> tuple[bool, float, float]:
        gain = metric.gain(result.metrics[metric.name].value)
        return result.baseline, math.inf if math.isnan(gain) else -gain, result.metrics["log_loss"].value

    return sorted(results, key=place)


def recommend(results: Sequence[HeadResult], metric: Metric, expected: Estimate | None = None) -> tuple[str, str]:
    """Return the name of the head to take, and one sentence that says why, and what of it is noise.

    Parameters
    ----------
    results : sequence of HeadResult
        With the differences to the best and their p-values.
    metric : Metric
        By which the best is chosen.
    expected : Estimate, optional
        What to expect of it on other images, having been chosen as the best on these.
    """
    best, *others = ranked(results, metric)
    heads = [other for other in others if not other.baseline]
    figure = best.metrics[metric.name]
    where = f" on {best.cache}" if best.cache else ""
    sentence = (
        f"Take {best.name}{where}: {metric.title} {figure.value:.3f} (95 % interval {figure.low:.3f}–{figure.high:.3f}) on "
        "images it was not fitted on"
    )
    if expected is not None and heads:
        sentence += (
            f"; as the best of {len(heads) + 1} heads, expect {expected.value:.3f} "
            f"(95 % interval {expected.low:.3f}–{expected.high:.3f}) on other images"
        )
    if not heads:
        return best.name, f"{sentence}."
    noise = [head for head in heads if head.p_value is None or head.p_value >= ALPHA]
    beaten = [head for head in heads if head not in noise]
    if not noise:
        return best.name, f"{sentence}; it is better than every other head, beyond noise."
    sentence += f"; its lead over {listed([head.name for head in noise])} is within noise"
    quick = min((best, *noise), key=lambda head: head.cost.fit_seconds)
    if quick is not best and best.cost.fit_seconds > 3 * quick.cost.fit_seconds:
        times = best.cost.fit_seconds / max(quick.cost.fit_seconds, 1e-3)
        sentence += f" ({quick.name} fits {times:.0f} × faster)"
    if beaten:
        sentence += f", that over {listed([head.name for head in beaten])} is not"
    return best.name, f"{sentence}."


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

    Parameters
    ----------
    best : HeadResult
        The recommended head.
    caches : sequence of Candidate
        That it chose among.
    features, scaling
        That were given for every head.
    scored : str
        Split that is held out; empty for none.
    joined : bool
        Whether the same images lie in all caches. Otherwise ``fit-head`` refuses to choose among them, and is given the one
        that was chosen here.
    """
    if not caches or best.spec is None:
        return ""
    paths = [cache.path for cache in caches if joined or cache.title == best.cache]
    words = ["fit-head", *paths, "--type", best.spec.type]
    words += ["--features", ",".join(features)] if features else []
    words += ["--scaling", scaling] if scaling else []
    words += ["--validation", scored] if scored else []
    return shlex.join([*words, "--search"])
