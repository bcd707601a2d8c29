"""Names, types, limits and root attributes of cache format version 1; docs/cache-format.md is the specification."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from itertools import groupby
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5f, h5t

from headstart.errors import CacheError
from headstart.types import FeatureBatch, Recipe

#: First bytes of every HDF5 file, and the version of its superblock that carries a checksum (HDF5 File Format, II.A).
SIGNATURE = b"\x89HDF\r\n\x1a\n"
SUPERBLOCK_VERSION = 3

#: In the format of HDF5 1.10 every structure has a checksum.
CACHE_VERSIONS = (h5f.LIBVER_V110, h5f.LIBVER_V110)

#: Up to this many attributes stay in the object header, which has a checksum; more would move to a heap.
MAX_COMPACT_ATTRIBUTES = 64

#: Root attribute ``format``.
FORMAT = "headstart-cache"

#: Root attribute ``format_version``. Increment it if old readers would misread new files; add a golden file to tests/data and
#: keep reading every released version.
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

#: Limits enforced on untrusted files.
MAX_ROW_BYTES = 256 * 2**20
MAX_TEXT_BYTES = 32_767
MAX_ATTRIBUTE_BYTES = 32_767
MAX_CHUNK_BYTES = 2**20

#: Maximum expansion of a deflate stream (https://zlib.net/zlib_tech.html).
MAX_DEFLATE_RATIO = 1032

#: Raw size of one chunk of a column.
COLUMN_CHUNK_BYTES = 2**18

#: Packages whose versions are stored; the first group only if imported.
PACKAGES_IN_USE = ("tensorflow", "keras", "openvino", "ncnn")

PACKAGES = ("headstart", "numpy", "h5py", "hdf5plugin", "pillow")

#: Display names of the values of ``format``.
KINDS = {FORMAT: "feature cache", SHARDS_FORMAT: "manifest of shards"}


@dataclass(frozen=True, slots=True)
class Column:
    """One dataset of ``/rows`` or ``/failures``."""

    name: str
    dtype: str = "text"  # little-endian NumPy type; ``text`` for fixed-length UTF-8
    width: int = 0  # numbers per row; 0 for a one-dimensional dataset
    is_optional: bool = False  # whether the dataset may be missing; it is not written if all values are the default
    default: float = 0  # each value of a missing dataset

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
    Column("weight", "<f8", is_optional=True, default=1),
    Column("target", "<f8", is_optional=True, default=math.nan),
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

#: Columns of a manifest: the location of each row's features.
PLACE_COLUMNS = (Column("shard", "<i4"), Column("shard_row", "<i4"))

#: Columns of a manifest: the files.
SHARD_COLUMNS = (Column("name"), Column("n_images", "<i8"), Column("size_bytes", "<i8"), Column("sha256", "|u1", 32))


def column_layers(batch: FeatureBatch, pooled_layers: Sequence[str]) -> tuple[str, ...]:
    """Return the layer of each column of ``pooled``; raise CacheError unless they are ``pooled_layers``, in this order."""
    n_pooled = batch.pooled.shape[1]
    layers = batch.pooled_column_layer or (tuple(pooled_layers) * n_pooled if len(pooled_layers) == 1 else ())
    if len(layers) != n_pooled or (n_pooled and [name for name, _ in groupby(layers)] != list(pooled_layers)):
        raise CacheError(
            f"{n_pooled} pooled columns must be of the layers {', '.join(pooled_layers) or '(none)'}, in this order. "
            f"Received {len(layers)} columns of: {', '.join(dict.fromkeys(layers)) or '(none)'}."
        )
    return layers


@dataclass(frozen=True, slots=True)
class Header:
    """The root attributes of a cache."""

    recipe: Recipe  # how the features were made
    n_images: int  # rows of ``/rows`` and ``/failures``
    n_failures: int
    layout: str  # layout of the folder of images (images/discovery/scan.py); empty if unknown
    versions: Mapping[str, str]  # versions of the software that wrote the file
    info: Mapping[str, Any]  # further provenance; JSON types
    created: str  # ISO 8601, UTC


def now() -> str:
    """Return the current time as ISO 8601 in UTC; SOURCE_DATE_EPOCH overrides it."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    moment = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
    return moment.isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Return the versions of the software in use."""
    found = {"python": platform.python_version(), "hdf5": h5py.version.hdf5_version}
    for name in (*PACKAGES, *(name for name in PACKAGES_IN_USE if name in sys.modules)):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def write_header(file: Any, header: Header, form: str = FORMAT) -> None:
    """Write the root attributes as fixed-length strings; variable-length strings are stored in a heap without a checksum."""
    write_text_attribute(file, "format", form)
    file.attrs.create("format_version", FORMAT_VERSION, dtype="<i8")
    write_text_attribute(file, "recipe", header.recipe.to_json())
    write_text_attribute(file, "recipe_fingerprint", header.recipe.fingerprint)
    file.attrs.create("n_images", header.n_images, dtype="<i8")
    file.attrs.create("n_failures", header.n_failures, dtype="<i8")
    write_text_attribute(file, "layout", header.layout)
    write_text_attribute(file, "versions", json.dumps(dict(header.versions), sort_keys=True))
    write_text_attribute(file, "info", json.dumps(dict(header.info), sort_keys=True))
    write_text_attribute(file, "created", header.created)


def write_text_attribute(owner: Any, name: str, text: str) -> None:
    """Write a scalar string of fixed length; raise CacheError if it is too long."""
    data = text.encode("utf-8", "surrogateescape")
    if len(data) > MAX_ATTRIBUTE_BYTES:
        raise CacheError(f"The attribute {name} has {len(data):,} bytes; at most {MAX_ATTRIBUTE_BYTES:,} are possible.")
    owner.attrs.create(name, np.bytes_(data), dtype=h5py.string_dtype("utf-8", max(1, len(data))))


def read_header(file: Any, path: Path, form: str = FORMAT) -> Header:
    """Return the root attributes of a cache or a manifest.

    Raises CacheError if the file is something else, or of another version, and ValueError or KeyError on damage.
    """
    if form_of(file) != form:
        raise CacheError(
            f"{path} is an HDF5 file, but no {KINDS[form]}. Expected: a {'file' if form == FORMAT else 'manifest'} that "
            "extract-features wrote. If it has features, headstart import makes a cache of them."
        )
    version = read_integer_attribute(file, "format_version")
    if version != FORMAT_VERSION:
        raise CacheError(
            f"{path} has format version {version}; this headstart reads version {FORMAT_VERSION}. Update headstart."
        )
    n_images, most = read_integer_attribute(file, "n_images"), MAX_DEFLATE_RATIO * int(file.id.get_filesize())
    if n_images > most:
        raise ValueError(f"it announces {n_images:,} images, more than a file of its size can describe")
    text = read_text_attribute(file, "recipe")
    if hashlib.sha256(text.encode()).hexdigest() != read_text_attribute(file, "recipe_fingerprint"):
        raise ValueError("the recipe does not have the fingerprint that stands beside it")
    return Header(
        recipe=Recipe.from_json(text),
        n_images=n_images,
        n_failures=read_integer_attribute(file, "n_failures"),
        layout=read_text_attribute(file, "layout"),
        versions={str(name): str(value) for name, value in read_json_attribute(file, "versions").items()},
        info=read_json_attribute(file, "info"),
        created=read_text_attribute(file, "created"),
    )


def form_of(file: Any) -> str:
    """Return the attribute ``format``; empty if it is missing or not of fixed length."""
    try:
        return read_text_attribute(file, "format") if h5a.exists(file.id, b"format") else ""
    except ValueError:
        return ""


def read_text_attribute(owner: Any, name: str) -> str:
    """Return a scalar string of fixed length; raise ValueError for any other type."""
    attribute = h5a.open(owner.id, name.encode())
    kind = attribute.get_type()
    if not isinstance(kind, h5t.TypeStringID) or kind.is_variable_str() or attribute.shape != ():
        raise ValueError(f"the attribute {name} is not a string of fixed length")
    if kind.get_size() > MAX_ATTRIBUTE_BYTES:
        raise ValueError(f"the attribute {name} has {kind.get_size():,} bytes")
    value = np.empty((), f"S{kind.get_size()}")
    attribute.read(value, mtype=kind)
    return bytes(value[()]).decode("utf-8", "surrogateescape")


def read_integer_attribute(owner: Any, name: str) -> int:
    """Return a scalar, non-negative integer."""
    attribute = h5a.open(owner.id, name.encode())
    if not isinstance(attribute.get_type(), h5t.TypeIntegerID) or attribute.shape != ():
        raise ValueError(f"the attribute {name} is not an integer")
    value = np.empty((), np.int64)
    attribute.read(value)
    if value < 0:
        raise ValueError(f"the attribute {name} is {value}")
    return int(value)


def read_json_attribute(owner: Any, name: str) -> dict[str, Any]:
    """Return a JSON object."""
    value = json.loads(read_text_attribute(owner, name))
    if not isinstance(value, dict):
        raise ValueError(f"the attribute {name} is not a JSON object")
    return value
