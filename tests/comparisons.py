"""Comparisons of heads without a cache, a head or a clock: figures and shapes as real ones have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caches import RECIPE
from headstart.report.comparison import Comparison, Cost, CurvePoint, HeadResult
from headstart.report.comparison_plots import comparison_plots
from headstart.report.svg import Plot
from headstart.scores import Estimate, Score
from headstart.types import HeadSpec

FLOWERS = (
    "bluebell", "buttercup", "colts_foot", "cowslip", "crocus", "daffodil", "daisy", "dandelion", "fritillary", "iris",
    "lily_of_the_valley", "pansy", "snowdrop", "sunflower", "tigerlily", "tulip", "windflower",
)  # fmt: skip

#: Name, whether it is a baseline, how sharply it tells classes apart, seconds of a fit, of the search, ms of an image.
HEADS = (
    ("logistic", False, 7.4, 0.41, 6.2, 0.021),
    ("linear-svm", False, 7.2, 0.62, 9.9, 0.024),
    ("ridge", False, 7.1, 0.093, 0.8, 0.019),
    ("rbf-svm", False, 7.0, 1.9, 31.0, 0.44),
    ("dense", False, 6.8, 7.4, 0.0, 0.062),
    ("knn", False, 6.1, 0.004, 0.9, 0.31),
    ("nearest-class-mean", True, 5.8, 0.011, 0.0, 0.012),
    ("majority", True, 0.0, 0.0003, 0.0, 0.0001),
)

#: What a name of a class or of a file may be made of.
HOSTILE = (
    "<img src=x onerror=alert(1)>.png",
    "</title></svg><script>alert(2)</script>",
    "$\\frac{a}{$",
    "a|b`c`[bold]d[/]*e*",
    '=1+1,"quoted"\nnew line',
    "\udcff\udc80 undecodable",
    "\u202egnp.exe",
    "فراشة",
    "e\u0301́́ 蝴蝶 🦋",
    "a" * 255,
    "javascript:alert(3)",
    "../../etc/passwd",
)


def make_comparison(
    *,
    class_names: Sequence[str] = FLOWERS,
    n_samples: int = 1088,
    heads: Sequence[tuple[str, bool, float, float, float, float]] = HEADS,
    paths: Sequence[str] | None = None,
    learning_curve: bool = True,
    held_out: bool = True,
    auc: bool = True,
) -> Comparison:
    """Return a comparison; the same arguments, the same figures."""
    random = np.random.default_rng(7)
    n_classes = len(class_names)
    y_true = np.sort(random.permutation(n_samples) % n_classes)
    shared = random.normal(size=(n_samples, n_classes))  # what makes an image hard is hard for every head
    made = []
    for number, head in enumerate(heads):
        logits = shared * 1.7 + random.normal(size=shared.shape)
        logits[np.arange(n_samples), y_true] += head[2]
        made.append((number, head, softmax(logits * 1.4) if head[2] else np.full_like(shared, 1 / n_classes)))
    best = max(accuracy(y_true, probabilities) for _, head, probabilities in made if not head[1])
    results = [
        head_result(head, number, y_true, probabilities, class_names, best, learning_curve, held_out, auc)
        for number, head, probabilities in made
    ]
    results.sort(key=lambda head: (head.baseline, -head.metrics["accuracy"].value))
    results[0] = replaced(results[0], difference=None, p_value=None)
    return Comparison(
        cache="features/flowers17.h5",
        recipe=RECIPE,
        class_names=tuple(class_names),
        y_true=y_true,
        paths=tuple(paths or (f"{class_names[label]}/image_{row:04d}.jpg" for row, label in enumerate(y_true))),
        folds="5 folds, stratified by class, once; identical and near-identical images stay together",
        interval="percentile bootstrap over groups of images, 2,000 draws",
        test="corrected resampled t-test (Nadeau and Bengio, Machine Learning 52, 2003), Holm's correction",
        heads=tuple(results),
        recommended=results[0].name,
        recommendation=f"Take {results[0].name}: it is the most accurate; the difference to the next is noise.",
        leaks=("3 images are in both train and test (identical bytes); they were left out of the training images.",),
        held_out="the split that came with the data: 272 images" if held_out else "",
        command="headstart benchmark-heads features/flowers17.h5 --learning-curve --html report.html",
        machine="2 × Intel Xeon @ 2.20 GHz, 8 GiB, Linux 6.1",
        versions={"headstart": "0.1.0", "numpy": "2.1.3", "scikit-learn": "1.6.1"},
        seconds=143.2,
    )


def head_result(
    head: tuple[str, bool, float, float, float, float],
    number: int,
    y_true: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    class_names: Sequence[str],
    best: float,
    learning_curve: bool,
    held_out: bool,
    auc: bool,
) -> HeadResult:
    name, baseline, sharpness, fit_seconds, search_seconds, head_ms = head
    value = accuracy(y_true, probabilities)
    loss = float(-np.log(probabilities[np.arange(len(y_true)), y_true]).mean())
    metrics = {
        "accuracy": around(value, 0.013),
        "balanced_accuracy": around(value - 0.003, 0.014),
        "f1_macro": around(value - 0.004, 0.014),
        "roc_auc_ovr": around(0.998 - 0.001 * number if sharpness else 0.5, 0.002 if sharpness else 0)
        if auc
        else Estimate(np.nan, np.nan, np.nan),
        "average_precision": around(value, 0.01) if auc else Estimate(np.nan, np.nan, np.nan),
        "log_loss": Estimate(loss, loss * 0.9, loss * 1.1),
        "ece": around(0.02 + 0.004 * number, 0.008),
    }
    sizes = (5, 10, 20, 40, 51)
    curve = tuple(CurvePoint(size, around(value * (1 - 0.9 / (size + 2)), 0.05 / size**0.5)) for size in sizes)
    return HeadResult(
        name=name,
        baseline=baseline,
        spec=HeadSpec(name, ("avg",), "sqrt-l2", params={"C": 10.0}) if not baseline else None,
        metrics=metrics,
        fold_accuracy=tuple(float(value + shift) for shift in (-0.011, 0.004, 0.009, -0.006, 0.004)),
        probabilities=probabilities.astype(np.float32),
        cost=Cost(
            fit_seconds,
            search_seconds,
            head_ms,
            head_ms + 96.5,
            20_000 + 250_000 * number,
            3_000_000 * number + 1_200_000,
        ),
        difference=Estimate(value - best, value - best - 0.011, value - best + 0.011),
        p_value=None if baseline else float(max(0.0004, 0.9 - 18 * (best - value))),
        fold_settings=() if baseline else ("C = 10 in 4 folds, C = 1 in 1",),
        held_out=held_out_score(value, class_names) if held_out else None,
        learning_curve=curve if learning_curve else (),
        notes=("did not converge in 2 of 5 folds (1,000 iterations)",) if name == "dense" else (),
    )


def held_out_score(value: float, class_names: Sequence[str]) -> Score:
    n_classes = len(class_names)
    per_class = [
        {"class": name, "precision": value, "recall": value, "f1": value, "support": 16} for name in class_names
    ]
    confusion = (np.eye(n_classes, dtype=int) * 16).tolist()
    interval = (value - 0.03, min(1.0, value + 0.02))
    return Score(272, value, interval, value, value, 0.2, per_class, confusion, tuple(class_names))


def accuracy(y_true: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float:
    return float((probabilities.argmax(axis=1) == y_true).mean())


def around(value: float, half: float) -> Estimate:
    return Estimate(float(value), float(value - half), float(min(1, value + half)))


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def replaced(value: Any, **changes: Any) -> Any:
    """Return a frozen value with some of its fields changed."""
    return replace(value, **changes)


def hostile_comparison() -> Comparison:
    """Return one whose classes, files and texts attack whoever shows them."""
    names = HOSTILE
    paths = [f"{names[row % len(names)]}/{names[(row // 7) % len(names)]}" for row in range(240)]
    made = make_comparison(class_names=names, n_samples=240, paths=paths)
    heads = tuple(replaced(head, notes=(*head.notes, HOSTILE[0])) for head in made.heads)
    return replaced(
        made, cache=HOSTILE[0], command=HOSTILE[1], leaks=(HOSTILE[1],), heads=heads, versions={HOSTILE[3]: HOSTILE[0]}
    )


@cache
def odd_comparisons() -> dict[str, Comparison]:
    """Return comparisons of every shape, by name."""
    return {
        "usual": make_comparison(),
        "two classes": make_comparison(class_names=("ants", "bees"), n_samples=240),
        "one head": make_comparison(heads=HEADS[:1], n_samples=170),
        "only baselines beside": make_comparison(heads=(HEADS[0], *HEADS[-2:]), n_samples=170),
        "many classes": make_comparison(
            class_names=[f"species {i:03d}" for i in range(200)], n_samples=1000, heads=HEADS[:4]
        ),
        "bare": make_comparison(heads=HEADS[:3], learning_curve=False, held_out=False, auc=False, n_samples=170),
        "a class without images": make_comparison(heads=HEADS[:3], n_samples=12),
        "hostile": hostile_comparison(),
    }


@cache
def plots_of(name: str) -> dict[str, Plot]:
    """Return the plots of one of them; they take seconds, and no test changes them."""
    return comparison_plots(odd_comparisons()[name])


def drawn_once(comparison: Comparison) -> dict[str, Plot]:
    """Return a comparison's plots; those of one of the odd comparisons are drawn once for all tests."""
    name = next((name for name, odd in odd_comparisons().items() if odd is comparison), None)
    return comparison_plots(comparison) if name is None else plots_of(name)
