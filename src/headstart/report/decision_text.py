"""Decisions and how they do, as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.markup import escape

from headstart.decisions.cutoffs import Cutoff, CutoffScore, parse_goal
from headstart.decisions.rule import DecisionRule, DecisionScore
from headstart.report.text_tables import estimate_text, value_text
from headstart.scores import Estimate
from headstart.texts import listed, printable

#: Classes whose coverage is shown.
MAX_LISTED = 3


def chosen_line(rule: DecisionRule, folds: str, score: DecisionScore | None) -> str:
    """Return what was chosen, on which predictions, and how it does on these, as one line of Rich markup."""
    parts = []
    if rule.cutoff:
        parts.append(cutoff_text(rule.cutoff))
    if score and score.cutoff:
        recall, precision = score.cutoff.recall.value, score.cutoff.precision.value
        n_called = round(score.cutoff.called_per_1000.value * score.n_samples / 1000)
        parts.append(f"there recall {value_text(recall)}, precision {value_text(precision)} of {n_called:,}")
    if rule.sets:
        of = " of each class" if rule.sets.per_class else ""
        parts.append(f"sets of classes that hold the true one for {rule.sets.coverage:g} of the images{of}")
    on = f"Chosen on predictions of training images left out of the fit ({escape(folds)}): " if folds else ""
    return on + "; ".join(parts)


def cutoff_text(cutoff: Cutoff | CutoffScore) -> str:
    """Return a threshold in words."""
    name = escape(printable(cutoff.positive))
    return f"{name} from a probability of {cutoff.threshold:.4g} on ({escape(cutoff.goal)})"


def decision_lines(score: DecisionScore) -> Iterator[str]:
    """Yield how decisions do on scored images, in lines of Rich markup."""
    if score.cutoff:
        rates = (
            ("recall", score.cutoff.recall),
            ("precision", score.cutoff.precision),
            ("specificity", score.cutoff.specificity),
        )
        words = " · ".join(f"{name} {estimate_text(rate)}" for name, rate in rates)
        called = rounded_text(score.cutoff.called_per_1000)
        yield f"[bold]{cutoff_text(score.cutoff)}[/]: {words} · {called} called positive of 1,000 images"
        goal = parse_goal(score.cutoff.goal)
        if goal.kind != "cost":
            yield from less_than_asked(goal.kind, dict(rates)[goal.kind], goal.level)
    if score.costs:
        mean, most_probable = estimate_text(score.costs.mean_cost), value_text(score.costs.mean_cost_of_most_probable)
        yield f"[bold]Lowest expected cost[/]: mean cost {mean}; {most_probable} if the most probable class is decided for"
    if score.sets:
        yield (
            f"[bold]Sets of classes[/]: hold the true class for {estimate_text(score.sets.coverage)} of the images · "
            f"{score.sets.mean_size:.2f} classes on average · unsure (several classes or none) "
            f"{estimate_text(score.sets.unsure)} · accuracy of the others {estimate_text(score.sets.accuracy_of_sure)}"
        )
        yield from less_than_asked("coverage", score.sets.coverage, score.sets.asked)
        lowest = sorted(score.sets.of_each_class.items(), key=lambda item: item[1].value)
        shown = (f"{escape(printable(name))} {estimate_text(share)}" for name, share in lowest)
        yield f"Lowest for the images of: {listed(shown, MAX_LISTED, ' · ')}"


def less_than_asked(what: str, found: Estimate, level: float) -> Iterator[str]:
    """Yield a warning if the interval of a rate is below the level that was asked for."""
    if found.high < level:
        yield f"[yellow]On these images the {what} is lower than the {level:g} asked for.[/]"


def rounded_text(estimate: Estimate) -> str:
    """Return a number of images with its interval."""
    return f"{estimate.value:.0f} ({estimate.low:.0f}–{estimate.high:.0f})"
