"""What the preset jpeg-draft does to features and to accuracy, against pillow-antialias and the default.

python benchmarks/draft_effect.py data/flowers17_256px --enlarge 4

Every picture of a folder of class folders is enlarged (bicubic, JPEG of quality 90), so that the decoder can scale it down
again; features are made with each preset, in the same precision. Then, row by row, the cosine to those of
``pillow-antialias``; and the accuracy of the default head in 5 × 5-fold cross-validation, the folds the same for all, and its
paired difference to ``pillow-antialias`` with the standard deviation over the five repeats.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from headstart.backbones.precision import row_cosines
from headstart.cache.reader import FeatureCache, open_cache
from headstart.extract.run import extract_features
from headstart.heads.catalogue import default_spec, make_head
from headstart.heads.transforms import design_matrix
from headstart.images.resize import RESIZE_PRESETS
from machine import write_result

REFERENCE = "pillow-antialias"
FOLDS, REPEATS = 5, 5


def enlarge(source: Path, target: Path, factor: int) -> list[int]:
    """Write every image of a folder so many times as wide and high; return the shorter sides, pixels."""
    sides = []
    for path in sorted(source.rglob("*.jpg")):
        with Image.open(path) as image:
            size = (image.width * factor, image.height * factor)
            large = image.convert("RGB").resize(size, Image.Resampling.BICUBIC) if factor > 1 else image.convert("RGB")
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        large.save(copy, quality=90)
        sides.append(min(size))
    return sides


def accuracies(cache: FeatureCache) -> np.ndarray:
    """Return the accuracy of the default head, one of each repeat."""
    spec = default_spec("logistic")
    X = design_matrix(cache.batches(), spec.features, n_samples=cache.n_images)
    found = []
    for repeat in range(REPEATS):
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=repeat)
        found.append(np.mean(cross_val_predict(make_head(spec), X, cache.labels, cv=folds) == cache.labels))
    return np.array(found)


def compare(cache: FeatureCache, reference: FeatureCache, baseline: np.ndarray) -> dict[str, Any]:
    """Return cosines and accuracies of a cache, against those of the reference."""
    pairs = zip(cache.batches(), reference.batches(), strict=True)
    cosines = np.concatenate([row_cosines(a.features, b.features) for a, b in pairs])
    scores = accuracies(cache)
    return {
        "cosine_mean": round(float(cosines.mean()), 5),
        "cosine_min": round(float(cosines.min()), 5),
        "accuracy": round(float(scores.mean()), 4),
        "difference": round(float((scores - baseline).mean()), 4),
        "difference_sd": round(float((scores - baseline).std(ddof=1)), 4),
    }


def main() -> None:
    """Measure and write ``results/draft-effect-<folder>.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--enlarge", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sides = enlarge(options.data, folder / "data", options.enlarge)
        for preset in RESIZE_PRESETS:
            extract_features(folder / "data", folder / f"{preset}.h5", resize=preset)
        with open_cache(folder / f"{REFERENCE}.h5") as reference:
            baseline, presets = accuracies(reference), {}
            for preset in RESIZE_PRESETS:
                with open_cache(folder / f"{preset}.h5") as cache:
                    presets[preset] = compare(cache, reference, baseline)
            metadata = {"images": reference.n_images, "precision": reference.recipe.precision}
    sizes = {
        "enlarged": options.enlarge,
        "shorter_side_px": [int(np.min(sides)), int(np.median(sides)), int(np.max(sides))],
    }
    write_result(f"draft-effect-{options.data.name}", {**metadata, **sizes, "reference": REFERENCE, "presets": presets})


if __name__ == "__main__":
    main()
