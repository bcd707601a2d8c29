"""Table and plot of docs/performance.md, from the JSON that ``make bench`` writes.

python benchmarks/performance_page.py [--results FILE] [--page FILE]      writes the page's table and engines.svg beside it
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from headstart.report.svg import ROLES, draw
from machine import RESULTS, median

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"

#: Between these, the page is made by this script.
START, END = "<!-- make bench: start -->", "<!-- make bench: end -->"

#: What a reader sees of each way.
TITLES = {
    "tensorflow-float32": "TensorFlow, compiled function, float32",
    "bare-float32": "bare forward function, float32",
    "bare-auto": "bare forward function, `auto`",
    "worker-auto": "**headstart**, `auto`",
    "tutorial-loop": "Keras tutorial, `predict` per batch",
    "tutorial-predict": "Keras tutorial, one `predict`",
    "torch-float32": "PyTorch, DataLoader, float32",
    "torch-bfloat16": "PyTorch, DataLoader, autocast",
    "openvino-float32": "OpenVINO, float32",
    "openvino-bfloat16": "OpenVINO, bfloat16",
    "openvino-int8": "OpenVINO, int8 (NNCF)",
    "onnxruntime-float32": "ONNX Runtime, float32",
}

BASELINE = "tutorial-predict"

#: Heading of the table of extraction; after the first two, numbers.
COLUMNS = (
    "way", "computes in", "images/s", "× bare", "× tutorial", "of the roof", "whole run, s", "relative error",
    "cosine: mean, min",
)  # fmt: skip

#: The page's colours in the dark: those of benchmark pages (report/templates/page.css).
DARK = {"ink": "#e6edf3", "soft": "#9198a1", "line": "#3d444d", "c0": "#4da3dd", "c1": "#f0883e", "c2": "#3fb98f"}

#: Colour of a precision.
COLOURS = {"float32": ROLES["c0"], "bfloat16": ROLES["c1"], "int8": ROLES["c2"]}


def rate(way: Mapping[str, Any]) -> float:
    """Return a way's images per second."""
    return median(way["images_per_second"])


def roof(result: Mapping[str, Any], precision: str) -> float | None:
    """Return the images per second that the fastest matrix product of a type would allow; None where none was measured."""
    peaks = result["peaks"].get(precision)
    return max(peaks.values()) / result["gmac_per_image"] if peaks else None


def bare(result: Mapping[str, Any], precision: str) -> float | None:
    """Return the rate of the bare forward function in a precision; None where it was not measured."""
    found = [way for name, way in result["ways"].items() if name.startswith("bare-") and way["precision"] == precision]
    return rate(found[-1]) if found else None


def share(value: float, whole: float | None) -> str:
    """Return a ratio in two decimals, or a dash where there is nothing to compare with."""
    return f"{value / whole:.2f}" if whole else "–"


