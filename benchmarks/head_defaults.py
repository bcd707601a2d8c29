"""Cross-validate every head of the catalogue, and the values around its defaults, on the training images of caches.

The figures of docs/heads.md are from ``python benchmarks/head_defaults.py flowers17.h5 hymenoptera.h5``. The dense head,
which takes the flattened map and much longer, is measured with ``--heads dense``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from headstart.cache.reader import open_cache
from headstart.heads.catalogue import HEAD_TYPES, default_spec, make_head
from headstart.heads.transforms import design_matrix
from headstart.types import HeadSpec

#: One parameter at a time around these heads' defaults.
AROUND: dict[str, dict[str, tuple[Any, ...]]] = {
    "ridge": {"alpha": (0.01, 0.03, 0.1, 0.3, 3.0, 10.0)},
    "knn": {"n_neighbors": (3, 5, 20, 40), "smoothing": (0.03, 0.3, 1.0)},
    "nearest-class-mean": {"shrinkage": (0.03, 0.1, 0.3, 1.0)},
}


def specs(heads: Sequence[str]) -> Iterator[HeadSpec]:
    """Yield what is measured: heads with their defaults, the values around those, other poolings and scalings."""
    yield from (default_spec(name) for name in heads)
    for name in set(heads) & set(AROUND):
        for parameter, values in AROUND[name].items():
            yield from (default_spec(name, params={parameter: value}) for value in values)
    if "ridge" in heads:
        yield from (default_spec("ridge", features=(pooling,)) for pooling in ("max", "gem"))
    if "dense" in heads:
        yield from (default_spec("dense", scaling=scaling) for scaling in ("none", "sqrt-l2", "standard"))


def main() -> None:
    """Print a line for each head and cache."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("caches", nargs="+", type=Path)
    parser.add_argument("--heads", nargs="+", default=[name for name in HEAD_TYPES if name != "dense"])
    options = parser.parse_args()
    for path in options.caches:
        with open_cache(path) as cache:
            rows = np.flatnonzero([split in ("train", "") for split in cache.splits] & (cache.labels >= 0))
            y = cache.labels[rows]
            print(f"{path.stem}: {len(rows):,} training images, {len(set(y))} classes")
            for spec in specs(options.heads):
                X = design_matrix(cache.batches(rows), spec.features, n_samples=len(rows))
                folds = StratifiedKFold(5, shuffle=True, random_state=0)
                probabilities = cross_val_predict(make_head(spec), X, y, cv=folds, method="predict_proba")
                accuracy = np.mean(probabilities.argmax(axis=1) == y)
                chosen = ", ".join(f"{name}={value}" for name, value in spec.params.items())
                figures = f"{accuracy:.4f}  {log_loss(y, probabilities):.4f}"
                print(f"{spec.type:<20}{','.join(spec.features):<9}{spec.scaling:<10}{chosen:<20}{figures}", flush=True)


if __name__ == "__main__":
    main()
