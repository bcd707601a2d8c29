"""Version 1 of the cache format: names, types, limits. docs/cache-format.md is the specification; nothing here does I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headstart.errors import CacheError
from headstart.schema import POOLED_LAYERS

#: First bytes of every HDF5 file, and the version of its superblock that carries a checksum (HDF5 File Format, II.A).
SIGNATURE = b"\x89HDF\r\n\x1a\n"
SUPERBLOCK_VERSION = 3

#: Root attribute ``format``.
FORMAT = "headstart-cache"

#: Root attribute ``format_version``. Raise it when a reader of the old version would misread a new file, add a golden file
#: of the new version in tests/data, and keep reading every version that was ever released.
FORMAT_VERSION = 1

#: Root attribute ``format`` of the manifest of a folder of shards.
SHARDS_FORMAT = "headstart-shards"

FEATURES = "features"
POOLED = "pooled"
POOLED_COLUMN_LAYER = "pooled_column_layer"
CLASS_NAMES = "class_names"
ROWS = "rows"
FAILURES = "failures"
SHARDS = "shards"

#: Attribute of every column: SHA-256 of its values, hexadecimal.
DIGEST = "sha256"

#: Types of ``/features``.
STORAGES = ("float16", "float32")

#: Names of the compressions of ``/features``.
COMPRESSIONS = ("zstd", "gzip", "none")

#: HDF5 identifiers of the filters that a cache may use: deflate, shuffle, fletcher32 (H5Zpublic.h), zstd (registered
#: filter plugins, https://github.com/HDFGroup/hdf5_plugins). No other is ever loaded.
DEFLATE, SHUFFLE, FLETCHER32, ZSTD = 1, 2, 3, 32015

#: Levels, chosen by measurement: docs/adr/0001-cache-format.md.
ZSTD_LEVEL, GZIP_LEVEL = 1, 4

#: Bounds that a hostile file cannot talk a reader out of.
MAX_ROW_BYTES = 256 * 2**20
MAX_TEXT_BYTES = 32_767
MAX_ATTRIBUTE_BYTES = 32_767
MAX_CHUNK_BYTES = 2**20

#: No deflate stream expands by more (https://zlib.net/zlib_tech.html).
MAX_DEFLATE_RATIO = 1032

#: Raw size of one chunk of a column; the largest that is still cheap to read for one value.
COLUMN_CHUNK_BYTES = 2**18


@dataclass(frozen=True, slots=True)
class Column:
    """One dataset of ``/rows`` or ``/failures``.

    Attributes
    ----------
    name : str
        Name of the dataset.
    dtype : str
        NumPy type, little-endian; ``text`` for fixed-length UTF-8.
    width : int
        Numbers per row; 0 for a one-dimensional dataset.
    is_optional : bool
        Whether a file without it has zeros there; zeros alone are not written.
    """

    name: str
    dtype: str = "text"
    width: int = 0
    is_optional: bool = False

    @property
    def is_text(self) -> bool:
        """Whether the values are strings."""
        return self.dtype == "text"


ROW_COLUMNS = (
    Column("path"),
    Column("split"),
    Column("group"),
    Column("notes"),
    Column("label", "<i4"),
    Column("sha256", "|u1", 32),
    Column("features_sha256", "|u1", 32),
    Column("size_bytes", "<i8"),
    Column("mtime_ns", "<i8"),
    Column("stamp", "<u4", is_optional=True),
    Column("width_px", "<i4"),
    Column("height_px", "<i4"),
)

FAILURE_COLUMNS = (
    Column("path"),
    Column("label"),
    Column("split"),
    Column("group"),
    Column("reason"),
    Column("size_bytes", "<i8"),
    Column("mtime_ns", "<i8"),
)

#: In a manifest: where the features of a row are.
PLACE_COLUMNS = (Column("shard", "<i4"), Column("shard_row", "<i4"))

#: In a manifest: the files.
SHARD_COLUMNS = (
    Column("name"),
    Column("n_images", "<i8"),
    Column("size_bytes", "<i8"),
    Column("sha256", "|u1", 32),
)


def column_layers(pooled_layers: Sequence[str], n_pooled: int) -> list[str]:
    """Return the layer of each column of ``/pooled``.

    Raises
    ------
    CacheError
        If the widths of the layers do not add up to ``n_pooled``.
    """
    widths = dict(POOLED_LAYERS)
    if len(pooled_layers) == 1 and pooled_layers[0] not in widths:
        return [pooled_layers[0]] * n_pooled
    columns = [name for name in pooled_layers for _ in range(widths.get(name, 0))]
    if len(columns) != n_pooled:
        raise CacheError(
            f"The pooled layers {', '.join(pooled_layers) or '(none)'} have {len(columns)} columns. Received: {n_pooled}."
        )
    return columns
