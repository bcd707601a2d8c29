from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from headstart.evaluate.intervals import influences


@settings(max_examples=40)
@given(st.integers(2, 4), st.integers(8, 40), st.integers(0, 10_000))
def test_influences_are_the_derivatives_by_the_weights_of_the_rows(n_classes: int, n_rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, n_classes, n_rows)
    # Coarse, so that scores are tied within classes and between them.
    probabilities = (rng.multinomial(6, np.ones(n_classes) / n_classes, n_rows) + 1) / (6 + n_classes)
    found = influences(y, probabilities)
    row = int(rng.integers(n_rows))
    weights = np.ones(n_rows)
    weights[row] += 1e-6
    own = {"sample_weight": weights}
    classes = [c for c in range(n_classes) if 0 < (y == c).sum() < n_rows]
    areas = [metrics.roc_auc_score(y == c, probabilities[:, c], **own) for c in classes if n_classes > 2 or c == 1]
    precisions = [metrics.average_precision_score(y == c, probabilities[:, c], **own) for c in classes]
    predicted = probabilities.argmax(axis=1)
    expected = {
        "accuracy": metrics.accuracy_score(y, predicted, **own),
        "balanced_accuracy": metrics.recall_score(y, predicted, average="macro", labels=np.unique(y), **own),
        "f1_macro": metrics.f1_score(y, predicted, average="macro", **own),
        "log_loss": metrics.log_loss(y, probabilities, labels=np.arange(n_classes), **own),
        "roc_auc_ovr": np.mean(areas) if areas else np.nan,
        "average_precision": np.mean(precisions) if precisions else np.nan,
    }
    for name, value in expected.items():
        influence = found[name]
        assert influence.value + 1e-6 * influence.rows[row] == pytest.approx(value, abs=1e-9, nan_ok=True), name
    for name, influence in found.items():
        assert influence.rows.sum() == pytest.approx(0, abs=1e-9), name
