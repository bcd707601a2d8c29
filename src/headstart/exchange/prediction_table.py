"""Write predictions, one row per scored image, as ``.csv``, ``.parquet`` or ``.json``."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import CacheError, DataError
from headstart.exchange.export_features import import_pyarrow, valid
from headstart.storage.publishing import published_bytes
from headstart.texts import csv_cell, reason_of

#: Name of the split for images held out at random.
HELD_OUT = "held-out"

#: Prefix of the columns of probabilities.
PROBABILITY = "probability_"


@dataclass(frozen=True, slots=True)
class ScoredImages:
    """Images with their predictions."""

    paths: Sequence[str]  # relative to the folder of images
    y_true: NDArray[Any]  # true class indices, or numbers, float64; shape (n_images,)
    #: Class probabilities; the prediction is the largest, the first one if tied; shape (n_images, n_classes). Or the
    #: predicted numbers, shape (n_images, 1)
    probabilities: NDArray[np.floating[Any]]
    class_names: tuple[str, ...]  # names of the classes; not used for numbers
    splits: Sequence[str]  # split or fold of each image; empty for none
    head: str = ""  # name of the head, if there are several

    def __len__(self) -> int:
        return len(self.y_true)

    @property
    def of_numbers(self) -> bool:
        """Whether numbers are predicted."""
        return self.y_true.dtype.kind == "f"

    def columns(self) -> dict[str, Sequence[str]]:
        """Return the text columns by name; ``head`` comes first if there are several heads."""
        texts: dict[str, Sequence[str]] = {"path": self.paths}
        if not self.of_numbers:
            texts["truth"] = [self.class_names[label] for label in self.y_true.tolist()]
            texts["prediction"] = [self.class_names[label] for label in self.probabilities.argmax(axis=1).tolist()]
        texts["split"] = self.splits
        return {"head": [self.head] * len(self), **texts} if self.head else texts

    def numbers(self) -> dict[str, NDArray[np.floating[Any]]]:
        """Return the columns of numbers by name: probabilities, or truth and prediction."""
        if self.of_numbers:
            return {"truth": self.y_true, "prediction": self.probabilities[:, 0]}
        return {
            f"{PROBABILITY}{name}": column for name, column in zip(self.class_names, self.probabilities.T, strict=True)
        }


def split_names(splits: Sequence[str], rows: NDArray[np.int64]) -> list[str]:
    """Return the split of each held-out row: their common split, or ``held-out`` if they were drawn at random."""
    names = {splits[row] for row in rows.tolist()}
    name = names.pop() if len(names) == 1 else ""
    return [HELD_OUT if name in ("", "train") else name] * len(rows)


def fold_names(tests: Sequence[NDArray[np.int64]], n_splits: int, n_samples: int) -> list[str]:
    """Return the folds in which each row is scored, counted from 1 in each repeat, separated by spaces.

    ``tests`` are the test rows of each fold, ordered by repeat.

    Examples
    --------
    >>> fold_names([np.array([0]), np.array([1]), np.array([0, 1]), np.array([], int)], 2, 2)
    ['1 1', '2 1']
    """
    names: list[list[str]] = [[] for _ in range(n_samples)]
    for number, rows in enumerate(tests):
        for row in rows.tolist():
            names[row].append(str(number % n_splits + 1))
    return [" ".join(folds) for folds in names]


def predictions_csv(scored: Sequence[ScoredImages]) -> bytes:
    """Return a CSV table of one head or several named heads: path, truth, prediction, split or fold, and all probabilities.

    Of numbers: path, split or fold, truth and prediction.

    Text that a spreadsheet would take for a formula gets a leading ``'``. Undecodable bytes of paths are kept.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*scored[0].columns(), *scored[0].numbers()])
    for one in scored:
        texts = zip(*(map(csv_cell, column) for column in one.columns().values()), strict=True)
        rows = zip(*one.numbers().values(), strict=True)
        writer.writerows([*cells, *map(str, row)] for cells, row in zip(texts, rows, strict=True))
    return text.getvalue().encode("utf-8", "surrogateescape")


def predictions_json(scored: Sequence[ScoredImages]) -> bytes:
    r"""Return a JSON list with an object per image; an undecodable byte of a path becomes ``\xff``."""
    return (json.dumps(list(_json_rows(scored)), indent=1, ensure_ascii=False) + "\n").encode()


def _json_rows(scored: Sequence[ScoredImages]) -> Iterator[dict[str, Any]]:
    for one in scored:
        names = ["truth", "prediction"] if one.of_numbers else list(map(valid, one.class_names))
        columns = {name: list(map(valid, texts)) for name, texts in one.columns().items()}
        rows = zip(*(column.tolist() for column in one.numbers().values()), strict=True)
        for cells, row in zip(zip(*columns.values(), strict=True), rows, strict=True):
            numbers: dict[Any, Any] = dict(zip(names, row, strict=True))
            yield {
                **dict(zip(columns, cells, strict=True)),
                **(numbers if one.of_numbers else {"probabilities": numbers}),
            }


def predictions_parquet(scored: Sequence[ScoredImages]) -> bytes:
    r"""Return a Parquet table with the columns of the CSV, text unchanged; an undecodable byte becomes ``\xff``."""
    pa, parquet = import_pyarrow()
    columns = {name: [valid(t) for one in scored for t in one.columns()[name]] for name in scored[0].columns()}
    names = [*columns, *map(valid, scored[0].numbers())]
    arrays = [pa.array(values, pa.string()) for values in columns.values()]
    parts = [list(one.numbers().values()) for one in scored]
    arrays += [pa.array(np.concatenate(column)) for column in zip(*parts, strict=True)]
    target = io.BytesIO()
    parquet.write_table(pa.Table.from_arrays(arrays, names=names), target)
    return target.getvalue()


#: Suffix → writer.
KINDS: dict[str, Callable[[Sequence[ScoredImages]], bytes]] = {
    ".csv": predictions_csv,
    ".parquet": predictions_parquet,
    ".json": predictions_json,
}


def check_predictions_file(
    path: Path, inputs: Sequence[str | Path] = (), suffixes: Iterable[str] = tuple(KINDS)
) -> None:
    """Raise DataError or MissingExtraError if predictions cannot be written to a file, e.g. one of ``inputs``."""
    if path.suffix.lower() not in suffixes:
        raise DataError(
            f"Predictions are written to a file that ends in {', '.join(suffixes)}. Received: {path}. Name another file."
        )
    if path.is_dir():
        raise DataError(f"{path} is a folder; predictions are written to a file. Name another file.")
    if path.exists() and any(Path(one).exists() and path.samefile(one) for one in inputs):
        raise DataError(f"{path} is read by this command, so predictions cannot be written to it. Name another file.")
    if path.suffix.lower() == ".parquet":
        import_pyarrow()


def write_predictions(path: Path, scored: Sequence[ScoredImages]) -> None:
    """Write predictions of one head, or of several named heads, atomically; raise DataError if the file cannot be written."""
    publish_predictions(path, KINDS[path.suffix.lower()](scored))


def publish_predictions(path: Path, content: bytes) -> None:
    """Write a file of predictions in one step; raise DataError if it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with published_bytes(path) as file:
            file.write(content)
    except (CacheError, OSError) as error:
        raise DataError(f"The predictions cannot be written to {path}: {reason_of(error)}") from error
