"""Heads that several tests read, and copies that they harm."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from bundles import IMAGES, fitted
from fakes import FakeBackbone
from headstart.bundles.bundle import save_bundle
from headstart.types import FeatureBatch


@pytest.fixture(scope="session")
def batch() -> FeatureBatch:
    return FakeBackbone().forward(IMAGES)


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory, batch: FeatureBatch) -> Callable[[str], Path]:
    """Saves a head of a type when it is first asked for: a dense one needs TensorFlow, which takes seconds to import."""
    folder = tmp_path_factory.mktemp("heads")
    return cache(lambda name: save_bundle(folder / name, fitted(name, batch), metrics={"accuracy": 0.5}))


@pytest.fixture
def copy_of(saved: Callable[[str], Path], tmp_path: Path):
    import shutil

    return lambda name: Path(shutil.copytree(saved(name), tmp_path / name))
