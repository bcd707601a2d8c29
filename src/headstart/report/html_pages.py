"""Reports as single HTML pages without scripts or network access, and the findings on the quality of a data set."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from headstart.report import curve_points, text_tables
from headstart.report.comparison_text import expected_text
from headstart.report.plots import probability_plots, score_plots
from headstart.scores import METRICS
from headstart.texts import printable

if TYPE_CHECKING:
    from headstart.report.comparison import Comparison
    from headstart.report.curve_points import ClassTally, MistakenCell
    from headstart.report.plots.svg import Plot
    from headstart.types import HeadSpec


def comparison_plots(comparison: Comparison) -> dict[str, Plot]:
    """Return plots by name, in the order of a page; one that a comparison has no figures for is not among them."""
    made = [
        score_plots.pareto_fit(comparison),
        score_plots.pareto_latency(comparison),
        score_plots.differences(comparison),
        score_plots.learning_curve(comparison),
        probability_plots.confusion(comparison),
        *probability_plots.curves(comparison),
        probability_plots.reliability(comparison),
        probability_plots.every_reliability(comparison),
    ]
    return {plot.name: plot for plot in made if plot is not None}


#: How bad it is: scores are wrong · to be looked at · good to know.
Severity = Literal["error", "warning", "info"]

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")


@dataclass(frozen=True, slots=True)
class Check:
    """Something that is looked for.

    Attributes
    ----------
    name : str
        For scripts; does not change.
    title, meaning : str
        What it is called, and why it matters and what to do, for a person.
    severity : str
        ``error``, ``warning`` or ``info``.
    unit : str
        What is counted: images, groups, classes.
    """

    name: str
    title: str
    severity: Severity
    meaning: str
    unit: str = "images"


@dataclass(frozen=True, slots=True)
class ListedImage:
    """One image by its path, with its class and split; None where it has none."""

    path: str
    label: str | None = None
    split: str | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """One case: an image, some that belong together, or a class.

    Attributes
    ----------
    images : tuple of ListedImage
        The first ones of a large group; none for a class.
    detail : str
        What there is to say, in words.
    values : mapping of str to value
        The same in numbers, JSON types.
    """

    images: tuple[ListedImage, ...] = ()
    detail: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found.

    Attributes
    ----------
    check : Check
        What was looked for.
    count : int
        Cases, in the check's unit.
    examples : tuple of Example
        The first cases, the clearest first.
    breakdown : mapping of str to int
        Cases by kind, the most frequent first; empty where there is one kind.
    threshold : str
        From where on it counts, in words; empty where that is no question.
    """

    check: Check
    count: int
    examples: tuple[Example, ...] = ()
    breakdown: Mapping[str, int] = field(default_factory=dict)
    threshold: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, the check's fields among the others."""
        values = asdict(self)
        check: dict[str, Any] = values.pop("check")
        return check | values


@dataclass(frozen=True, slots=True)
class QualityReport:
    """What is odd about the images of a cache.

    Attributes
    ----------
    cache : str
        Path of the cache.
    n_images, n_failures : int
        Images with features, and images that could not be read.
    findings : tuple of Finding
        The worst first; each has at least one case.
    passed : tuple of str
        Titles of the checks that found nothing.
    skipped : mapping of str to str
        Titles of what could not be checked, and why.
    thumbnails : mapping of str to bytes
        Path → small JPEG, of listed images; empty without the folder of images.
    thumbnails_missing : str
        Why there are none, or not all.
    """

    cache: str
    n_images: int
    n_failures: int
    findings: tuple[Finding, ...]
    passed: tuple[str, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    thumbnails: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    thumbnails_missing: str = ""

    def __getitem__(self, name: str) -> Finding:
        """Return the finding of a name; KeyError where nothing was found."""
        return {finding.check.name: finding for finding in self.findings}[name]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, without the thumbnails."""
        return {
            "cache": self.cache,
            "n_images": self.n_images,
            "n_failures": self.n_failures,
            "findings": [finding.to_dict() for finding in self.findings],
            "passed": list(self.passed),
            "skipped": dict(self.skipped),
        }


#: Cases shown of each finding, and images of each case.
PAGE_EXAMPLES, PAGE_MEMBERS = 24, 6


def quality_page(report: QualityReport) -> str:
    """Return a report on the quality of a data set as one page of HTML.

    Names of files and classes are shown as text whatever they contain. A policy in the page forbids scripts and every
    address but the pictures inside.
    """
    return render_page(
        "quality", report=report, picture=pictures(report.thumbnails), examples=PAGE_EXAMPLES, members=PAGE_MEMBERS
    )


def render_page(name: str, **values: Any) -> str:
    """Return the template of a name filled in, with its style sheet and a policy that lets nothing else in."""
    environment = make_environment()
    style = environment.get_template(f"{name}.css").render()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    page: str = environment.get_template(f"{name}.html").render(style=style, policy=policy, **values)
    return page


def make_environment() -> Any:
    """Return Jinja2's environment with the templates beside this file; everything is escaped."""
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
    """Return a path as HTML in which a line may end after a slash or an underscore; whatever it contains is text."""
    from markupsafe import Markup, escape

    html = escape(printable(path))
    return html.replace("/", Markup("/<wbr>")).replace("_", Markup("_<wbr>"))


def pictures(thumbnails: Mapping[str, bytes]) -> Callable[[str], str]:
    """Return what gives the address of an image's thumbnail; empty where it has none."""

    def picture(path: str) -> str:
        jpeg = thumbnails.get(path)
        return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}" if jpeg else ""

    return picture


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
    counts = curve_points.confusion_matrix(comparison.y_true, head.probabilities)
    return render_page(
        "benchmark",
        comparison=comparison,
        head=head,
        metrics=METRICS,
        expected=expected_text(comparison),
        text=text_tables,
        plots=comparison_plots(comparison),
        classes=_listed_classes(curve_points.class_tallies(counts, comparison.class_names)),
        pairs=curve_points.confusions(counts, comparison.class_names, PAGE_PAIRS),
        n_wrong=int(counts.sum() - counts.trace()),
        mistakes=page_mistakes(comparison),
        picture=pictures(thumbnails or {}),
        link=lambda path: image_link(image_root, path),
        setting=_setting,
        recipe={field.name: getattr(comparison.recipe, field.name) for field in fields(comparison.recipe)},
        best=_best_of(comparison),
    )


def page_mistakes(comparison: Comparison) -> list[MistakenCell]:
    """Return the mistakes of the recommended head that the page shows, by cell of the confusion matrix."""
    return curve_points.mistakes_by_cell(
        comparison.y_true,
        comparison[comparison.recommended].probabilities,
        comparison.class_names,
        comparison.paths,
        per_cell=CELL_MISTAKES,
        most=PAGE_MISTAKES,
    )


def _listed_classes(classes: list[ClassTally]) -> list[ClassTally]:
    """Return all classes in their order; of too many, the ones with the lowest F1, lowest first."""
    return classes if len(classes) <= PAGE_CLASSES else sorted(classes, key=lambda c: c.f1)[:PAGE_CLASSES]


def _best_of(comparison: Comparison) -> dict[str, float]:
    """Return the best value of each metric among the heads that are no baselines, rounded as it is shown."""
    best = {}
    for metric in METRICS:
        values = [head.metrics[metric.name].value for head in comparison.heads if not head.baseline]
        values = [value for value in values if value == value]  # noqa: PLR0124  # NaN
        if values:
            best[metric.name] = round(max(values) if metric.higher_is_better else min(values), 3)
    return best


def _setting(spec: HeadSpec | None) -> str:
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
