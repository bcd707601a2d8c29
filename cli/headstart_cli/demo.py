"""``headstart demo``: the whole way, on real images of solar cells."""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from headstart_cli.console import ProgressBar, err, out
from headstart_cli.demo_data import find_table, lay_out, read_cells, take

if TYPE_CHECKING:
    from headstart.fit import FitResult

#: Heads that are compared, each with the catalogue's defaults.
HEADS = ("dense", "logistic", "linear-svm")

#: Share of the cells that is held out, and the seed that chooses them: the same ones for every head.
HELD_OUT, SEED = 0.25, 0

#: Held-out images shown with their prediction.
SHOWN = 5


def demo(
    folder: Annotated[Path, typer.Option(help="Where images, features and heads are put.")] = Path(".demo"),
    limit: Annotated[
        int | None,
        typer.Option(
            min=40, envvar="HEADSTART_DEMO_LIMIT", help="Use about this many of the 2,624 images; 200 take a minute."
        ),
    ] = None,
) -> None:
    """Tell functional from defective solar cells: extract features once, fit three heads, predict.

    Needs the extras demo and weights. Run it again: nothing goes through the network a second time.

    [bold]Examples[/]

    headstart demo

    headstart demo --limit 200
    """
    from headstart.extract.local import extract_features
    from headstart_cli.extract import print_summary

    started = time.perf_counter()
    cells = take(read_cells(find_table()), limit)
    # A tour with fewer images has folders of its own, so that it never takes away from the whole one.
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
    best = min(results, key=lambda result: result.score.log_loss)  # accuracies this close are not told apart

    heading(f"4. Predictions of the {best.spec.type} head (lowest log-loss) for {SHOWN} of the held-out cells")
    out.print(predictions_table(cache, best))
    print_places(images, cache, best, time.perf_counter() - started)


def heading(text: str) -> None:
    """Print the heading of a step."""
    out.print(f"\n[bold cyan]{escape(text)}[/]", soft_wrap=True)


def fit(cache: Path, head_type: str, output: Path) -> FitResult:
    """Fit a head with the catalogue's defaults, and save it."""
    from headstart.fit import fit_head
    from headstart.heads.catalogue import default_spec

    with err.status(f"Fitting {head_type} …"):
        return fit_head(
            cache, default_spec(head_type, random_state=SEED), validation=HELD_OUT, output=output, overwrite=True
        )


def print_heads(results: list[FitResult]) -> None:
    """Print one row per head, and what the fits had to say."""
    from headstart.report.tables import heads_table

    for result in results:
        for warning in result.warnings:
            err.print(f"[yellow]{result.spec.type}: {escape(warning)}[/]", soft_wrap=True)
    first = results[0]
    out.print(f"{first.n_train:,} images to fit on, {first.score.n_samples:,} held out", soft_wrap=True)
    out.print(heads_table([(result.spec.type, result.score, result.fit_seconds) for result in results]))


def predictions_table(cache: Path, result: FitResult) -> Table:
    """Return what a saved head says of some held-out images, evenly spread; from the cache, so no network is run."""
    from headstart.cache.store import open_cache
    from headstart.evaluate.sides import divide
    from headstart.heads.bundle import load_bundle

    table = Table("image", "truth", "prediction")
    table.add_column("probability", justify="right")
    bundle = load_bundle(Path(str(result.folder)))
    with open_cache(cache) as opened:
        held_out = sorted(divide(opened, HELD_OUT, SEED).split.validation.tolist())
        rows = [held_out[(2 * i + 1) * len(held_out) // (2 * SHOWN)] for i in range(SHOWN)]
        probabilities = bundle.predict_proba(opened.batches(rows), opened.recipe)
        for row, chances in zip(rows, probabilities, strict=True):
            truth, top = opened.class_names[int(opened.labels[row])], int(chances.argmax())
            prediction = bundle.class_names[top]
            style = "green" if prediction == truth else "red"
            table.add_row(escape(opened.paths[row]), truth, f"[{style}]{prediction}[/]", f"{chances[top]:.3f}")
    return table


def print_places(images: Path, cache: Path, best: FitResult, seconds: float) -> None:
    """Say where everything is, and what to do next."""
    out.print(f"\n[bold]Done in {seconds:.0f} s.[/] Where everything is, and how to go on:")
    for what, where in (
        ("images", images),
        ("features", f"{cache}   (headstart inspect {cache})"),
        ("heads", f"{Path(str(best.folder)).parent}   (a folder each: the head, its recipe, how good it is)"),
        ("your images", f"headstart predict {best.folder} IMAGE|FOLDER…"),
        ("your classes", "extract-features FOLDER, then fit-head features/FOLDER.h5"),
    ):
        out.print(f"  {what:<14}{escape(str(where))}", soft_wrap=True)
    if shutil.which("headstart") is None:  # started by its path, as make does
        out.print(f"To have the commands by name: . {escape(str(Path(sys.argv[0]).parent))}/activate", soft_wrap=True)
