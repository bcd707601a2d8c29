"""What several tests of the cache read or harm."""

from __future__ import annotations

from pathlib import Path

import pytest

from folders import all_rows, publish, write_shards
from headstart.cache import sandbox


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return publish(tmp_path / "data", write_shards(tmp_path / "data"), all_rows())


@pytest.fixture
def without_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are opened at once: for thousands with a flipped byte, whose checksums are wrong, a process each is too slow."""
    monkeypatch.setattr(sandbox, "check_harmless", lambda path: None)
