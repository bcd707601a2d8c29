"""What the first headstart saved, every later one loads, and predicts the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bundles import networks_are_slow
from headstart.bundles.bundle import load_bundle
from headstart.types import FeatureBatch

GOLDEN = Path(__file__).resolve().parents[2] / "data" / "bundles_v1"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())


@pytest.mark.filterwarnings("ignore:.*was fitted with scikit-learn.*")
@pytest.mark.parametrize("name", networks_are_slow(EXPECTED["probabilities"]))
def test_a_head_of_version_1_predicts_what_it_did(name: str) -> None:
    maps = np.array(EXPECTED["asked"], np.float16).reshape(5, 2, 2, 3)
    bundle = load_bundle(GOLDEN / name)
    probabilities = bundle.predict_proba([FeatureBatch(maps, np.zeros((5, 0), np.float32))], bundle.recipe)
    np.testing.assert_allclose(probabilities, EXPECTED["probabilities"][name], rtol=1e-4, atol=1e-7)
    assert bundle.spec.type == name
    assert bundle.training_digests is None
    assert bundle.class_names == ("ants", "none", "bees", "çà")
    assert bundle.metrics == {"accuracy": 0.75, "accuracy_interval": [0.5, 0.9], "n_samples": 24}


@pytest.mark.filterwarnings("ignore:.*was fitted with scikit-learn.*")
@pytest.mark.parametrize("name", networks_are_slow(EXPECTED["probabilities"]))
def test_every_parameter_of_a_head_of_version_1_is_there(name: str) -> None:
    head = load_bundle(GOLDEN / name).head
    assert repr(head)
    assert {**head.get_params()}  # a parameter that has come since has its default
