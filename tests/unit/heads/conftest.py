"""Heads that several tests read, and copies that they harm."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundles import IMAGES, fitted
from fakes import FakeBackbone
from headstart.heads.bundle import save_bundle
from headstart.schema import FeatureBatch


@pytest.fixture(scope="session")
def batch() -> FeatureBatch:
    return FakeBackbone().forward(IMAGES)


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory, batch: FeatureBatch) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("heads")
    return {n: save_bundle(folder / n, fitted(n, batch), metrics={"accuracy": 0.5}) for n in ("dense", "logistic")}


@pytest.fixture
def copy_of(saved: dict[str, Path], tmp_path: Path):
    import shutil

    return lambda name: Path(shutil.copytree(saved[name], tmp_path / name))
