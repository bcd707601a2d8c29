"""What is said of decisions in a terminal."""

from __future__ import annotations

import numpy as np

from headstart.decisions.conformal import PredictionSets
from headstart.decisions.cutoffs import Cutoff
from headstart.decisions.rule import DecisionRule
from headstart.report.decision_text import chosen_line, decision_lines

NAMES = ("a[b]", "c")
RULE = DecisionRule(Cutoff("a[b]", 0.5, "recall=0.9"), sets=PredictionSets(0.9, False, (0.5,)))


def lines(n_missed: int) -> str:
    """Of 100 images of each class, so many of the first one are missed."""
    p = np.concatenate([np.full(n_missed, 0.4), np.full(100 - n_missed, 0.8), np.full(100, 0.1)])
    return "\n".join(decision_lines(RULE.score(np.repeat([0, 1], 100), np.stack([p, 1 - p], axis=1), NAMES)))


def test_rates_that_are_surely_lower_than_asked_for_are_named() -> None:
    assert "lower than" not in lines(12)
    assert "On these images the recall is lower than the 0.9 asked for." in lines(40)
    assert "On these images the coverage is lower than the 0.9 asked for." in lines(40)


def test_names_of_classes_are_no_markup() -> None:
    assert r"a\[b] from a probability of 0.5 on" in lines(0)
    score = RULE.score(np.array([0, 1, 0]), np.array([[0.5, 0.5], [0.6, 0.4], [0.2, 0.8]]), NAMES)
    assert chosen_line(RULE, "5 folds", score) == (
        r"Chosen on predictions of training images left out of the fit (5 folds): a\[b] from a probability of 0.5 on "
        "(recall=0.9); there recall 0.500, precision 0.500 of 2; sets of classes that hold the true one for 0.9 of the images"
    )
