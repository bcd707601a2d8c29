"""How faithful heat maps are: deletion and insertion curves, and agreement of occlusion of the map with that of pixels.

    python benchmarks/explain_curves.py CACHE IMAGES [N]

CACHE holds VGG16 features, at 224 pixels, of the images below IMAGES. Two logistic heads are fitted on ``avg``: with the
scaling ``standard``, explained by class activation, and with the default scaling, explained by occlusion of the map and
of the pixels. Of the images held out from both, N (20) are drawn, and the class that each head predicts is explained.

Deletion and insertion: Petsiuk, Das & Saenko, "RISE", BMVC 2018. The cells of the map, in descending order of the heat
map, are replaced in the image by its mean colour, or copied from the image into a blurred one (Gaussian, 10 pixels); the
score is the mean of the probability of the class over five images, from none to all of the 49 cells. Low is good for
deletion, high for insertion. Compared with a random order and with the distance from the centre, on the same images: the
mean difference with a 95 % interval (bootstrap over images, 10,000 resamples). Agreement: Spearman's rank correlation over
the cells of an image.
"""

from __future__ import annotations

import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy.stats import spearmanr

from headstart.explain.explanations import explain_images
from headstart.fit import fit_head
from headstart.heads.catalogue import default_spec
from headstart.predict import Predictor
from machine import write_result

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]

#: Cells replaced, between none and all.
STEPS = (12, 25, 37)
METHODS = {"standard": ("cam",), "sqrt-l2": ("occlusion", "occlusion-pixels")}
BASELINES = ("random", "centre")
CURVES = ("deletion", "insertion")


def masks(values: Floats, size: int) -> NDArray[np.bool_]:
    """Mark the pixels of the cells with the largest values, for each step."""
    ranks = np.argsort(np.argsort(-values.ravel(), kind="stable"), kind="stable").reshape(values.shape)
    ranks = np.kron(ranks, np.ones((size // 7, size // 7), np.int64))
    return np.stack([ranks < n for n in STEPS])[..., None]


def interval(values: list[float]) -> dict[str, float]:
    """Return the mean with a 95 % interval by the bootstrap."""
    found = np.array(values)
    draws = np.random.default_rng(0).integers(0, len(found), (10_000, len(found)))
    low, high = np.quantile(found[draws].mean(axis=1), [0.025, 0.975])
    return {"mean": round(float(found.mean()), 3), "low": round(float(low), 3), "high": round(float(high), 3)}


def fitted(cache: Path, folder: Path) -> tuple[dict[str, Predictor], list[str]]:
    """Fit a head for each scaling; return them, with one network, and the paths of the images held out from both."""
    found: dict[str, Predictor] = {}
    held_out: list[list[str]] = []
    for scaling in METHODS:
        result = fit_head(cache, default_spec("logistic", scaling=scaling), output=folder / scaling)
        found[scaling] = Predictor(folder / scaling, backbone=next(iter(found.values())).backbone if found else None)
        assert result.scored is not None
        held_out.append(sorted(result.scored.paths))
    assert held_out[0] == held_out[1]  # one split for both
    return found, held_out[0]


def curve_scores(heads: dict[str, Predictor], path: Path, seed: int) -> tuple[dict[str, float], float]:
    """Return the score of each head, order and curve on one image, and the rank correlation of the two occlusions."""
    explained = {
        method: (scaling, next(explain_images(heads[scaling], path, method=method)))
        for scaling, methods in METHODS.items()
        for method in methods
    }
    pixels: Pixels = explained["cam"][1].pixels
    away = np.hypot(*np.meshgrid(np.arange(7) - 3, np.arange(7) - 3))
    orders = {method: one.heat_map.values for method, (_, one) in explained.items()}
    agreement = float(spearmanr(orders["occlusion"].ravel(), orders["occlusion-pixels"].ravel()).statistic)
    orders |= {"random": np.random.default_rng(seed).random((7, 7)), "centre": -away}
    mean = np.broadcast_to(pixels.mean(axis=(0, 1)).round().astype(np.uint8), pixels.shape)
    blurred = np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(10)))
    backbone = heads["standard"].backbone
    ends = backbone.forward(np.stack([pixels, mean, blurred]))
    found = {}
    for order, values in orders.items():
        chosen = masks(values, len(pixels))
        steps = {"deletion": np.where(chosen, mean, pixels), "insertion": np.where(chosen, pixels, blurred)}
        for curve, images in steps.items():
            between = backbone.forward(images)
            for scaling, predictor in heads.items():
                output = explained[METHODS[scaling][0]][1].output
                at_ends, at_steps = (
                    predictor.bundle.outputs([batch], predictor.bundle.recipes)[:, output] for batch in (ends, between)
                )
                whole = [at_ends[0], at_ends[1 if curve == "deletion" else 2], *at_steps]
                found[f"{scaling} {order} {curve}"] = float(np.mean(whole))
    return found, agreement


def main() -> None:
    cache, images, n_images = Path(sys.argv[1]), Path(sys.argv[2]), int((sys.argv[3:] or ["20"])[0])
    scores: dict[str, list[float]] = defaultdict(list)
    agreements = []
    with tempfile.TemporaryDirectory() as folder:
        heads, held_out = fitted(cache, Path(folder))
        chosen = np.random.default_rng(0).permutation(held_out)[:n_images].tolist()
        for seed, path in enumerate(chosen):
            found, agreement = curve_scores(heads, images / path, seed)
            agreements.append(agreement)
            for name, score in found.items():
                scores[name].append(score)
            print(seed, path, round(agreement, 2), file=sys.stderr)
    result: dict[str, Any] = {"rank correlation of occlusion and occlusion-pixels": interval(agreements)}
    for scaling, methods in METHODS.items():
        for method in methods:
            for curve in CURVES:
                own = scores[f"{scaling} {method} {curve}"]
                others = {other: scores[f"{scaling} {other} {curve}"] for other in BASELINES}
                result[f"{method} {curve}"] = {"score": interval(own)} | {
                    f"less {other}": interval([a - b for a, b in zip(own, theirs, strict=True)])
                    for other, theirs in others.items()
                }
    write_result(f"explain-{cache.stem}", {"cache": cache.name, "n_images": len(chosen), **result})


if __name__ == "__main__":
    main()
