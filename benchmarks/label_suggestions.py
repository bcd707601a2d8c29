"""How many labels are needed if images are labelled in the suggested order, and in a random one.

    python benchmarks/label_suggestions.py features/flowers17.h5 features/elpv.h5

For each cache and seed: a few random labels of each class, then batches in the order of each strategy. A ridge head on
``avg`` is fitted on the labels so far and scored on images that are never labelled: the test split, or a random quarter.
Printed and kept: mean accuracy after each batch, and the labels needed for 95 % of the accuracy with all labels, with the
standard error over seeds.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart import default_spec, make_head, open_cache
from headstart.decisions.familiarity import averages
from headstart.heads.base import outputs_of
from headstart.labelling.suggestions import choose_rows
from machine import write_result

STRATEGIES = ("random", "margin", "diverse")

#: Labels of each class at the start, seeds, and batches after the start.
START, SEEDS, BATCHES = 2, 10, 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("caches", nargs="+", type=Path)
    parser.add_argument("--batch", type=int, default=34, help="labels per batch")
    arguments = parser.parse_args()
    write_result("label-suggestions", {path.stem: measured(path, arguments.batch) for path in arguments.caches})


def measured(path: Path, batch: int) -> dict[str, Any]:
    with open_cache(path) as cache:
        X, y, splits = averages(cache.batches(), ("avg",)), cache.labels, np.array(cache.splits)
    result: dict[str, Any] = {"batch": batch}
    for strategy in STRATEGIES:
        found = [curve(X, y, splits, strategy, seed, batch) for seed in range(SEEDS)]
        accuracies, needed = np.array([one[0] for one in found]), np.array([one[1] for one in found])
        result[strategy] = {
            "n_labels": found[0][2],
            "accuracy": accuracies.mean(axis=0).round(4).tolist(),
            "needed": float(needed.mean()),
            "needed_standard_error": float(needed.std(ddof=1) / np.sqrt(SEEDS)),
        }
        print(
            f"{path.stem} {strategy}: {needed.mean():.0f} ± {result[strategy]['needed_standard_error']:.0f} labels",
            flush=True,
        )
        print("  " + " ".join(f"{value:.3f}" for value in result[strategy]["accuracy"]), flush=True)
    return result


def curve(
    X: NDArray[np.float32], y: NDArray[np.int64], splits: NDArray[np.str_], strategy: str, seed: int, batch: int
) -> tuple[list[float], float, list[int]]:
    """Return the accuracy after each batch, the labels needed for 95 % of that with all labels, and the labels so far."""
    random = np.random.default_rng(seed)
    held_out = splits == "test" if (splits == "test").any() else random.permutation(len(X)) < len(X) // 4
    pool = np.flatnonzero(~held_out)
    labelled = np.concatenate([random.choice(pool[y[pool] == c], START, replace=False) for c in np.unique(y[pool])])
    final = accuracy(X[pool], y[pool], X[held_out], y[held_out])
    found, counts = [], []
    for _ in range(BATCHES + 1):
        found.append(accuracy(X[labelled], y[labelled], X[held_out], y[held_out]))
        counts.append(len(labelled))
        rest = np.setdiff1d(pool, labelled)
        probabilities = predicted(X[labelled], y[labelled], X[rest], int(y.max()) + 1)
        chosen = choose_rows(probabilities, X[rest].__getitem__, batch, strategy, seed)  # type: ignore[arg-type]
        labelled = np.concatenate([labelled, rest[chosen]])
    enough = [n for n, value in zip(counts, found, strict=True) if value >= 0.95 * final]
    return found, float(enough[0] if enough else len(pool)), counts


def predicted(X: NDArray[np.float32], y: NDArray[np.int64], other: NDArray[np.float32], n: int) -> NDArray[np.float64]:
    head = make_head(default_spec("ridge", features=("avg",), scaling="none")).fit(X, y)
    return outputs_of(head, other, n)


def accuracy(
    X: NDArray[np.float32], y: NDArray[np.int64], other: NDArray[np.float32], y_other: NDArray[np.int64]
) -> float:
    return float((predicted(X, y, other, int(y.max()) + 1).argmax(axis=1) == y_other).mean())


if __name__ == "__main__":
    main()
