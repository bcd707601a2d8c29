"""What the first headstart wrote, every later one reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from headstart.cache.reader import open_cache
from headstart.types import Failure, ImageRef

GOLDEN = Path(__file__).resolve().parents[2] / "data" / "cache_v1.h5"


def test_header_of_version_1() -> None:
    with open_cache(GOLDEN) as cache:
        assert cache.recipe.to_json() == (
            '{"backbone": "foreign:golden", "decode": "golden-1", "format_version": 1, "input_size_px": 32, '
            '"layer": "last", "pooled_layers": ["before last"], "precision": "float32", "resize": "golden", '
            '"storage": "float16", "weights": "custom", '
            '"weights_sha256": "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}'
        )
        assert (cache.n_images, cache.map_shape, cache.n_pooled, cache.compression) == (4, (2, 2, 3), 5, "zstd")
        assert cache.class_names == ("ants", "bees", "çà")
        assert cache.layout == "split-folders"
        assert cache.created == "2026-09-21T14:13:20+00:00"
        assert cache.info == {"precision_reason": "the golden one", "nested": [1, 2.5, None]}
        assert cache.versions["headstart"] == "0.1.0"
        assert cache.pooled_column_layer == ("before last",) * 5


def test_rows_of_version_1() -> None:
    with open_cache(GOLDEN) as cache:
        assert cache.refs() == [
            ImageRef("ants/1.jpg", "ants", "train", None, 1, 10),
            ImageRef("bees/ü, \n日本 \udcff.png", "bees", "validation", "group é", 2**40, -1),
            ImageRef("unlabelled.gif", None, None, None, 0, 2**62),
            ImageRef("ants/2.jpg", "ants", "test", "group é", 5, 6),
        ]
        assert cache.labels.tolist() == [0, 1, -1, 0]
        assert cache.sha256 == ["00" * 32, "ff" * 32, "5a" * 32, "a5" * 32]
        assert list(cache.rows.notes) == [(), (), ("alpha-on-white", "from-P"), ()]
        assert cache.rows.width_px.tolist() == [640, 1, 3, 7]
        assert cache.rows.height_px.tolist() == [480, 2**31 - 1, 4, 8]
        assert cache.rows.features_sha256[0] == "c25a98088038fafd14e14dfb305cde8d3d97321efabfe070337a1dc0fedfb6dc"
        assert cache.failures == (
            Failure(ImageRef("bees/broken \udcfe.jpg", "bees", "train", "group é", 9, 11), "The file is empty."),
        )


def test_features_of_version_1() -> None:
    expected = np.array([n / 8 if n % 8 == 0 else 0 for n in range(48)], np.float16).reshape(4, 2, 2, 3)
    with open_cache(GOLDEN) as cache:
        (batch,) = cache.batches()
        assert batch.features.dtype == np.float16
        assert batch.pooled.dtype == np.float32
        np.testing.assert_array_equal(batch.features, expected)
        np.testing.assert_array_equal(batch.pooled, np.arange(20, dtype=np.float32).reshape(4, 5) / np.float32(3))
