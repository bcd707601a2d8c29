"""``headstart inspect``: the contents of a cache, and with ``--quality`` problems of its images."""

from __future__ import annotations

import json
import math
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from headstart.texts import counted, printable
from headstart_cli.command_options import Cache, Json
from headstart_cli.console import err, out, print_first, print_json, said, shown, write_text

if TYPE_CHECKING:
    from headstart.cache.reader import FeatureCache
    from headstart.report.html_pages import Example, Finding, QualityReport

#: Failures, and classes, shown before the rest is counted.
LISTED_FAILURES, LISTED_CLASSES = 20, 40

#: Cases shown of each finding on quality, and images named of each.
SHOWN_EXAMPLES, SHOWN_IMAGES = 3, 2

#: Severity → how it is shown.
STYLES = {"error": "bold red", "warning": "yellow", "info": "dim"}


def inspect(
    cache: Cache,
    quality: Annotated[
        bool, typer.Option("--quality", help="Check the images instead: bad files, duplicates, probable label errors.")
    ] = False,
    data: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="With --html: the folder of images, for thumbnails.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --quality: also write the findings as an HTML page.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show classes, recipe, size and failures of a cache, or with --quality problems of its images.

    Examples
    --------
    headstart inspect features/data.h5
    headstart inspect features/data.h5 --quality --data data/ --html quality.html
    """
    if (html and not quality) or (data and not html):
        raise typer.BadParameter("--html goes with --quality, and --data with --html.")
    if quality:
        inspect_data(cache, data=data, html=html, as_json=as_json)
        return
    from headstart.cache.reader import open_cache

    with open_cache(cache) as opened:
        contents = describe(opened)
    if as_json:
        print_json(contents)
    else:
        print_contents(contents)


def describe(cache: FeatureCache) -> dict[str, Any]:
    """Return the contents of a cache as plain JSON types."""
    names = [*cache.class_names, ""]  # −1, unlabelled, is the last
    rows = Counter(zip(cache.rows.split, map(int, cache.rows.label), strict=True))
    counts = Counter({(split, names[label]): count for (split, label), count in rows.items()})
    splits = sorted({split for split, _ in counts})
    raw_bytes = cache.n_images * cache.feature_values * 4
    return {
        "path": str(cache.path),
        "n_images": cache.n_images,
        "layout": cache.layout,
        "classes": {  # also classes without a readable image; "" only where images are unlabelled
            name: {split: counts[split, name] for split in splits}
            for name in names
            if name or any(not label for _, label in counts)
        },
        "weights": weight_counts(cache),
        "targets": target_counts(cache),
        "recipe": json.loads(cache.recipe.to_json()),
        "fingerprint": cache.recipe.fingerprint,
        "precision_reason": cache.info.get("precision_reason", ""),
        "features_shape": [cache.n_images, *cache.map_shape],
        "zeros": cache.sparsity(),
        "size_bytes": cache.size_bytes,
        "raw_float32_bytes": raw_bytes,
        "notes": dict(Counter(chain.from_iterable(cache.rows.notes)).most_common()),
        "failures": [{"path": f.ref.path, "reason": f.reason} for f in cache.failures],
        "created": cache.created,
        "versions": dict(cache.versions),
    }


def weight_counts(cache: FeatureCache) -> dict[str, float] | None:
    """Return how the images are weighted in a fit; None if they are not."""
    weights = cache.weights
    if weights is None:
        return None
    return {
        "lowest": float(weights.min()),
        "highest": float(weights.max()),
        "n_other_than_one": int((weights != 1).sum()),
        "n_zero": int((weights == 0).sum()),
    }


def target_counts(cache: FeatureCache) -> dict[str, float] | None:
    """Return the range of the numbers to predict; None if there are none."""
    if cache.targets is None:
        return None
    known = [target for target in cache.targets.tolist() if not math.isnan(target)]
    return {"lowest": min(known), "highest": max(known), "n_images": len(known)}


def print_contents(contents: dict[str, Any]) -> None:
    out.print(f"[bold]{shown(contents['path'])}[/]: {contents['n_images']:,} images, {shown(contents['layout'])}")
    out.print(class_table(contents["classes"]))
    if weights := contents["weights"]:
        out.print(
            f"Weights in a fit: {weights['lowest']:g} to {weights['highest']:g}, {weights['n_other_than_one']:,} of them "
            f"not 1; {weights['n_zero']:,} of weight 0, which are not fitted on"
        )
    if targets := contents["targets"]:
        out.print(
            f"Numbers to predict: {targets['lowest']:g} to {targets['highest']:g}, of {counted(targets['n_images'])}"
        )
    recipe = Table("recipe", "", show_header=False, title="Recipe")
    for name, value in contents["recipe"].items():
        recipe.add_row(shown(name), shown(", ".join(map(str, value)) if isinstance(value, list) else value))
    recipe.add_row("fingerprint", contents["fingerprint"][:16])
    out.print(recipe)
    if contents["precision_reason"]:
        out.print(f"Computed in {shown(contents['precision_reason'])}")
    out.print(
        f"Features {' × '.join(map(str, contents['features_shape']))}, {contents['zeros']:.0%} zeros; "
        f"{contents['size_bytes'] / 1e6:.1f} MB on disk, {contents['raw_float32_bytes'] / 1e6:.1f} MB as raw float32"
    )
    if contents["notes"]:
        out.print(
            "Notes on images: " + ", ".join(f"{count:,} {note_text(note)}" for note, count in contents["notes"].items())
        )
    failures = contents["failures"]
    out.print(f"{counted(len(failures))} could not be read" + (":" if failures else "."))
    lines = (f"{shown(failure['path'])}: {said(failure['reason'])}" for failure in failures)
    print_first(out, lines, LISTED_FAILURES, " (--json lists all)")


def note_text(note: str) -> str:
    """Return a note on images, with a conversion spelled out."""
    mode = note.removeprefix("from-")
    return f"converted from {shown({'L': 'greyscale'}.get(mode, mode))} to RGB" if mode != note else shown(note)


def class_table(classes: dict[str, dict[str, int]]) -> Table:
    """Return images per class and split."""
    splits = list(next(iter(classes.values()), {}))
    table = Table("class", title="Images")
    for split in splits:
        table.add_column(shown(split) or "images", justify="right")
    listed, rest = list(classes), []
    if len(listed) > LISTED_CLASSES:
        largest = sorted(classes, key=lambda name: -sum(classes[name].values()))
        listed, rest = largest[: LISTED_CLASSES - 1], largest[LISTED_CLASSES - 1 :]
    for name in listed:
        counts = classes[name]
        table.add_row(shown(name) or "[dim]unlabelled[/]", *(f"{counts[split]:,}" for split in splits))
    if rest:
        table.add_row(f"[dim]… and {len(rest):,} more (--json lists all)[/]", *sums(classes, rest, splits))
    if len(classes) > 1:
        table.add_section()
        table.add_row(f"all {len(classes):,}" if rest else "all", *sums(classes, list(classes), splits))
    return table


def sums(classes: dict[str, dict[str, int]], names: list[str], splits: list[str]) -> list[str]:
    """Return the images of some classes together, per split."""
    return [f"{sum(classes[name][split] for name in names):,}" for split in splits]


def inspect_data(cache: str, *, data: Path | None, html: Path | None, as_json: bool) -> None:
    """Check the images and print the findings as a table or JSON; optionally write a page."""
    from headstart.evaluate.quality_report import inspect_quality
    from headstart.report.html_pages import quality_page

    report = inspect_quality(cache, data if html else None)
    if as_json:
        print_json(report.to_dict())
    else:
        print_report(report)
    if html:
        write_text(html, quality_page(report), "The page")
        missing = f" {report.thumbnails_missing}" if report.thumbnails_missing else ""
        err.print(shown(f"Page: {html}, {len(report.thumbnails):,} thumbnails.{printable(missing)}"))


def print_report(report: QualityReport) -> None:
    """Print the findings, most severe first, then the checks that were skipped or passed."""
    out.print(f"[bold]{shown(report.cache)}[/]: {counted(report.n_images)}, {report.n_failures:,} unreadable")
    if report.findings:
        out.print(findings_table(report.findings))
    else:
        out.print("No problems found.")
    for title, reason in report.skipped.items():
        out.print(f"Not checked: {shown(title)}: {said(reason)}")
    if report.passed:
        out.print(f"[dim]Checked, no problem: {shown('; '.join(report.passed))}[/]")


def findings_table(findings: tuple[Finding, ...]) -> Table:
    """Return one row per finding: title, count, advice and examples."""
    table = Table("", "finding", title="Data quality", show_lines=True)
    table.add_column("cases", justify="right")
    table.add_column("for example", overflow="fold")
    for finding in findings:
        check = finding.check
        words = [f"[bold]{shown(check.title)}[/]", said(check.meaning)]
        words += [f"[dim]Counted: {shown(finding.threshold)}.[/]"] if finding.threshold else []
        words += [shown(f"{printable(kind)} {count:,}") for kind, count in list(finding.breakdown.items())[:5]]
        lines = [shown(one_line(example)) for example in finding.examples[:SHOWN_EXAMPLES]]
        lines += ["…"] if finding.count > SHOWN_EXAMPLES else []
        table.add_row(
            f"[{STYLES[check.severity]}]{check.severity}[/]",
            "\n".join(words),
            f"{finding.count:,}\n{check.unit}",
            "\n".join(lines),
        )
    return table


def one_line(example: Example) -> str:
    paths = [printable(image.path) for image in example.images[:SHOWN_IMAGES]]
    if example.values.get("n_images", len(paths)) > len(paths):
        paths.append("…")
    return ": ".join(part for part in (", ".join(paths), printable(example.detail)) if part)
