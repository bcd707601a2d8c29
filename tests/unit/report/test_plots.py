"""Plots as SVG: what they say, and what a page may hold of them."""

from __future__ import annotations

import re
from itertools import combinations
from xml.etree import ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from comparisons import HEADS, HOSTILE, make_comparison, odd_comparisons, plots_of, replaced
from headstart.report.comparison import Comparison, pareto_optimal
from headstart.report.comparison_plots import (
    comparison_plots,
    confusion,
    curves,
    pareto_fit,
    pareto_latency,
    reliability,
)
from headstart.report.html_pages import make_environment
from headstart.report.svg import COLOURS, ROLES, Plot, draw, log_ticks, look
from headstart.scores import Estimate

pytestmark = pytest.mark.slow

SHAPES = odd_comparisons()


@pytest.fixture(params=SHAPES)
def plots(request: pytest.FixtureRequest) -> list[Plot]:
    """Every plot of a comparison."""
    return list(plots_of(request.param).values())


def test_every_comparison_has_the_plots_that_it_has_figures_for() -> None:
    usual = {
        "pareto-fit", "pareto-latency", "differences", "learning-curve", "confusion", "roc-macro", "roc-micro",
        "precision-recall-macro", "precision-recall-micro", "reliability", "calibration",
    }  # fmt: skip
    assert set(plots_of("usual")) == set(plots_of("hostile")) == usual
    assert set(plots_of("bare")) == usual - {"learning-curve"}
    assert set(plots_of("one head")) == usual - {"differences", "calibration"}
    assert set(plots_of("many classes")) == usual - {"confusion"}
    assert set(plots_of("two classes")) == {name for name in usual if "cro" not in name} | {"roc", "precision-recall"}


def test_a_strict_policy_lets_a_plot_through(plots: list[Plot]) -> None:
    """No style, no script, nothing from elsewhere, no id that another plot has, nothing that refers to nothing."""
    known = {"svg", "title", "desc", "g", "path", "defs", "clipPath", "use", "text", "tspan", "rect"}
    for plot in plots:
        elements = list(ET.fromstring(plot.svg).iter())
        assert {element.tag.rpartition("}")[2] for element in elements} <= known, plot.name
        ids = [element.attrib["id"] for element in elements if "id" in element.attrib]
        assert len(ids) == len(set(ids)), plot.name
        assert all(key.startswith(f"plot-{plot.name}-") for key in ids)
        for element in elements:
            assert not {key for key in element.attrib if key == "style" or key.startswith("on") or ":" in key}, (
                plot.name
            )
            references = re.findall(r"url\(#(.*?)\)", str(element.attrib))
            references.append(element.get("href", "#").removeprefix("#"))
            assert set(references) - {""} <= set(ids), plot.name


def test_a_plot_says_in_words_what_it_shows(plots: list[Plot]) -> None:
    for plot in plots:
        root = ET.fromstring(plot.svg)
        assert root.get("role") == "img"
        texts = {element.get("id"): element.text for element in root if element.tag.endswith(("title", "desc"))}
        assert root.get("aria-labelledby", "").split() == list(texts)
        assert re.search(r"\d", texts[f"plot-{plot.name}-desc"] or "")
        assert "nan" not in plot.svg.lower().replace("dominant", ""), plot.name


def test_every_colour_has_its_class(plots: list[Plot]) -> None:
    """Otherwise it stays what it is in the dark."""
    for element in (element for plot in plots for element in ET.fromstring(plot.svg).iter()):
        for key in ("fill", "stroke"):
            colour = element.get(key, "none")
            assert colour == "none" or f"{key[0]}-{COLOURS[colour]}" in element.get("class", "").split()
        if element.tag.endswith("text"):
            assert "f-" in element.get("class", "")


