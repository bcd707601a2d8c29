"""The solar cells of the demo: read from an installed wheel, laid out as a folder of class folders.

The images are those of the ELPV data set: 2,624 electroluminescence photographs of solar cells, CC BY-NC-SA 4.0
(Deitsch et al., "Automatic classification of defective photovoltaic module cells in electroluminescence images",
Solar Energy 185, 2019). The wheel that carries them is read as data: it is neither imported nor changed.
"""

from __future__ import annotations

import filecmp
import importlib.metadata
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from headstart.errors import DataError, MissingExtraError
from headstart.texts import reason_of

#: The wheel of the extra ``demo``, and its table: image, probability of a defect as people judged it, type of cell.
WHEEL = "elpv-dataset"
TABLE = "elpv_dataset/data/labels.csv"

#: A cell counts as defective from this probability on.
DEFECTIVE_FROM = 0.5


@dataclass(frozen=True, slots=True)
class Cell:
    """One image of the wheel.

    Attributes
    ----------
    source : Path
        The file in the wheel.
    label : str
        ``functional`` or ``defective``.
    """

    source: Path
    label: str


def find_table() -> Path:
    """Return the table of the installed wheel.

    Raises
    ------
    MissingExtraError
        If the wheel is not installed, or its files are not there.
    """
    try:
        files = importlib.metadata.files(WHEEL) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    found = [Path(str(file.locate())) for file in files if file.as_posix() == TABLE]
    if not found or not found[0].is_file():
        raise MissingExtraError(
            f"The demo needs the solar cells of the wheel {WHEEL}, which is not installed: "
            'pip install "headstart[demo,weights]"'
        )
    return found[0]


def read_cells(table: Path) -> list[Cell]:
    """Return the cells that a table lists, sorted by file; its columns are separated by blanks, its paths are relative.

    Raises
    ------
    DataError
        If a line is not ``path probability type``, or the table is empty.
    """
    cells: list[Cell] = []
    for number, line in enumerate(table.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            path, probability, _ = line.split()
            label = "defective" if float(probability) >= DEFECTIVE_FROM else "functional"
        except ValueError as error:
            raise DataError(
                f"Line {number} of {table} is not an image, a probability and a type. Received: {line!r}."
            ) from error
        cells.append(Cell(table.parent / path, label))
    if not cells:
        raise DataError(f"{table} lists no images. Install the wheel again: pip install --force-reinstall {WHEEL}")
    return sorted(cells, key=lambda cell: cell.source)


def take(cells: Sequence[Cell], limit: int | None) -> list[Cell]:
    """Return about ``limit`` cells, classes in the same proportions, evenly spread, the same ones every time."""
    if limit is None or limit >= len(cells):
        return list(cells)
    chosen: list[Cell] = []
    for label in sorted({cell.label for cell in cells}):
        of_class = [cell for cell in cells if cell.label == label]
        wanted = max(round(limit * len(of_class) / len(cells)), 1)
        chosen += [of_class[i * len(of_class) // wanted] for i in range(wanted)]
    return chosen


def lay_out(cells: Sequence[Cell], folder: Path) -> None:
    """Copy cells to ``folder/<label>/<file name>``; a copy that is there and the same is left as it is.

    Raises
    ------
    DataError
        If an image of the table is missing, or the folder cannot be written.
    """
    try:
        for cell in cells:
            target = folder / cell.label / cell.source.name
            if target.is_file() and filecmp.cmp(cell.source, target, shallow=False):
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(f".{target.name}.partial")  # hidden: never taken for an image
            shutil.copyfile(cell.source, partial)
            partial.replace(target)
    except OSError as error:
        raise DataError(
            f"The images of the demo could not be laid out in {folder}: {reason_of(error)} ({error.filename})"
        ) from error
