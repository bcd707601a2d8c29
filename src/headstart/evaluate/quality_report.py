"""All checks on a cache, as a report with thumbnails of the listed images."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.cache.reader import FeatureCache, open_cache
from headstart.errors import DataError, ImageError
from headstart.evaluate.leakage import NEAR_DUPLICATE_COSINE
from headstart.evaluate.quality_checks import (
    LABELS,
    NEAR,
    Columns,
    file_findings,
    identical_files,
    label_errors,
    near_duplicates,
    why_not,
)
from headstart.evaluate.random_crops import refuse_crops
from headstart.images.decode import decode
from headstart.images.discovery.refs import state_of
from headstart.images.load import read_image_bytes
from headstart.images.samples import DEFAULT_RULES, DecodeRules
from headstart.report.html_pages import SEVERITIES, Check, Finding, QualityReport
from headstart.runtime import usable_cores
from headstart.types import ImageRef

#: Longer side of a thumbnail, and its JPEG quality: some 5 KB each.
SIZE_PX, QUALITY = 160, 80

#: Images whose features are compared: 5 · 10⁹ pairs, a minute or two on two cores, and 200 MB of memory.
MAX_COMPARED = 100_000

#: Examples per finding; all cases are counted.
MAX_EXAMPLES = 100

#: Examples of a finding, and images of an example, that get thumbnails.
THUMBNAIL_EXAMPLES, THUMBNAIL_MEMBERS = 24, 6

NOT_FINITE = Check(
    "features-not-finite",
    "Features that are not finite",
    "error",
    "The network overflowed, or the cache was made elsewhere and is damaged. Extract them again, in float32.",
)


def inspect_quality(
    cache: str | Path,
    data: str | Path | None = None,
    *,
    near_duplicate_cosine: float = NEAR_DUPLICATE_COSINE,
    min_images_per_class: int = 20,
    max_compared: int = MAX_COMPARED,
    max_examples: int = MAX_EXAMPLES,
    random_state: int = 0,
) -> QualityReport:
    """Return the oddities of the images in a cache; no image goes through the network.

    Parameters
    ----------
    cache, data : str or Path
        A feature cache and, for thumbnails, the folder of images.
    near_duplicate_cosine : float
        Least cosine of near-duplicates (evaluate/leakage.py says how it was chosen).
    min_images_per_class : int
        Classes with fewer images are listed.
    max_compared : int
        Features of larger caches are compared on a random sample of this size.
    max_examples : int
        Examples per finding; all cases are counted.
    random_state : int
        Seeds the sample and the folds.

    Raises
    ------
    CacheError, DataError
        If the cache cannot be read, or there is no such folder of images.

    Examples
    --------
    >>> report = inspect_quality("features/photos.h5")                                 # doctest: +SKIP
    >>> for finding in report.findings:                                                # doctest: +SKIP
    ...     print(finding.check.title, finding.count)
    Near-duplicates 4
    """
    with open_cache(cache) as opened:
        refuse_crops(opened)
        columns, rules = read_columns(opened, max_examples), DecodeRules.of(opened.recipe)
        found = [*file_findings(columns, min_images_per_class), *identical_files(columns)]
        rows = sampled_rows(opened.n_images, max_compared, random_state)
        features, rows, damaged = _finite_features(opened, columns, rows)
    found += [damaged, *near_duplicates(columns, features, rows, near_duplicate_cosine)]
    skipped = {NEAR.title: "fewer than two images to compare"} if len(rows) < 2 else {}
    if reason := why_not(columns, rows):
        skipped[LABELS.title] = reason
    else:
        found.append(label_errors(columns, features, rows, random_state))
    if not columns.class_names:
        skipped["Classes"] = "the images have no labels"
    if len(rows) + damaged.count < len(columns.rows.path):
        skipped["Features of all images"] = (
            f"{len(rows):,} of {len(columns.rows.path):,} images, drawn at random, were compared"
        )
    worst_first = sorted((f for f in found if f.count), key=lambda f: SEVERITIES.index(f.check.severity))
    report = QualityReport(
        cache=str(cache),
        n_images=len(columns.rows.path),
        n_failures=len(columns.failures),
        findings=tuple(replace(f, examples=f.examples[:max_examples]) for f in worst_first),
        passed=tuple(f.check.title for f in found if not f.count and f.check.title not in skipped),
        skipped=skipped,
        thumbnails_missing="" if data else "They need the folder of images.",
    )
    return _with_thumbnails(report, columns, Path(data), rules) if data else report


def read_columns(cache: FeatureCache, max_examples: int) -> Columns:
    """Return the metadata that the checks need; no features are read."""
    rows = cache.rows.kept("path", "split", "group", "sha256", "notes", "width_px", "height_px")
    size = cache.recipe.input_size_px
    return Columns(rows, cache.labels, cache.class_names, size, cache.failures, max_examples)


def sampled_rows(n_images: int, most: int, random_state: int) -> NDArray[np.int64]:
    """Return all row numbers, or a random sample of ``most``, in ascending order."""
    if n_images <= most:
        return np.arange(n_images, dtype=np.int64)
    return np.sort(np.random.default_rng(random_state).choice(n_images, most, replace=False)).astype(np.int64)


def _finite_features(
    cache: FeatureCache, columns: Columns, rows: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int64], Finding]:
    """Return the averages of the stored layer of some rows, the rows that are finite, and a finding on the others."""
    from headstart.heads.transforms import design_matrix

    if not len(rows):
        return np.empty((0, cache.map_shape[-1]), np.float32), rows, Finding(NOT_FINITE, 0)
    features = design_matrix(cache.batches(rows), ("avg",), n_samples=len(rows))
    finite = np.isfinite(features).all(axis=1)
    damaged = tuple(columns.example([row]) for row in rows[~finite])
    return features[finite], rows[finite], Finding(NOT_FINITE, len(damaged), damaged)


def _with_thumbnails(report: QualityReport, columns: Columns, data: Path, rules: DecodeRules) -> QualityReport:
    examples = (example for finding in report.findings for example in finding.examples[:THUMBNAIL_EXAMPLES])
    shown = dict.fromkeys(image.path for example in examples for image in example.images[:THUMBNAIL_MEMBERS])
    digests = {path: columns.rows.sha256[row] for row, path in enumerate(columns.rows.path) if path in shown}
    wanted = {path: digests[path] for path in shown if path in digests}
    made = make_thumbnails(data, wanted, rules)
    missing = len(wanted) - len(made)
    gone = f"{missing:,} of {len(wanted):,} images are missing in {data}, or have changed." if missing else ""
    return replace(report, thumbnails=made, thumbnails_missing=gone)


def make_thumbnails(data: Path, digests: Mapping[str, str], rules: DecodeRules = DEFAULT_RULES) -> dict[str, bytes]:
    """Return path → JPEG for every image of a folder, or of a manifest in it, that still has its digest.

    ``rules`` are those of the cache's recipe. Raises DataError if there is no such folder.
    """
    root = data.parent if data.is_file() else data
    if not root.is_dir():
        raise DataError(f"There is no folder {data}. Expected: the one that the features were extracted from.")
    with ThreadPoolExecutor(usable_cores()) as pool:
        made = pool.map(lambda path: thumbnail(root, path, digests[path], rules), digests)
        return {path: jpeg for path, jpeg in zip(digests, made, strict=True) if jpeg is not None}


def thumbnail(root: Path, path: str, sha256: str, rules: DecodeRules = DEFAULT_RULES) -> bytes | None:
    """Return the JPEG of an image; None if the file is gone, outside of the folder, or changed."""
    if path.startswith("/") or ".." in PurePosixPath(path).parts:
        return None
    try:
        data = read_image_bytes(root, ImageRef(path, None, None, None, *state_of((root / path).stat())))
        if hashlib.sha256(data).hexdigest() != sha256:
            return None
        pixels = decode(data, name=path, shrink=_shrink, rules=rules).pixels
    except (ImageError, OSError, ValueError):
        return None
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "JPEG", quality=QUALITY)
    return written.getvalue()


def _shrink(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((SIZE_PX, SIZE_PX))
    return np.asarray(image)
