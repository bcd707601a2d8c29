"""Clusters of images without labels: purity and adjusted Rand index, beside k-means on the raw averages.

    python benchmarks/clusters.py FOLDER|CACHE…

The classes (of class folders) are used to judge the clusters alone. Both ways read the same cache, in this run: ``headstart
cluster`` with the number of classes and with its own choice of the number, and scikit-learn's KMeans on the averages of the
stored layer as they are. k-means depends on its starts: mean and standard deviation of five seeds.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from sklearn.metrics.cluster import contingency_matrix

from headstart import cluster_images, design_matrix, extract_features, open_cache
from machine import write_result

SEEDS = range(5)


def purity(classes: Any, clusters: Any) -> float:
    """Share of the images that are of the most frequent class of their cluster (Manning et al., 2008, section 16.3)."""
    return float(contingency_matrix(classes, clusters).max(axis=0).sum() / len(classes))


def judged(classes: Any, runs: list[Any]) -> dict[str, Any]:
    """Purity and adjusted Rand index of several runs, each as mean and standard deviation."""
    both = np.array([(purity(classes, run), adjusted_rand_score(classes, run)) for run in runs])
    return {
        "n_clusters": [int(run.max()) + 1 for run in runs],
        "purity": [round(float(v), 4) for v in (both[:, 0].mean(), both[:, 0].std())],
        "adjusted_rand_index": [round(float(v), 4) for v in (both[:, 1].mean(), both[:, 1].std())],
    }


def measured(path: Path) -> dict[str, Any]:
    with open_cache(path) as cache:
        classes, n_classes = cache.labels, len(cache.class_names)
        raw = design_matrix(cache.batches(), ("avg",), n_samples=cache.n_images)
    start = time.perf_counter()
    chosen = [cluster_images(path, random_state=seed).labels for seed in SEEDS]
    seconds = (time.perf_counter() - start) / len(SEEDS)
    return {
        "n_images": len(classes),
        "n_classes": n_classes,
        "k-means on raw averages": judged(
            classes, [KMeans(n_classes, n_init=10, random_state=seed).fit_predict(raw) for seed in SEEDS]
        ),
        "headstart cluster": judged(
            classes, [cluster_images(path, n_classes, random_state=seed).labels for seed in SEEDS]
        ),
        "headstart cluster, own number": judged(classes, chosen) | {"seconds": round(seconds, 2)},
    }


def main() -> None:
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for given in map(Path, sys.argv[1:]):
            cache = given
            if given.suffix != ".h5":
                cache = Path(folder) / f"{given.name}.h5"
                extract_features(given, output=cache)
            found = measured(cache)
            print(f"{given.name}: {found['n_images']:,} images of {found['n_classes']} classes")
            for name, one in found.items():
                if isinstance(one, dict):
                    values = " ".join(
                        f"{key} {one[key][0]:.3f} ± {one[key][1]:.3f}" for key in ("purity", "adjusted_rand_index")
                    )
                    print(f"  {name:30} {values}, {min(one['n_clusters'])}–{max(one['n_clusters'])} clusters")
            results[given.stem] = found
    write_result("clusters", results)


if __name__ == "__main__":
    main()
