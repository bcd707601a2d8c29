"""What a search gains if it also tries the last inner layer joined to ``avg``: nested cross-validation on training images.

    python benchmarks/searched_features.py lite2/hymenoptera.h5 lite2/flowers17.h5 [--heads ridge linear-svm] [--repeats 2]

In each outer fold a head is searched twice on the other folds, once for ``avg`` and once for the two joined, and the better
by its inner score is taken, as ``fit-head`` would. Printed: accuracies on the outer folds, the difference of the chosen
one to ``avg`` with its standard error over the folds, and the seconds of both searches.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from headstart.cache.reader import FeatureCache, open_cache
from headstart.evaluate.folds import make_folds
from headstart.heads.catalogue import make_head
from headstart.heads.transforms import design_matrix
from headstart.selection.search import SearchResult, search_head
from machine import write_result


def accuracy(cache: FeatureCache, found: SearchResult, train: np.ndarray, test: np.ndarray) -> float:
    head = make_head(found.spec)
    X, X_test = (design_matrix(cache.batches(rows), found.spec.features, n_samples=len(rows)) for rows in (train, test))
    head.fit(X, cache.labels[train])
    return float((head.predict(X_test) == cache.labels[test]).mean())


def measure(cache: FeatureCache, head: str, repeats: int) -> dict[str, Any]:
    joined = (cache.recipe.pooled_layers[-1], "avg")
    is_training = ~np.isin(cache.splits, ("validation", "test"))
    rows = np.flatnonzero((cache.labels >= 0) & is_training)
    scores, seconds = [], np.zeros(2)
    folds = make_folds(cache.labels[rows], n_repeats=repeats, sha256=[cache.sha256[row] for row in rows.tolist()])
    for fold in folds.splits:
        train, test = rows[fold.train], rows[fold.test]
        found = [search_head(cache, head, train, features=names) for names in (("avg",), joined)]
        best = [max(trial.gain for trial in result.trials) for result in found]
        seconds += [result.seconds for result in found]
        of_both = [accuracy(cache, result, train, test) for result in found]
        scores.append([*of_both, of_both[int(best[1] > best[0])]])
    avg, inner, chosen = np.array(scores).T
    gain = chosen - avg
    return {
        "joined": joined,
        "accuracy": {"avg": avg.mean(), "joined": inner.mean(), "chosen": chosen.mean()},
        "gain": gain.mean(),
        "gain_error": gain.std(ddof=1) / np.sqrt(len(gain)),
        "seconds": seconds.round(2).tolist(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("caches", nargs="+", type=Path)
    parser.add_argument("--heads", nargs="+", default=["ridge", "linear-svm", "logistic", "rbf-svm"])
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    for path in arguments.caches:
        with open_cache(path) as cache:
            for head in arguments.heads:
                results[f"{path.stem}, {head}"] = found = measure(cache, head, arguments.repeats)
                print(path.stem, head, found, flush=True)
    write_result("searched-features", results)


if __name__ == "__main__":
    main()