def extraction_rows(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the table of extraction."""
    ways = result["ways"]
    tutorial = rate(ways[BASELINE]) if BASELINE in ways else None
    yield f"| {' | '.join(COLUMNS)} |"
    yield "|---|---|--:|--:|--:|--:|--:|--:|--:|"
    for name, way in ways.items():
        precision, images = way["precision"], rate(way)
        cells = [
            TITLES[name],
            precision,
            f"{images:.1f}",
            share(images, bare(result, precision)),
            share(images, tutorial),
            share(images, roof(result, precision)),
            "–" if name.startswith(("bare-", "tensorflow-")) else f"{median(way['whole_seconds']):.1f}",
            *(
                [
                    f"{way['relative_error']:.1e}" if way["relative_error"] else "0",
                    f"{way['cosine_mean']:.5f}, {way['cosine_min']:.5f}",
                ]
                if "cosine_min" in way
                else "––"
            ),
        ]
        yield f"| {' | '.join(cells)} |"


def turns_sentence(result: Mapping[str, Any]) -> str:
    """Return how fast the worker is beside its bare network, by turns in one process."""
    found = result["by_turns"]
    ratio = found["worker_of_bare"]
    return (
        f"By turns of {found['images_a_turn']} images in one process, **headstart** and its bare function in "
        f"{found['precision']}, {ratio['rounds']} rounds: {found['worker']:.1f} and {found['bare']:.1f} images/s. The ratio "
        f"in a round has the median {ratio['median']:.3f} and the mean {ratio['mean']:.3f}, of standard error "
        f"{ratio['error']:.3f}."
    )


def roof_sentences(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the roofs are made of."""
    layers = result["multiply_adds"]
    blocks = [sum(count for name, count in layers.items() if name.startswith(f"block{i}_")) for i in range(1, 6)]
    total = " + ".join(f"{count / 1e9:.3f}" for count in blocks)
    yield (
        f"One image of 224 × 224 pixels takes {total} = {result['gmac_per_image']:.2f} thousand million multiply-adds "
        "(GMAC): the convolutions of blocks 1 to 5. The product of two matrices ran at this rate, the fastest of "
        "each type being the roof:"
    )
    yield ""
    yield "| type | GMAC/s, by engine | roof, images/s |\n|---|---|--:|"
    for precision, peaks in result["peaks"].items():
        found = ", ".join(f"{engine} {value:.0f}" for engine, value in peaks.items())
        yield f"| {precision} | {found} | {roof(result, precision):.1f} |"


def head_rows(heads: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the table of heads."""
    search, dense = heads["search"]["ways"], heads["dense"]["caches"]["features"]
    n_rows, n_columns = heads["search"]["shape"]
    yield f"Heads on the features of {heads['images']}:"
    yield ""
    yield "| task | way | seconds | × headstart | accuracy |\n|---|---|--:|--:|--:|"
    task = f"logistic, 8 values of C × 5 folds, {n_rows:,} × {n_columns:,}"
    for name, way in search.items():
        title = "**headstart**" if name == "ours" else f"scikit-learn, `{name}`"
        best = max(way["accuracy_at_C"].values())
        yield f"| {task} | {title} | {way['median_seconds']:.2f} | {way['times_ours']:.1f} | {best:.4f} |"
    task = f"dense, {dense['n_train']:,} images"
    titles = {
        "default": f"**headstart**, on `{','.join(dense['default'].get('features', ['flatten']))}`",  # once the only choice
        "same_settings": "headstart, trained as the tutorials do",
        "baseline": "Keras, `model.fit` as the tutorials do",
    }
    fastest = median(dense["default"]["seconds"])
    for name, title in titles.items():
        way = dense[name]
        seconds = median(way["seconds"])
        accuracy = f"{way['accuracy_mean']:.4f} ± {way['accuracy_spread']:.4f}"
        yield f"| {task} | {title} | {seconds:.2f} | {seconds / fastest:.1f} | {accuracy} |"
    yield ""
    yield (
        f"The accuracy of *logistic* is cross-validated, at the best C; that of *dense* is on {dense['n_test']:,} held-out "
        "images, over seeds."
    )


def storage_rows(storage: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the table of storage."""
    yield f"The same features stored, {storage['rows']:,} rows, in rows a second of one core:"
    yield ""
    yield "| file | KB a row | write | read | read, scattered |\n|---|--:|--:|--:|--:|"
    for name, way in {"**headstart** cache": storage["headstart"], **storage["plain"]}.items():
        rates = [f"{way[what]:,.0f}" for what in ("write", "read", "read_scattered")]
        yield f"| {name} | {way['kb_per_row']:.1f} | {' | '.join(rates)} |"
    yield ""
    yield "The cache holds float16 and, beside the map, the averages of every block; its rows carry digests and checksums."


def machine_sentence(result: Mapping[str, Any]) -> str:
    """Return what it was measured on."""
    machine = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{result['images']}; median of {result['rounds']} rounds by turns. {machine['processor']}, "
        f"{machine['cores']} cores, {machine['memory_gib']} GiB; Python {machine['python']}; {versions}."
    )


def tables(result: Mapping[str, Any]) -> str:
    """Return what stands between the markers."""
    heads = result["heads"]
    return "\n".join(
        [
            *extraction_rows(result),
            "",
            *([turns_sentence(result), ""] if result.get("by_turns") else []),
            *roof_sentences(result),
            "",
            *head_rows(heads),
            "",
            *storage_rows(heads["storage"]),
            "",
            machine_sentence(result),
        ]
    )


def with_tables(page: str, result: Mapping[str, Any]) -> str:
    """Return the page with what stands between its markers made anew.

    Raises
    ------
    SystemExit
        If the markers are not there.
    """
    before, start, rest = page.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise SystemExit(f"The page has no lines {START} and {END}, between which the tables go.")
    return f"{before}{START}\n\n{tables(result)}\n\n{END}{after}"


def plot(result: Mapping[str, Any]) -> str:
    """Return the plot: a bar for each way, and the roof of its type as a line above it."""
    names = list(result["ways"])
    widest = max(rate(way) for way in result["ways"].values())

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        for y, name in enumerate(reversed(names)):
            precision, images = result["ways"][name]["precision"], rate(result["ways"][name])
            top = roof(result, precision)
            axes.barh(y, images, height=0.62, color=COLOURS[precision])
            if top:
                axes.plot([top, top], [y - 0.44, y + 0.44], color=ROLES["ink"], linewidth=2, solid_capstyle="butt")
            # Where the roof is so near that it would run through the number, the number stands behind it.
            end = top if top and images <= top < images + widest / 8 else images
            axes.annotate(f"{images:.1f}", (end, y), (4, 0), textcoords="offset points", va="center")
        axes.set_yticks(range(len(names)), [plain(name) for name in reversed(names)])
        axes.grid(axis="y", visible=False)
        axes.set_xlim(left=0)
        axes.set_xlabel("images per second; the upright line is the roof of the type")
        handles = [axes.barh(0, 0, color=colour) for colour in COLOURS.values()]
        figure.legend(handles, list(COLOURS), loc="outside upper right", ncols=3)

    made = draw(
        paint, name="engines", title="Ways of extracting VGG16 features, and the roof above them",
        description=plot_description(result), width_pt=560, height_pt=70 + 24 * len(names), wide=True,
    )  # fmt: skip
    return recoloured(made.svg)


def plot_description(result: Mapping[str, Any]) -> str:
    """Return the numbers of the plot in words."""
    words = [f"{plain(name)}: {rate(way):.1f}" for name, way in result["ways"].items()]
    roofs = [f"{precision} {roof(result, precision):.1f}" for precision in result["peaks"]]
    return f"Images per second. {'; '.join(words)}. Roofs: {', '.join(roofs)}."


def plain(name: str) -> str:
    """Return the title of a way without marks."""
    return re.sub(r"[*`]", "", TITLES[name])


def recoloured(svg: str) -> str:
    """Return a plot as a file of its own: on a page of its own colour, in light and dark."""
    rules = [f".f-{role}{{fill:{colour}}}.s-{role}{{stroke:{colour}}}" for role, colour in DARK.items()]
    style = (
        f"<style>.page{{fill:#fff}}@media (prefers-color-scheme:dark){{.page{{fill:#0d1117}}{''.join(rules)}}}</style>"
        '<rect class="page" width="100%" height="100%"/>'
    )
    head, end, rest = svg.partition("</desc>")
    return f"{head}{end}{style}{rest}\n"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS / "bench.json")
    parser.add_argument("--page", type=Path, default=PAGE)
    return parser.parse_args(arguments)


def main() -> None:
    """Write table and plot."""
    options = parse()
    result = json.loads(options.results.read_text(encoding="utf-8"))
    options.page.write_text(with_tables(options.page.read_text(encoding="utf-8"), result), encoding="utf-8")
    (options.page.parent / "engines.svg").write_text(plot(result), encoding="utf-8")


if __name__ == "__main__":
    main()
