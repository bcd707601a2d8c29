"""Write ``bundles_v1/``: saved heads of bundle format 1, one of each kind, and what they predict.

The folder is committed and never made again once it is released: tests/unit/heads/test_golden.py proves that every later
headstart loads what the first one saved, and predicts the same. Training rows and asked rows are given by short formulas.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from headstart.bundles.bundle import Bundle, save_bundle
from headstart.heads.catalogue import default_spec, make_head
from headstart.heads.transforms import design_matrix
from headstart.types import FeatureBatch, HeadSpec, Recipe

RECIPE = Recipe(
    backbone="foreign:golden",
    weights="custom",
    weights_sha256="0123456789abcdef" * 4,
    layer="last",
    input_size_px=32,
    decode="golden-1",
    resize="golden",
    precision="float32",
    storage="float16",
)

#: The second class has no image.
CLASS_NAMES = ("ants", "none", "bees", "çà")

SPECS: dict[str, dict[str, Any]] = {
    "dense": {"features": ("flatten",), "params": {"hidden": [3], "epochs": 3, "dropout": 0.25}},
    "logistic": {"features": ("avg", "max"), "scaling": "standard", "params": {"C": 3.0, "class_weight": "balanced"}},
    "linear-svm": {"features": ("flatten",), "scaling": "none", "params": {"cv": 3}},
    "ridge": {"features": ("avg", "gem"), "scaling": "l2"},
    "knn": {"params": {"n_neighbors": 3}},
    "nearest-class-mean": {},
    "sklearn.naive_bayes.GaussianNB": {"features": ("max",), "params": {"var_smoothing": 0.01}},
}


def maps(n_images: int, seed: int) -> FeatureBatch:
    """Return what a backbone could have given: maps of 2 × 2 positions and 3 channels; image i tends to channel i % 3."""
    features = (
        np.random.default_rng(seed).random((n_images, 2, 2, 3)) + np.eye(3)[np.arange(n_images) % 3][:, None, None]
    )
    return FeatureBatch(features.astype(np.float16), np.zeros((n_images, 0), np.float32))


def spec_of(name: str) -> HeadSpec:
    """Return the spec of one head."""
    return default_spec(name, random_state=1, **SPECS[name])


def main(folder: Path) -> None:
    """Write the folder."""
    batch, asked = maps(18, seed=0), maps(5, seed=1)
    labels = np.array([0, 2, 3])[np.arange(18) % 3]
    expected: dict[str, Any] = {"asked": asked.features.ravel().tolist(), "probabilities": {}}
    for name in SPECS:
        spec = spec_of(name)
        head = make_head(spec).fit(design_matrix([batch], spec.features), labels)
        bundle = Bundle(head, spec, RECIPE, CLASS_NAMES)
        expected["probabilities"][name] = bundle.predict_proba([asked], RECIPE).tolist()
        save_bundle(folder / name, bundle, metrics={"accuracy": 0.75, "accuracy_interval": [0.5, 0.9], "n_samples": 24})
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
