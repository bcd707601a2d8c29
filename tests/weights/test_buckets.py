"""The real network on photographs in a bucket: the rows of the same folder on a disk, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from buckets import put_folder
from headstart.cache.reader import open_cache
from headstart.extract.options import ExtractOptions
from headstart.extract.run import extract_features
from pictures import split_photographs

pytestmark = [pytest.mark.weights, pytest.mark.filterwarnings("ignore::ResourceWarning")]


def contents(path: Path | str) -> list[tuple[Any, ...]]:
    with open_cache(path) as cache:
        columns = (cache.rows.path, cache.rows.sha256, cache.rows.label, cache.rows.split, cache.rows.notes)
        rows = list(zip(*columns, strict=True))
        features = [
            (feature.tobytes(), pooled.tobytes())
            for batch in cache.batches()
            for feature, pooled in zip(batch.features, batch.pooled, strict=True)
        ]
        return [(cache.recipe, cache.class_names, cache.layout), *zip(rows, features, strict=True)]


def test_photographs_in_a_bucket(tmp_path: Path, s3: Any, imagenet: Any) -> None:
    folder = split_photographs(tmp_path / "photographs", n_per_class=3)
    put_folder(s3, folder, "photos", "photographs/")
    options = ExtractOptions(batch_size=8, input_size_px=64)
    extract_features(folder, tmp_path / "disk.h5", options=options)
    summary = extract_features("s3://photos/photographs", "s3://photos/features/photographs.h5", options=options)
    assert summary.n_computed == 12
    assert contents("s3://photos/features/photographs.h5") == contents(tmp_path / "disk.h5")
