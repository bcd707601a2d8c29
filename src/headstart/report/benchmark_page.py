"""A comparison of heads as one page of HTML that needs nothing else."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from headstart.criteria import METRICS
from headstart.report import figures, tallies
from headstart.report.comparison_text import expected_text
from headstart.report.html import pictures, render_page
from headstart.report.plots.collection import comparison_plots

if TYPE_CHECKING:
    from headstart.report.comparison import Comparison
    from headstart.report.tallies import ClassTally, MistakenCell
    from headstart.schema import HeadSpec

#: Pairs of classes shown, and rows of the table of classes; of more classes the worst.
PAGE_PAIRS, PAGE_CLASSES = 20, 250

#: Mistakes shown of a cell of the confusion matrix, and in all: some 2 MB of thumbnails.
CELL_MISTAKES, PAGE_MISTAKES = 24, 360


def benchmark_page(
    comparison: Comparison, *, thumbnails: Mapping[str, bytes] | None = None, image_root: str | None = None
) -> str:
    """Return a comparison as one page of HTML: no script, no network, pictures inside.

    Parameters
    ----------
    comparison : Comparison
        What is shown.
    thumbnails : mapping of str to bytes, optional
        Path → small JPEG, of the images that :func:`page_mistakes` names.
    image_root : str, optional
        From the page's folder to that of the images, relative; paths become links. Without it they are text.

    Notes
    -----
    Names of files and classes are shown as text whatever they contain. A policy in the page forbids scripts and every
    address but the pictures inside.
    """
    head = comparison[comparison.recommended]
    counts = tallies.confusion_matrix(comparison.y_true, head.probabilities)
    return render_page(
        "benchmark",
        comparison=comparison,
        head=head,
        metrics=METRICS,
        expected=expected_text(comparison),
        text=figures,
        plots=comparison_plots(comparison),
        classes=listed_classes(tallies.class_tallies(counts, comparison.class_names)),
        pairs=tallies.confusions(counts, comparison.class_names, PAGE_PAIRS),
        n_wrong=int(counts.sum() - counts.trace()),
        mistakes=page_mistakes(comparison),
        picture=pictures(thumbnails or {}),
        link=lambda path: image_link(image_root, path),
        setting=setting,
        recipe={field.name: getattr(comparison.recipe, field.name) for field in fields(comparison.recipe)},
        best=best_of(comparison),
    )


def page_mistakes(comparison: Comparison) -> list[MistakenCell]:
    """Return the mistakes of the recommended head that the page shows, by cell of the confusion matrix."""
    return tallies.mistakes_by_cell(
        comparison.y_true,
        comparison[comparison.recommended].probabilities,
        comparison.class_names,
        comparison.paths,
        per_cell=CELL_MISTAKES,
        most=PAGE_MISTAKES,
    )


def listed_classes(classes: list[ClassTally]) -> list[ClassTally]:
    """Return all classes in their order; of too many, the ones with the lowest F1, lowest first."""
    return classes if len(classes) <= PAGE_CLASSES else sorted(classes, key=lambda c: c.f1)[:PAGE_CLASSES]


def best_of(comparison: Comparison) -> dict[str, float]:
    """Return the best value of each metric among the heads that are no baselines, rounded as it is shown."""
    best = {}
    for metric in METRICS:
        values = [head.metrics[metric.name].value for head in comparison.heads if not head.baseline]
        values = [value for value in values if value == value]  # noqa: PLR0124  # NaN
        if values:
            best[metric.name] = round(max(values) if metric.higher_is_better else min(values), 3)
    return best


def setting(spec: HeadSpec | None) -> str:
    """Return what a head was fitted with, in words."""
    if spec is None:
        return ""
    params: list[Any] = [f"{name} = {value}" for name, value in spec.params.items()]
    return ", ".join([" + ".join(spec.features), f"scaling {spec.scaling}", *params])


def image_link(root: str | None, path: str) -> str:
    """Return a relative address of an image; empty without a root, and for a path that leaves it."""
    if root is None or path.startswith("/") or ".." in PurePosixPath(path).parts:
        return ""
    # A colon is escaped too, so that no address can have a scheme; "./" keeps a path from starting a host.
    address = quote(os.fsencode(root.rstrip("/") or "."), safe="/.") + "/" + quote(os.fsencode(path), safe="/")
    return address if address.startswith("/") else f"./{address}"
