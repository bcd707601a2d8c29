"""The examples in CONTRIBUTING.md work as they are written."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from headstart.bundles.bundle import load_bundle
from headstart.cache.reader import open_cache
from headstart.evaluate import targets
from headstart.evaluation import evaluate_head
from headstart.exchange.keras_file import as_layers
from headstart.fit import fit_head
from headstart.heads import catalogue
from headstart.heads.catalogue import default_spec
from headstart.selection.compare import compare_heads
from labelled import labelled_cache

pytestmark = pytest.mark.slow

PAGE = Path(__file__).resolve().parents[2] / "CONTRIBUTING.md"


def examples(heading: str) -> list[str]:
    """Return the Python blocks below a heading, each of less than 40 lines."""
    section = PAGE.read_text(encoding="utf-8").partition(f"## {heading}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```python\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    assert blocks
    assert all(len(block.splitlines()) < 40 for block in blocks)
    return blocks


def new_module(name: str, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a module importable for the rest of a test."""
    module = ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)
    exec(compile(source, f"<{name}>", "exec"), vars(module))


def test_a_head_is_one_module_and_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    estimator, entry = examples("Add a head")
    new_module("headstart.heads.least_squares", estimator, monkeypatch)
    monkeypatch.setitem(catalogue.HEAD_TYPES, "least-squares", None)  # removed at the end of the test
    exec(entry, {**vars(catalogue)})
    cache = labelled_cache(tmp_path / "cache.h5", [row % 3 for row in range(60)])

    spec = default_spec("least-squares", params={"sharpness": 4.0})
    result = fit_head(cache, spec, validation=0.3, output=tmp_path / "head")
    assert result.score.accuracy > 0.8
    loaded = load_bundle(tmp_path / "head")
    assert loaded.spec == spec
    with open_cache(cache) as opened:
        predicted = loaded.predict_proba(opened.batches(), opened.recipe)
    layers = as_layers(loaded.head.steps[-1][1])
    X = loaded.head.steps[0][1].transform(np.eye(64, dtype=np.float32))
    scores = X @ layers.layers[0].kernel
    np.testing.assert_allclose(
        np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True), loaded.head.steps[-1][1].predict_proba(X), atol=1e-6
    )
    assert predicted.shape == (60, 3)

    compared = compare_heads(cache, heads=("least-squares", "majority"), n_splits=3)
    assert compared.recommended == "least-squares"
    found = {head.name: head for head in compared.heads}["least-squares"]
    assert found.spec is not None
    assert set(found.spec.params) == {"sharpness"}, "benchmark-heads searches its grid"
    searched = fit_head(cache, default_spec("least-squares"), validation=0.3, search="params")
    assert searched.search is not None
    assert len(searched.search.trials) == 3


def test_a_target_is_one_class_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (target,) = examples("Add a target")
    monkeypatch.setitem(targets.TARGETS, "ants-or-not", None)  # removed at the end of the test
    exec(target, {**vars(targets)})
    labels = [row % 3 for row in range(60)]
    cache = labelled_cache(tmp_path / "cache.h5", [*labels, -1])
    others = labelled_cache(tmp_path / "others.h5", labels, of="other")

    result = fit_head(cache, "ridge", validation=0.3, target="ants-or-not", output=tmp_path / "head")
    assert result.score.class_names == ("ants", "other")
    assert result.score.n_samples == 18
    assert result.score.accuracy > 0.8
    assert result.search is not None
    assert "60 images" not in result.search.folds, "held-out images have no part in the search"
    bundle = load_bundle(tmp_path / "head")
    assert (bundle.target, bundle.class_names) == ("ants-or-not", ("ants", "other"))
    score, _ = evaluate_head(tmp_path / "head", others, include_training=True)
    assert score.class_names == ("ants", "other")
    assert [one["support"] for one in score.per_class] == [20, 40]
    compared = compare_heads(cache, heads=("ridge", "majority"), n_splits=3, target="ants-or-not")
    assert compared.class_names == ("ants", "other")
    assert np.bincount(compared.y_true).tolist() == [20, 40]
