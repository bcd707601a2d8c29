"""Rules for decisions: applied, saved with a head, and refused where a saved one is damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundles import IMAGES, change_metadata, fitted
from fakes import FakeBackbone
from headstart.bundles import metadata
from headstart.bundles.bundle import Bundle, load_bundle, save_bundle
from headstart.decisions.conformal import PredictionSets
from headstart.decisions.cost_matrix import CostMatrix
from headstart.decisions.cutoffs import Cutoff
from headstart.decisions.rule import Decision, DecisionRule
from headstart.errors import BundleError

NAMES = ("ant", "bee", "cat")
CUTOFF = Cutoff("bee", 0.1 + 0.2, "recall=0.95")
SETS = PredictionSets(0.9, True, (0.25, 0.1 + 0.2, 1 / 3))
COSTS = CostMatrix(((0.0, 1.0, 2.0), (0.1 + 0.2, 0.0, 1.0), (1.0, 1.0, 0.0)))
RULES = {
    "a threshold": DecisionRule(CUTOFF),
    "costs": DecisionRule(costs=COSTS),
    "sets": DecisionRule(sets=SETS),
    "a threshold and sets": DecisionRule(CUTOFF, sets=PredictionSets(0.95, False, (0.2,))),
}


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return fitted("ridge", FakeBackbone().forward(IMAGES))


def test_decisions_name_the_class_and_its_set() -> None:
    probabilities = np.array([[0.5, 0.3, 0.2], [0.9, 0.05, 0.05], [0.2, 0.2, 0.6], [0.24, 0.24, 0.3]])
    assert DecisionRule(CUTOFF).decide(probabilities, NAMES)[:2] == [Decision("ant"), Decision("ant")]
    found = DecisionRule(Cutoff("bee", 0.3, "x"), sets=SETS).decide(probabilities, NAMES)
    assert found == [
        Decision("bee", ("ant",)),  # 0.1 + 0.2 is more than 0.3
        Decision("ant", ("ant",)),
        Decision("cat", ("cat",)),
        Decision("cat", ()),
    ]
    assert [one.unsure for one in found] == [False, False, False, True]
    several = DecisionRule(sets=PredictionSets(0.9, False, (0.2,))).decide(probabilities, NAMES)
    assert several[0] == Decision("ant", ("ant", "bee", "cat"))
    assert several[0].unsure
    assert not Decision("ant").unsure


@pytest.mark.parametrize("name", RULES)
def test_a_rule_is_saved_with_the_head_to_the_last_digit(name: str, bundle: Bundle, tmp_path: Path) -> None:
    save_bundle(tmp_path / "head", replace(bundle, decision=RULES[name]), metrics={})
    assert load_bundle(tmp_path / "head").decision == RULES[name]
    assert json.loads((tmp_path / "head" / "bundle.json").read_text())["format_version"] == 5


def test_a_head_without_a_rule_is_saved_as_before(bundle: Bundle, tmp_path: Path) -> None:
    save_bundle(tmp_path / "head", bundle, metrics={})
    values = json.loads((tmp_path / "head" / "bundle.json").read_text())
    assert values["format_version"] == 2
    assert "decision" not in values
    assert load_bundle(tmp_path / "head").decision is None


def test_an_older_program_refuses_a_head_with_a_rule(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_bundle(tmp_path / "head", replace(bundle, decision=RULES["sets"]), metrics={})
    monkeypatch.setattr(metadata, "FORMAT_VERSION", 4)
    with pytest.raises(BundleError, match="has format version 5; this program reads up to 4"):
        load_bundle(tmp_path / "head")


Change = Callable[[dict[str, Any]], object]

HARM: dict[str, tuple[str, Change]] = {
    "no table": ("a threshold", lambda f: f.update(decision=3)),
    "null": ("a threshold", lambda f: f.update(decision=None)),
    "empty": ("a threshold", lambda f: f["decision"].clear()),
    "an unknown part": ("a threshold", lambda f: f["decision"].update(run="rm")),
    "a threshold and costs": ("a threshold", lambda f: f["decision"].update(costs=COSTS.to_dict())),
    "a threshold above 1": ("a threshold", lambda f: f["decision"]["cutoff"].update(threshold=1.5)),
    "a negative threshold": ("a threshold", lambda f: f["decision"]["cutoff"].update(threshold=-0.1)),
    "a threshold that is NaN": ("a threshold", lambda f: f["decision"]["cutoff"].update(threshold=float("nan"))),
    "a threshold that is huge": ("a threshold", lambda f: f["decision"]["cutoff"].update(threshold=10**400)),
    "a threshold that is a word": ("a threshold", lambda f: f["decision"]["cutoff"].update(threshold="0.5")),
    "a threshold that is true": ("a threshold", lambda f: f["decision"]["cutoff"].update(threshold=True)),
    "an unknown class": ("a threshold", lambda f: f["decision"]["cutoff"].update(positive="dog")),
    "a class that is a list": ("a threshold", lambda f: f["decision"]["cutoff"].update(positive=["bee"])),
    "a goal that is a number": ("a threshold", lambda f: f["decision"]["cutoff"].update(goal=1)),
    "no goal": ("a threshold", lambda f: f["decision"]["cutoff"].pop("goal")),
    "a row of costs missing": ("costs", lambda f: f["decision"]["costs"]["costs"].pop()),
    "a cost missing": ("costs", lambda f: f["decision"]["costs"]["costs"][0].pop()),
    "a row that is a word": ("costs", lambda f: f["decision"]["costs"]["costs"].__setitem__(0, "abc")),
    "a negative cost": ("costs", lambda f: f["decision"]["costs"]["costs"][0].__setitem__(1, -1)),
    "an infinite cost": ("costs", lambda f: f["decision"]["costs"]["costs"][0].__setitem__(1, float("inf"))),
    "a huge cost": ("costs", lambda f: f["decision"]["costs"]["costs"][0].__setitem__(1, 10**400)),
    "too few cutoffs": ("sets", lambda f: f["decision"]["sets"]["cutoffs"].pop()),
    "cutoffs of each class that are one": ("sets", lambda f: f["decision"]["sets"].update(per_class=False)),
    "cutoffs that are a word": ("sets", lambda f: f["decision"]["sets"].update(cutoffs="abc")),
    "a cutoff above 1": ("sets", lambda f: f["decision"]["sets"]["cutoffs"].__setitem__(0, 2)),
    "a coverage of 1": ("sets", lambda f: f["decision"]["sets"].update(coverage=1)),
    "a coverage that is a word": ("sets", lambda f: f["decision"]["sets"].update(coverage="0.9")),
    "per class that is a number": ("sets", lambda f: f["decision"]["sets"].update(per_class=1)),
}


@pytest.mark.parametrize("harm", HARM)
def test_a_damaged_rule_is_refused(harm: str, bundle: Bundle, tmp_path: Path) -> None:
    rule, change = HARM[harm]
    save_bundle(tmp_path / "head", replace(bundle, decision=RULES[rule]), metrics={})
    change_metadata(tmp_path / "head", change)
    with pytest.raises(BundleError, match=r"damaged: in bundle\.json"):
        load_bundle(tmp_path / "head")
