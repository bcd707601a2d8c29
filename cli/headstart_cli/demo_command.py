"""``headstart demo``: runs every step on real images."""

from __future__ import annotations

import filecmp
import importlib.metadata
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from headstart.errors import DataError, MissingExtraError
from headstart.texts import reason_of
from headstart_cli.console import ProgressBar, err, out, said

if TYPE_CHECKING:
    from headstart.exchange.prediction_table import ScoredImages
    from headstart.fit import FitResult

#: The wheel of the extra ``demo``, and its table: image, probability of a defect as people judged it, type of cell.
WHEEL = "elpv-dataset"
TABLE = "elpv_dataset/data/labels.csv"

#: A cell counts as defective from this probability on.
DEFECTIVE_FROM = 0.5


@dataclass(frozen=True, slots=True)
class Cell:
    """One image of the wheel."""

    source: Path
    label: str  # ``functional`` or ``defective``


def find_table() -> Path:
    """Return the table of the installed wheel; raise MissingExtraError if its files are not there."""
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
    """Return the cells of a table of lines ``path probability type``, sorted by file; paths are relative to the table."""
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
    """Return about ``limit`` cells in the same class proportions: a fixed, evenly spread selection."""
    if limit is None or limit >= len(cells):
        return list(cells)
    chosen: list[Cell] = []
    for label in sorted({cell.label for cell in cells}):
        of_class = [cell for cell in cells if cell.label == label]
        wanted = max(round(limit * len(of_class) / len(cells)), 1)
        chosen += [of_class[i * len(of_class) // wanted] for i in range(wanted)]
    return chosen


def lay_out(cells: Sequence[Cell], folder: Path) -> None:
    """Copy cells to ``folder/<label>/<file name>``; an identical copy is left in place."""
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


#: Heads that are compared, each with the catalogue's defaults.
HEADS = ("dense", "logistic", "linear-svm")

#: Share of the cells that is held out, and the seed that chooses them: the same ones for every head.
HELD_OUT, SEED = 0.25, 0

#: Held-out images shown with their prediction.
SHOWN = 5


def demo(
    folder: Annotated[Path, typer.Option(metavar="PATH", help="Folder for images, features and heads.")] = Path(
        ".demo"
    ),
    limit: Annotated[
        int | None,
        typer.Option(
            min=40,
            metavar="N",
            envvar="HEADSTART_DEMO_LIMIT",
            help="Use about N of the 2,624 images; 200 take a minute.",
        ),
    ] = None,
) -> None:
    """Classify functional and defective solar cells: extract features, fit three heads, predict.

    Needs the extras demo and weights. A second run computes no features again.

    Examples
    --------
    headstart demo
    headstart demo --limit 200
    """
    from headstart.extract.run import extract_features
    from headstart_cli.cache_commands.extract_command import print_summary

    started = time.perf_counter()
    cells = take(read_cells(find_table()), limit)
    # With fewer images, other folders: the results of the full demo stay.
    name = "elpv" if limit is None else f"elpv-{limit}"
    images, cache = folder / name, folder / "features" / f"{name}.h5"
    lay_out(cells, images)
    counts = Counter(cell.label for cell in cells)
    heading(f"1. Images: {', '.join(f'{n:,} {label}' for label, n in sorted(counts.items()))} solar cells in {images}")

    heading(f"2. Features: extract-features {images} -o {cache}")
    with ProgressBar("Extracting") as progress:
        summary = extract_features(images, cache, progress=progress)
    print_summary(summary)
    if summary.stop_signal is not None:
        raise typer.Exit(128 + summary.stop_signal)

    heading(f"3. Heads: fit-head {cache} --type {' | '.join(HEADS)} --no-search")
    results = [fit(cache, head_type, folder / "heads" / f"{name}-{head_type}") for head_type in HEADS]
    print_heads(results)
    best = min(results, key=lambda result: result.score.log_loss)  # accuracies this close do not differ significantly

    heading(f"4. Predictions of the {best.spec.type} head (lowest log-loss) for {SHOWN} of the held-out cells")
    if best.scored is not None:
        out.print(predictions_table(best.scored))
    print_places(images, cache, best, time.perf_counter() - started)


def heading(text: str) -> None:
    out.print(f"\n[bold cyan]{escape(text)}[/]")


def fit(cache: Path, head_type: str, output: Path) -> FitResult:
    from headstart.fit import fit_head
    from headstart.heads.catalogue import default_spec

    with err.status(f"Fitting {head_type} …"):
        return fit_head(
            cache, default_spec(head_type, random_state=SEED), validation=HELD_OUT, output=output, overwrite=True
        )


def print_heads(results: list[FitResult]) -> None:
    from headstart.report.text_tables import heads_table

    for result in results:
        for warning in result.warnings:
            err.print(f"[yellow]{result.spec.type}: {said(warning)}[/]")
    first = results[0]
    out.print(f"{first.n_train:,} training images, {first.score.n_samples:,} held out")
    out.print(heads_table([(result.spec.type, result.score, result.fit_seconds) for result in results]))


def predictions_table(scored: ScoredImages) -> Table:
    """Return the predictions for some held-out images, evenly spread."""
    table = Table("image", "truth", "prediction")
    table.add_column("probability", justify="right")
    for row in ((2 * i + 1) * len(scored) // (2 * SHOWN) for i in range(SHOWN)):
        top = int(scored.probabilities[row].argmax())
        truth, prediction = scored.class_names[int(scored.y_true[row])], scored.class_names[top]
        style = "green" if prediction == truth else "red"
        chance = f"{scored.probabilities[row, top]:.3f}"
        table.add_row(escape(scored.paths[row]), truth, f"[{style}]{prediction}[/]", chance)
    return table


def print_places(images: Path, cache: Path, best: FitResult, seconds: float) -> None:
    """Print the paths of all results, and the next commands."""
    out.print(f"\n[bold]Done in {seconds:.0f} s.[/] Results and next steps:")
    for what, where in (
        ("images", images),
        ("features", f"{cache}   (headstart inspect {cache})"),
        ("heads", f"{Path(str(best.folder)).parent}   (a folder each: the head, its recipe and its score)"),
        ("your images", f"headstart predict {best.folder} IMAGE|FOLDER…"),
        ("your classes", "extract-features FOLDER, then fit-head features/FOLDER.h5"),
    ):
        out.print(f"  {what:<14}{escape(str(where))}")
    if shutil.which("headstart") is None:  # started by its path, as make does
        out.print(f"To use the commands by name: . {escape(str(Path(sys.argv[0]).parent))}/activate")
