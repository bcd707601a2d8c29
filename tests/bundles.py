"""Small fitted heads as bundles, and changes to what lies in one."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes import FakeBackbone
from headstart.bundles import bundle as bundles
from headstart.bundles.bundle import Bundle, load_bundle
from headstart.heads.catalogue import default_spec, make_head
from headstart.heads.transforms import design_matrix
from headstart.types import FeatureBatch

IMAGES = np.random.default_rng(0).integers(0, 256, (24, 35, 35, 3), dtype=np.uint8)
LABELS = np.repeat([0, 2], 12)  # class 1 has no image


def networks_are_slow(names: Iterable[str]) -> list[Any]:
    """Return types of heads as parameters of a test; a dense one needs TensorFlow, which takes seconds to import."""
    return [pytest.param(name, marks=pytest.mark.slow) if name == "dense" else name for name in names]


def fitted(name: str, batch: FeatureBatch) -> Bundle:
    spec = default_spec(name, params={"epochs": 2, "learning_rate": 1e-5} if name == "dense" else None)
    head = make_head(spec).fit(design_matrix([batch], spec.features), LABELS)
    return Bundle(head, spec, FakeBackbone().recipe, ("ant", "bee", "cat"))


def refresh_digest(folder: Path, name: str) -> None:
    """An attacker can write digests too."""
    metadata = json.loads((folder / "bundle.json").read_text())
    metadata["files"][name] = bundles.digest(folder / name)
    (folder / "bundle.json").write_text(json.dumps(metadata))


def change_metadata(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    metadata = json.loads((folder / "bundle.json").read_text())
    change(metadata)
    (folder / "bundle.json").write_text(json.dumps(metadata))


def resave(folder: Path, change: Callable[[Any], object]) -> None:
    """Save the head of a bundle again with something in its classifier changed, as another version could have left it."""
    import skops.io

    head = load_bundle(folder).head
    change(head.steps[-1][1])
    skops.io.dump(head, folder / "head.skops")
    refresh_digest(folder, "head.skops")


def rewrite(path: Path, *, member: str, data: bytes | None = None, compress: bool = False) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    members[member] = data if data is not None else members[member]
    kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
