"""The commands that take features to other programs and back, and the page that tells of them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from caches import CLASS_NAMES, RECIPE, make_batch, make_row
from headstart.backbones.vgg16 import VGG16
from headstart.cache.writer import ShardWriter
from headstart.types import FeatureBatch, ImageRow
from headstart_cli.app import COMMANDS, make_app, run

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
#: The page without its last section, which needs the real network: tests/weights/test_parity.py.
PAGE = (ROOT / "docs" / "exchange.md").read_text(encoding="utf-8").partition("## The whole classifier")[0]


def write_cache(path: str, numbers: Sequence[int], rows: Sequence[ImageRow] = ()) -> None:
    """Write a cache of some rows that has VGG16's pooled layers."""
    recipe = replace(RECIPE, pooled_layers=VGG16.pooled_layers)
    pooled = np.stack([np.random.default_rng(n).random(1472, np.float32) for n in numbers])
    with ShardWriter(Path(path), recipe=recipe, class_names=CLASS_NAMES) as writer:
        writer.append(
            FeatureBatch(make_batch(numbers).features, pooled, VGG16.column_layers),
            rows or [make_row(n) for n in numbers],
        )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with two caches, as the working folder."""
    monkeypatch.chdir(tmp_path)
    Path("features").mkdir()
    write_cache("features/data.h5", range(40))
    write_cache("features/more.h5", range(30, 50))
    return tmp_path


def headstart(*arguments: str) -> int:
    """Run ``headstart …``; return its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["headstart", *arguments])
        try:
            run(make_app(*COMMANDS))
        except SystemExit as end:
            return int(end.code or 0)
    return 0


def test_every_block_of_the_page_runs(folder: Path) -> None:
    pytest.importorskip("pyarrow")
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert {language for language, _ in blocks} == {"bash", "python", "matlab", "r", "julia"}
    for language, text in blocks:
        if language == "bash":
            for line in text.splitlines():
                command, *arguments = line.split("  #")[0].split()
                assert command == "headstart"
                assert headstart(*arguments) == 0, line
        elif language == "python":
            command = [sys.executable, "-W", "error", "-c", text]
            result = subprocess.run(command, cwd=folder, env=os.environ, capture_output=True, text=True, check=False)
            assert result.returncode == 0, f"{text}\n{result.stderr}"
            assert result.stdout.strip(), text


def test_h5_and_portable_go_together(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert headstart("convert", "features/data.h5", "b.h5") == 2
    assert headstart("convert", "features/data.h5", "b.npz", "--portable") == 2
    assert "--portable" in capsys.readouterr().err
    assert sorted(folder.iterdir()) == [folder / "features"]


def test_what_was_written_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert headstart("convert", "features/data.h5", "b.npz", "--features", "avg,block4_conv3") == 0
    assert "b.npz: 40 images × 516 features (avg, block4_conv3)" in capsys.readouterr().out.replace("\n", " ")
    assert headstart("convert", "features/data.h5", "b.npz") == 1
    assert "--overwrite" in capsys.readouterr().err


def test_caches_become_one_and_contradictions_are_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = replace(make_row(0, make_row(3).ref.path), sha256=make_row(0).sha256)
    write_cache("other.h5", [0], [other])
    command = ("merge", "features/data.h5", "other.h5", "-o", "all.h5")
    assert headstart(*command) == 1
    assert f"{other.ref.path}: other bytes" in capsys.readouterr().err.replace("\n", " ")
    assert headstart(*command, "--on-conflict", "later") == 0
    captured = capsys.readouterr()
    assert "1 contradictions" in captured.err
    assert "all.h5: 40 images, 2 classes; 0 were in more than one cache" in captured.out.replace("\n", " ")
