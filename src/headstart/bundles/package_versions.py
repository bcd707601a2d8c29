"""Versions of the packages that a head depends on: what has changed since it was saved, and whether it still works."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from headstart.errors import BundleError
from headstart.runtime import installed_versions

#: A row of them is 64 MiB; whatever a damaged file says, no more is allocated to see whether a head works.
MAX_TRIAL_FEATURES = 2**24


def version_difference(saved: Mapping[str, str]) -> str:
    """Return in words that scikit-learn has changed since a head was saved, beyond corrections; empty where it has not."""
    now = versions()["scikit-learn"]
    then = str(saved.get("scikit-learn", now))
    same = then.rpartition(".")[0] == now.rpartition(".")[0]
    return "" if same else f"was fitted with scikit-learn {then}, and is used with {now}"


def check_works(path: Path, head: Any, n_features: int | None) -> None:
    """Raise BundleError where a head of another scikit-learn cannot predict a row: what it needs is called otherwise now."""
    if n_features is None or n_features > MAX_TRIAL_FEATURES:
        return
    try:
        row = np.zeros((1, n_features), np.float32)
        head.predict_proba(row) if hasattr(head, "predict_proba") else head.predict(row)
    except Exception as error:  # another version's attributes: anything may be missing
        raise BundleError(f"{path} does not work here ({error}). Fit the head again.") from error


def versions() -> dict[str, str]:
    """Return the versions of what a head depends on."""
    return installed_versions(("headstart", "scikit-learn", "skops", "numpy", "keras", "tensorflow"))
