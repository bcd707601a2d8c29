"""The page that specifies the format tells the truth: its sessions are run on a file of the size they speak of."""

from __future__ import annotations

import doctest
import hashlib
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from caches import RECIPE
from headstart.backbones.vgg16 import VGG16
from headstart.cache.format import FAILURE_COLUMNS, FORMAT_VERSION, ROW_COLUMNS
from headstart.cache.writer import ShardWriter
from headstart.types import FeatureBatch, ImageRef, ImageRow

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "cache-format.md").read_text(encoding="utf-8")

#: The first image of the set that the page speaks of, as it is in the published archive.
FIRST_PATH = "train/ants/0013035.jpg"
FIRST_SHA256 = "3238568557b6136ee97388a7ee2737d62fe4f2b1ee554993bff79216341a0951"


def write_hymenoptera(path: Path) -> None:
    """Write a cache of 397 rows of VGG16's shape; the features are not those of the photographs."""
    layers = VGG16.pooled_layers
    recipe = replace(RECIPE, backbone="vgg16", layer="block5_pool", pooled_layers=layers)
    rng = np.random.default_rng(0)
    features = np.maximum(rng.normal(-1, 1, (1, 7, 7, 512)), 0)
    rows = [
        ImageRow(
            ImageRef(FIRST_PATH if n == 0 else f"{n}.jpg", ("ants", "bees")[n % 2], "train", None, 1, 1), digest, 9, 9
        )
        for n, digest in enumerate([FIRST_SHA256, *(hashlib.sha256(bytes([n % 256])).hexdigest() for n in range(396))])
    ]
    with ShardWriter(path, recipe=recipe, class_names=("ants", "bees")) as writer:
        batch = FeatureBatch(np.repeat(features, 397, axis=0), rng.random((397, 1472), np.float32), VGG16.column_layers)
        writer.append(batch, rows)


def test_the_sessions_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("features").mkdir()
    write_hymenoptera(Path("features/hymenoptera.h5"))
    sessions = "\n".join(re.findall(r"```pycon\n(.*?)```", PAGE, flags=re.DOTALL))
    test = doctest.DocTestParser().get_doctest(sessions, {}, "cache-format.md", None, 0)
    assert len(test.examples) > 12
    report: list[str] = []
    result = doctest.DocTestRunner(verbose=False).run(test, out=report.append, clear_globs=False)
    test.globs["f"].close()
    assert result.failed == 0, "".join(report)


def test_every_column_is_on_the_page() -> None:
    for column in (*ROW_COLUMNS, *FAILURE_COLUMNS):
        assert re.search(rf"\b{column.name}\b", PAGE), column.name
    assert f"# Cache format, version {FORMAT_VERSION}" in PAGE
