"""Self-contained HTML reports, and the results of a quality check."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import PurePosixPath
from typing import Any, Literal
from urllib.parse import quote

from headstart.report import curve_points, text_tables
from headstart.report.comparison import Comparison
from headstart.report.comparison_plots import comparison_plots
from headstart.report.comparison_text import expected_text
from headstart.report.curve_points import ClassTally, MistakenCell
from headstart.report.residual_plots import largest_errors
from headstart.texts import printable
from headstart.types import HeadSpec

#: error: scores are invalid; warning: review needed; info: for information.
Severity = Literal["error", "warning", "info"]

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")

#: Cases shown per finding, and images per case.
PAGE_EXAMPLES, PAGE_MEMBERS = 24, 6

#: Pairs of classes and rows of the table of classes shown.
PAGE_PAIRS, PAGE_CLASSES = 20, 250

#: Mistakes shown per cell of the confusion matrix, and in total: about 2 MB of thumbnails.
CELL_MISTAKES, PAGE_MISTAKES = 24, 360


@dataclass(frozen=True, slots=True)
class Check:
    """A quality check."""

    name: str  # stable name for scripts
    title: str  # display name; and why it matters and what to do
    severity: Severity  # ``error``, ``warning`` or ``info``
    meaning: str
    unit: str = "images"  # what is counted: images, groups, classes


@dataclass(frozen=True, slots=True)
class ListedImage:
    """An image by its path, with its class and split, or None."""

    path: str
    label: str | None = None
    split: str | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """One case: an image, several related images, or a class."""

    images: tuple[ListedImage, ...] = ()  # up to a limit; empty for a class
    detail: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)  # the description in numbers, JSON types


@dataclass(frozen=True, slots=True)
class Finding:
    """The cases found by a check."""

    check: Check
    count: int  # number of cases, in the check's unit
    examples: tuple[Example, ...] = ()  # the clearest cases
    #: Number of cases by kind, most frequent first; empty if there is one kind
    breakdown: Mapping[str, int] = field(default_factory=dict)
    threshold: str = ""  # description of the threshold, if any

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, merged with the fields of the check."""
        values = asdict(self)
        check: dict[str, Any] = values.pop("check")
        return check | values


@dataclass(frozen=True, slots=True)
class QualityReport:
    """The result of a quality check of a cache."""

    cache: str  # path of the cache
    n_images: int  # images with features, and images that could not be read
    n_failures: int
    findings: tuple[Finding, ...]  # sorted by severity; each has at least one case
    passed: tuple[str, ...] = ()  # titles of the checks without findings
    #: Titles of checks that were not possible, with the reasons
    skipped: Mapping[str, str] = field(default_factory=dict)
    #: Path → small JPEG of listed images; empty without the folder of images
    thumbnails: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    thumbnails_missing: str = ""  # why thumbnails are missing

    def __getitem__(self, name: str) -> Finding:
        """Return the finding of a name; KeyError where nothing was found."""
        return {finding.check.name: finding for finding in self.findings}[name]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, without the thumbnails."""
        return {
            "cache": self.cache,
            "n_images": self.n_images,
            "n_failures": self.n_failures,
            "findings": [finding.to_dict() for finding in self.findings],
            "passed": list(self.passed),
            "skipped": dict(self.skipped),
        }


def quality_page(report: QualityReport) -> str:
    """Return a quality report as one HTML page; see :func:`benchmark_page`."""
    return render_page(
        "quality", report=report, picture=pictures(report.thumbnails), examples=PAGE_EXAMPLES, members=PAGE_MEMBERS
    )


def render_page(name: str, **values: Any) -> str:
    """Return a filled-in template, with its style sheet and a content security policy."""
    environment = make_environment()
    style = environment.get_template(f"{name}.css").render()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    page: str = environment.get_template(f"{name}.html").render(style=style, policy=policy, **values)
    return page


def make_environment() -> Any:
    """Return a Jinja2 environment with the templates of this package; autoescaping is on."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("headstart.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["printable"] = printable
    environment.filters["breakable"] = _breakable
    environment.filters["thousands"] = "{:,}".format
    return environment


def _breakable(path: str) -> Any:
    """Return a path as HTML that may be wrapped after a slash or an underscore."""
    from markupsafe import Markup, escape

    html = escape(printable(path))
    return html.replace("/", Markup("/<wbr>")).replace("_", Markup("_<wbr>"))


