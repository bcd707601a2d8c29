"""``headstart explain`` as a person runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from commands import Cli

pytestmark = pytest.mark.slow


def test_images_are_explained_and_unreadable_ones_listed(cli: Cli, head: Path, data: Path) -> None:
    (data / "bee" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    code, out, err = cli("explain", head, data / "ant" / "000.png", data / "bee", "-o", "why")
    assert code == 1
    assert "occlusion" in out
    assert "why/index.html" in out
    assert "bad.png: truncated" in err
    assert "1 image could not be read." in err
    assert len(list(Path("why").glob("*.png"))) == 13
    code, _, err = cli("explain", head, data / "ant" / "000.png", "-o", "why")
    assert code == 1
    assert "Replace them with --overwrite, or choose another folder (-o)." in err
    code, out, err = cli("explain", head, data / "ant" / "000.png", "-o", "why", "--overwrite", "--class", "bee")
    assert code == 0, err
    assert "bee" in out
    assert len(list(Path("why").glob("*.png"))) == 1


def test_what_cannot_be_explained_is_said(cli: Cli, head: Path, data: Path) -> None:
    code, _, err = cli("explain", head, data, "-o", "why", "--method", "cam")
    assert code == 1
    assert "Use --method auto." in err
    code, _, err = cli("explain", head, data, "-o", "why", "--class", "ants")
    assert code == 1
    assert "Did you mean ant?" in err
    assert not Path("why").exists()