def test_the_same_comparison_gives_the_same_text_whatever_the_users_settings_are() -> None:
    with mpl.rc_context({"axes.grid": False, "font.size": 30, "text.color": "red", "svg.fonttype": "path"}):
        again = comparison_plots(make_comparison())
        assert mpl.rcParams["font.size"] == 30
    assert again == plots_of("usual")


def test_the_numbers_are_those_of_the_comparison() -> None:
    comparison, plots = SHAPES["usual"], plots_of("usual")
    best, second = comparison.heads[:2]
    accuracy = best.metrics["accuracy"]
    assert (
        f"{best.name} {accuracy.value:.3f} ({accuracy.low:.3f}–{accuracy.high:.3f}) at 410 ms"
        in plots["pareto-fit"].description
    )
    assert second.difference is not None
    assert f"{second.name} −{-second.difference.value:.3f}" in plots["differences"].description
    right = int((best.probabilities.argmax(axis=1) == comparison.y_true).sum())
    assert f"{right:,} of 1,088 images" in plots["confusion"].description
    point = best.learning_curve[0]
    assert f"{point.accuracy.value:.3f} at 5" in plots["learning-curve"].description


def test_a_confusion_matrix_shows_every_count() -> None:
    comparison = SHAPES["two classes"]
    texts = [element.text for element in ET.fromstring(plots_of("two classes")["confusion"].svg).iter() if element.text]
    predicted = comparison[comparison.recommended].probabilities.argmax(axis=1)
    for i in range(2):
        for j in range(2):
            count = int(((comparison.y_true == i) & (predicted == j)).sum())
            assert not count or str(count) in texts


def test_names_of_classes_are_text_and_no_formula() -> None:
    svg = plots_of("hostile")["confusion"].svg
    assert "<script" not in svg
    texts = {element.text for element in ET.fromstring(svg).iter()}
    assert "$\\frac{a}{$" in texts
    assert "فراشة" in texts
    assert any(text and text.startswith("\\xff") for text in texts)
    assert all(name.isprintable() for name in texts if name and name.strip())
    assert any(HOSTILE[9][:5] in (text or "") for text in texts)


# Looks