def pictures(thumbnails: Mapping[str, bytes]) -> Callable[[str], str]:
    """Return a function from an image path to the data URL of its thumbnail; empty if it has none."""

    def picture(path: str) -> str:
        jpeg = thumbnails.get(path)
        return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}" if jpeg else ""

    return picture


def benchmark_page(
    comparison: Comparison, *, thumbnails: Mapping[str, bytes] | None = None, image_root: str | None = None
) -> str:
    """Return a comparison as one self-contained HTML page without scripts.

    Names of files and classes are always shown as text. A content security policy forbids scripts and external resources.
    ``thumbnails`` maps paths to small JPEGs of the images named by :func:`page_mistakes`. ``image_root`` is the relative
    path from the page's folder to that of the images, for links; without it, paths are text.
    """
    return render_page(
        "benchmark",
        comparison=comparison,
        head=comparison[comparison.recommended],
        metrics=comparison.metrics,
        expected=expected_text(comparison),
        text=text_tables,
        plots=comparison_plots(comparison),
        **(_of_numbers(comparison) if comparison.is_of_numbers else _of_classes(comparison)),
        picture=pictures(thumbnails or {}),
        link=lambda path: image_link(image_root, path),
        setting=_setting,
        recipe={field.name: getattr(comparison.recipe, field.name) for field in fields(comparison.recipe)},
        best=_best_of(comparison),
    )


def _of_classes(comparison: Comparison) -> dict[str, Any]:
    """Return what the page says of classes, by its name in the template."""
    counts = curve_points.confusion_matrix(comparison.y_true, comparison[comparison.recommended].probabilities)
    return {
        "classes": _listed_classes(curve_points.class_tallies(counts, comparison.class_names)),
        "pairs": curve_points.confusions(counts, comparison.class_names, PAGE_PAIRS),
        "n_wrong": int(counts.sum() - counts.trace()),
        "mistakes": page_mistakes(comparison),
    }


def _of_numbers(comparison: Comparison) -> dict[str, Any]:
    """Return what the page says of numbers, by its name in the template."""
    return {"largest": largest_errors(comparison)}


def page_mistakes(comparison: Comparison) -> list[MistakenCell]:
    """Return the mistakes of the recommended head shown on the page, by cell of the confusion matrix; none of numbers."""
    if comparison.is_of_numbers:
        return []
    return curve_points.mistakes_by_cell(
        comparison.y_true,
        comparison[comparison.recommended].probabilities,
        comparison.class_names,
        comparison.paths,
        per_cell=CELL_MISTAKES,
        most=PAGE_MISTAKES,
    )


def _listed_classes(classes: list[ClassTally]) -> list[ClassTally]:
    """Return all classes in order; if there are too many, those with the lowest F1."""
    return classes if len(classes) <= PAGE_CLASSES else sorted(classes, key=lambda c: c.f1)[:PAGE_CLASSES]


def _best_of(comparison: Comparison) -> dict[str, float]:
    """Return the best displayed value of each metric, without baselines."""
    best = {}
    for metric in comparison.metrics:
        values = [head.metrics[metric.name].value for head in comparison.heads if not head.baseline]
        values = [value for value in values if value == value]  # noqa: PLR0124  # NaN
        if values:
            best[metric.name] = round(max(values) if metric.higher_is_better else min(values), 3)
    return best


def _setting(spec: HeadSpec | None) -> str:
    if spec is None:
        return ""
    members = spec.params.get("members", ())
    if members:
        parts = (f"{one['type']} ({words_of(one['features'], one['scaling'], one['params'])})" for one in members)
        return f"mean of {', '.join(parts)}"
    return words_of(spec.features, spec.scaling, spec.params)


def words_of(features: Sequence[str], scaling: str, params: Mapping[str, Any]) -> str:
    """Return a setting in words."""
    return ", ".join(
        [" + ".join(features), f"scaling {scaling}", *(f"{name} = {value}" for name, value in params.items())]
    )


def image_link(root: str | None, path: str) -> str:
    """Return a relative URL of an image; empty without a root, and for paths that leave it."""
    if root is None or path.startswith("/") or ".." in PurePosixPath(path).parts:
        return ""
    # Colons are escaped, so that no URL has a scheme; "./" prevents a host.
    address = quote(os.fsencode(root.rstrip("/") or "."), safe="/.") + "/" + quote(os.fsencode(path), safe="/")
    return address if address.startswith("/") else f"./{address}"
