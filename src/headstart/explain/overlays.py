"""Explanations as files: a heat map over each image, and a page of all."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.errors import DataError, HeadstartError
from headstart.explain.explanations import Explanation
from headstart.explain.heat_maps import Floats
from headstart.report.html_pages import pictures, render_page
from headstart.storage.publishing import replacing
from headstart.texts import reason_of

#: Colours for and against the class: vermilion and blue of Okabe & Ito, "Color universal design", 2008, which people with
#: any colour blindness can tell apart.
FOR, AGAINST = (213, 94, 0), (0, 114, 178)

#: Opacity of the largest value of a heat map; 0 is transparent.
MAX_OPACITY = 0.8

PAGE = "index.html"

#: Names of overlays.
OVERLAY = re.compile(r"[0-9]{4,}-[A-Za-z0-9_-]*\.png")

#: Letters of the image's name in that of its overlay.
MAX_STEM = 60

#: Images on the page, some 25 kB each; all have a file.
MAX_ON_PAGE = 500


@dataclass(frozen=True, slots=True)
class Entry:
    """An explanation without its arrays, and the overlay; an image that could not be read has none."""

    explanation: Explanation
    file: str = ""
    limit: float = 0.0  # largest absolute value of the heat map, which has the full colour


def overlay(pixels: NDArray[np.uint8], values: Floats) -> NDArray[np.uint8]:
    """Return an image in grey, with its heat map over it, shape (size, size, 3).

    The map is enlarged bilinearly. Its largest absolute value has the full colour; 0 is transparent.
    """
    limit = np.abs(values).max()
    size = pixels.shape[1], pixels.shape[0]
    scaled = Image.fromarray((values / (limit or 1.0)).astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    heat = np.asarray(scaled)[:, :, None]
    grey = np.asarray(Image.fromarray(pixels).convert("L"), np.float32)[:, :, None]
    opacity = MAX_OPACITY * np.abs(heat)
    blended = (1 - opacity) * grey + opacity * np.where(heat > 0, FOR, AGAINST)
    rounded: NDArray[np.uint8] = blended.round().astype(np.uint8)
    return rounded


def write_explanations(
    explanations: Iterable[Explanation], folder: Path, *, title: str = "", overwrite: bool = False
) -> list[Entry]:
    """Write an overlay (PNG) of each image and the page ``index.html``; the folder appears whole or not at all.

    Parameters
    ----------
    explanations : iterable of Explanation
        From :func:`headstart.explain_images`; one at a time is in memory.
    folder : Path
    title : str
        Name of the head on the page.
    overwrite : bool
        Replace a folder that holds explanations. Nothing else is ever replaced.

    Returns
    -------
    list of Entry
        One for each image, without its pixels.

    Raises
    ------
    DataError
        If something lies there that is not to be replaced, or it cannot be written.
    """
    check_target(folder, overwrite=overwrite)
    entries: list[Entry] = []
    shown: dict[str, bytes] = {}
    try:
        with replacing(folder.resolve()) as partial:
            for number, explanation in enumerate(explanations, 1):
                entries.append(_write_overlay(partial, explanation, number, shown))
            failures = [entry.explanation.prediction for entry in entries if not entry.file]
            page = render_page(
                "explain",
                title=title,
                entries=entries,
                failures=failures,
                most=MAX_ON_PAGE,
                picture=pictures(shown),
            )
            (partial / PAGE).write_text(page, encoding="utf-8")
    except HeadstartError:
        raise
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {reason_of(error)}.") from error
    return entries


def _write_overlay(folder: Path, explanation: Explanation, number: int, shown: dict[str, bytes]) -> Entry:
    """Write the overlay of one image; add image and overlay to what the page shows."""
    light = replace(explanation, pixels=None, heat_map=None)
    if explanation.pixels is None or explanation.heat_map is None:
        return Entry(light)
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(explanation.prediction.path).stem)[:MAX_STEM]
    file, values = f"{number:04d}-{stem}.png", explanation.heat_map.values
    made = overlay(explanation.pixels, values)
    (folder / file).write_bytes(encoded(made, "PNG"))
    if len(shown) < 2 * MAX_ON_PAGE:
        shown |= {file: encoded(made, "JPEG"), f"image of {file}": encoded(explanation.pixels, "JPEG")}
    return Entry(light, file, float(np.abs(values).max()))


def encoded(pixels: NDArray[np.uint8], kind: str) -> bytes:
    """Return pixels as the bytes of a PNG or JPEG file."""
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, kind)
    return written.getvalue()


def check_target(folder: Path, *, overwrite: bool) -> None:
    """Raise DataError if something lies at ``folder`` that is not to be replaced."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if PAGE not in names or not all(OVERLAY.fullmatch(name) for name in names - {PAGE}):
        raise DataError(
            f"{folder} exists and holds something else than explanations, so it is not replaced.",
            hint="Choose another folder (`output`).",
        )
    if not overwrite:
        raise DataError(
            f"{folder} holds explanations already.",
            hint="Replace them with `overwrite=True`, or choose another folder (`output`).",
        )