def test_no_two_of_eight_heads_look_alike_even_without_colour() -> None:
    heads = [(f"h{i}", False, 3.0, 1.0, 0.0, 1.0) for i in range(8)] + [
        (f"b{i}", True, 3.0, 1.0, 0.0, 1.0) for i in range(2)
    ]
    comparison = make_comparison(heads=heads, n_samples=40)
    looks = [look(head, comparison) for head in comparison.heads]
    for key in ("color", "marker", "linestyle"):
        assert len({str(mark[key]) for mark in looks[:8]}) == 8
    assert len({mark["marker"] for mark in looks}) == 10


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2.2 defines it."""
    shares = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def page_colours(scheme: int) -> dict[str, str]:
    style = make_environment().get_template("benchmark.css").render()
    return dict(re.findall(r"--(\w+): (#\w{6})", re.findall(r":root \{.*?\}", style, re.DOTALL)[scheme]))


#: Linear RGB as it is seen without one kind of cones: Machado, Oliveira and Fernandes, IEEE TVCG 15 (6), 2009, severity 1.
VISION = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}

#: Linear RGB → CIE XYZ over the white of D65 (IEC 61966-2-1).
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
XYZ /= [[0.95047], [1], [1.08883]]


def lab(colour: str, vision: ArrayLike) -> NDArray[np.float64]:
    """CIE L*a*b* of a colour as it is seen."""
    shares = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    x, y, z = (
        np.cbrt(t) if t > 0.008856 else 7.787 * t + 16 / 116 for t in XYZ @ np.clip(np.asarray(vision) @ linear, 0, 1)
    )
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_any_colour_vision_tells_the_heads_apart(scheme: int, vision: str) -> None:
    """A distance of 2.3 is just noticeable side by side; thin lines need several times as much."""
    seen = [lab(page_colours(scheme)[f"c{number}"], VISION[vision]) for number in range(8)]
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > 14


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_lines_and_letters_stand_out_from_the_page(scheme: int) -> None:
    """WCAG 2.2: 3 for what is drawn (1.4.11), 4.5 for what is read (1.4.3)."""
    style = make_environment().get_template("benchmark.css").render()
    colours = page_colours(scheme)
    assert set(ROLES) <= set(colours)
    for role in ("ink", "soft", "info", "warning"):
        assert contrast(colours[role], colours["paper"]) >= 4.5
        assert contrast(colours[role], colours["panel"]) >= 4.5
    for role in ("right", "wrong", *(f"c{i}" for i in range(8))):
        assert contrast(colours[role], colours["paper"]) >= 3
    for role in ROLES:
        assert f".f-{role} {{ fill: var(--{role}); }} .s-{role} {{ stroke: var(--{role}); }}" in style


@pytest.mark.parametrize(("low", "high"), [(1, 1.5), (0.012, 0.5), (3, 9_000), (1e-4, 9e5)])
def test_a_logarithmic_axis_has_a_few_round_ticks(low: float, high: float) -> None:
    ticks = log_ticks(low / 1.6, max(high, low * 3) * 1.6)
    assert 2 <= len(ticks) <= 6
    assert all(f"{tick:e}"[0] in "1235" and low / 1.6 <= tick <= max(high, low * 3) * 1.6 for tick in ticks)


# Which heads are worth their time


def worth(accuracies: list[float], costs: list[float], baseline: bool = False) -> set[str]:
    heads = make_comparison(heads=HEADS[: len(costs)], n_samples=40).heads
    made = []
    for head, name, value in zip(heads, "abcdef", accuracies, strict=False):
        accuracy = Estimate(value, value, value)
        made.append(replaced(head, name=name, metrics={"accuracy": accuracy}, baseline=baseline and name == "a"))
    return pareto_optimal(made, dict(zip("abcdef", costs, strict=False)))


def test_a_head_that_another_beats_in_both_is_not_worth_its_time() -> None:
    assert worth([0.9, 0.8, 0.95], [1, 2, 3]) == {"a", "c"}
    assert worth([0.9, 0.9, 0.9], [1, 1, 2]) == {"a", "b"}
    assert worth([0.9, 0.8, 0.95], [1, 2, 3], baseline=True) == {"b", "c"}


def test_a_baseline_far_below_does_not_push_the_others_into_a_corner() -> None:
    description = plots_of("usual")["pareto-fit"].description
    assert re.search(r"majority 0\.\d+ \(.*\) lies below the plot", description)
    svg = ET.fromstring(plots_of("usual")["pareto-fit"].svg)
    assert "majority" not in {element.text for element in svg.iter() if element.tag.endswith("text")}


def test_a_search_that_took_no_time_can_be_drawn() -> None:
    made = make_comparison(n_samples=40)
    free = [replaced(head, cost=replaced(head.cost, fit_seconds=0.0, head_ms=0.0)) for head in made.heads]
    assert pareto_fit(replaced(made, heads=tuple(free)))
    assert pareto_latency(replaced(made, heads=tuple(free)))


def test_a_letter_that_no_font_has_is_no_warning() -> None:
    plot = draw(lambda figure: figure.text(0.5, 0.5, "🦋 蝴蝶"), name="x", title="t\n", description="d\x00")
    assert "🦋 蝴蝶" in plot.svg
    assert 't\\n</title><desc id="plot-x-desc">d\\x00<' in plot.svg


def only(comparison: Comparison, label: int) -> Comparison:
    return replaced(comparison, y_true=comparison.y_true * 0 + label)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_images_of_one_class_have_no_curves(n_classes: int) -> None:
    made = only(make_comparison(class_names=[f"c{i}" for i in range(n_classes)], n_samples=40), 1)
    assert not curves(made)
    assert confusion(made)
    assert reliability(made)
