"""What several tests of the cache read or harm."""

from __future__ import annotations

from pathlib import Path

import pytest

from folders import all_rows, publish, write_shards


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return publish(tmp_path / "data", write_shards(tmp_path / "data"), all_rows())
