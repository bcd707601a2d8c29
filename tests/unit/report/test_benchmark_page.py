"""The page of a comparison: what it holds, and what a browser makes of it."""

from __future__ import annotations

import io
import json
import re
import zlib
from functools import cache
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from browser import DARK, browse, run, screenshot
from comparisons import FLOWERS, HEADS, HOSTILE, drawn_once, make_comparison, odd_comparisons, plots_of
from headstart.report.comparison import Comparison
from headstart.report.html_pages import benchmark_page, image_link, page_mistakes
from headstart.texts import printable

pytestmark = pytest.mark.slow

SHAPES = odd_comparisons()

#: Elements without an end.
VOID = {"meta", "link", "img", "br", "wbr"}


class Reader(HTMLParser):
    """Collects what a page holds, and fails where an element is not closed in its place."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag in tags]


def jpeg(colour: tuple[int, int, int] = (200, 30, 90)) -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (160, 120), colour).save(written, "JPEG")
    return written.getvalue()


@pytest.fixture(autouse=True)
def _plots_are_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.report.html_pages.comparison_plots", drawn_once)


def mistaken_paths(comparison: Comparison) -> list[str]:
    """Return the images that the page shows as mistakes."""
    return [mistake.path for cell in page_mistakes(comparison) for mistake in cell.mistakes]


@cache
def page_of(shape: str) -> str:
    """Return the page of a comparison, with thumbnails and links."""
    if shape == "hostile without links":
        return benchmark_page(SHAPES["hostile"])
    thumbnails = {path: jpeg() for path in mistaken_paths(SHAPES[shape])}
    return benchmark_page(SHAPES[shape], thumbnails=thumbnails, image_root="../data set")


@pytest.fixture(params=[*SHAPES, "hostile without links"])
def shape(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_page_is_whole_and_shows_every_plot(shape: str) -> None:
    page = Reader(page_of(shape))
    assert {f"plot-{name}-title plot-{name}-desc" for name in plots_of(shape.removesuffix(" without links"))} == {
        attributes["aria-labelledby"] for attributes in page.all("svg")
    }
    assert page.all("html") == [{"lang": "en"}]
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for attributes in page.all("a"):
        target = attributes["href"] or ""
        assert target[1:] in ids if target.startswith("#") else target.startswith("./../data%20set/")


def test_headings_go_down_one_step_at_a_time(shape: str) -> None:
    levels = [int(tag[1]) for tag, _ in Reader(page_of(shape)).elements if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_every_picture_has_a_text(shape: str) -> None:
    page = Reader(page_of(shape))
    assert all(attributes.get("alt") for attributes in page.all("img"))
    assert all(attributes.get("role") == "img" for attributes in page.all("svg"))


def test_nothing_runs_and_nothing_is_fetched(shape: str) -> None:
    page = Reader(page_of(shape))
    assert not page.all("script", "iframe", "object", "embed", "form", "base")
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    for _, attributes in page.elements:
        assert not [key for key in attributes if key == "style" or key.startswith("on")]
        assert (attributes.get("src") or "data:").startswith("data:")


@pytest.mark.parametrize("shape", ["hostile", "hostile without links"])
def test_names_of_others_are_text(shape: str) -> None:
    page = Reader(page_of(shape))
    for name in HOSTILE:
        assert printable(name) in page.text
    assert not {attributes.get("src") for attributes in page.all("img")} & {"x", None}


def test_numbers_and_words_of_the_comparison_are_there() -> None:
    comparison, page = SHAPES["usual"], Reader(page_of("usual"))
    text = " ".join(page.text.split())
    for words in (comparison.recommendation, comparison.folds, comparison.interval, comparison.test, *comparison.leaks):
        assert words in text
    for words in (comparison.command, comparison.machine, "scikit-learn 1.6.1", comparison.recipe.fingerprint):
        assert words in text
    for head in comparison.heads:
        assert f"{head.metrics['accuracy'].value:.3f}" in text
        assert all(note in text for note in head.notes)
    assert all(name in text for name in FLOWERS)
    assert (
        len(re.findall(r"\d % sure(?! of)", text)) == len(mistaken_paths(SHAPES["usual"])) == len(page.all("img")) > 24
    )


def test_without_thumbnails_and_root_mistakes_are_paths() -> None:
    page = Reader(benchmark_page(SHAPES["usual"]))
    assert not page.all("img")
    assert all((attributes["href"] or "").startswith("#") for attributes in page.all("a"))
    assert mistaken_paths(SHAPES["usual"])[0] in page.text


def test_too_many_classes_are_pairs_and_the_worst(monkeypatch: pytest.MonkeyPatch) -> None:
    text = Reader(page_of("many classes")).text
    assert "Most frequent confusions" in text
    many = make_comparison(class_names=[f"species {i:03d}" for i in range(300)], n_samples=600, heads=HEADS[:1])
    monkeypatch.setattr("headstart.report.html_pages.comparison_plots", lambda _: {})  # plots have no say in it
    page = Reader(benchmark_page(many))
    assert "The 250 classes with the lowest F1 are listed." in " ".join(page.text.split())


@pytest.mark.parametrize(
    ("root", "path", "expected"),
    [
        ("../data", "ants/a b.png", "./../data/ants/a%20b.png"),
        (".", "a.png", "././a.png"),
        ("javascript:alert(1)", "a.png", "./javascript%3Aalert%281%29/a.png"),
        ("d", 'x"onclick=1/?#%.png', "./d/x%22onclick%3D1/%3F%23%25.png"),
        ("d", "caf\udce9.jpg", "./d/caf%E9.jpg"),
        ("d", "../up.png", ""),
        ("d", "/etc/passwd", ""),
        (None, "a.png", ""),
    ],
)
def test_links_are_relative_and_stay_below_the_root(root: str | None, path: str, expected: str) -> None:
    assert image_link(root, path) == expected


def test_the_page_of_a_usual_comparison_stays_small() -> None:
    """17 classes, 8 heads, 1,088 images, thumbnails of 8 KB."""
    comparison = SHAPES["usual"]
    random = np.random.default_rng(0)
    written = io.BytesIO()
    Image.fromarray(random.integers(0, 255, (120, 160, 3), np.uint8)).save(written, "JPEG", quality=60)
    thumbnails = dict.fromkeys(mistaken_paths(comparison), written.getvalue())
    assert len(written.getvalue()) > 8_000
    assert len(benchmark_page(comparison, thumbnails=thumbnails)) < 1_500_000


# In a browser


#: Appended to a page whose policy lets it: writes the size of every plot and the widest overflow into the document.
MEASURE = """<script>
const plots = [...document.querySelectorAll('svg')];
const sizes = plots.map(p => p.getBoundingClientRect()).map(box => [box.width, box.height]);
const drawn = plots.map(p => p.querySelector('g').getBBox().width > 0);
document.body.dataset.sizes = JSON.stringify(sizes);
document.body.dataset.drawn = JSON.stringify(drawn);
document.body.dataset.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
</script>"""


def written(folder: Path, text: str) -> Path:
    file = folder / "page.html"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize("shape", ["usual", "hostile", "hostile without links"])
def test_a_browser_has_nothing_to_complain_about(shape: str, tmp_path: Path) -> None:
    document, console = browse(written(tmp_path, page_of(shape)), tmp_path / "profile")
    assert console == []
    assert "<script" not in document
    assert document.count("<svg") == len(plots_of(shape.removesuffix(" without links")))


@pytest.mark.parametrize("width", [390, 1200])
def test_every_plot_has_a_size_and_the_page_is_as_wide_as_the_window(width: int, tmp_path: Path) -> None:
    for number, shape in enumerate(("usual", "hostile")):
        open_page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page_of(shape)).replace(
            "</body>", f"{MEASURE}</body>"
        )
        # A browser's window is at least 500 pixels wide; a frame is as narrow as one likes.
        inner = written(tmp_path, open_page).rename(tmp_path / f"inner{number}.html")
        frame = f"<iframe src={inner.name} width={width} height=2000></iframe>"
        outer = written(tmp_path, f"<!DOCTYPE html><title>x</title>{frame}<pre></pre>")
        show = "<script>onload = () => document.querySelector('pre').textContent = JSON.stringify("
        show += "{...document.querySelector('iframe').contentDocument.body.dataset})</script>"
        outer.write_text(outer.read_text() + show)
        document, _ = browse(outer, tmp_path / "profile", "--allow-file-access-from-files")
        values = json.loads(re.search(r"<pre>(.*?)</pre>", document)[1])  # type: ignore[index]
        assert all(w > 200 and h > 150 for w, h in json.loads(values["sizes"]))
        assert all(json.loads(values["drawn"]))
        assert int(values["overflow"]) <= 0


def lightness(shot: Path) -> float:
    with Image.open(shot) as image:
        return float(np.median(np.asarray(image.convert("L"))))


def test_the_dark_is_dark_and_paper_is_white(tmp_path: Path) -> None:
    file = written(tmp_path, page_of("usual"))
    assert lightness(screenshot(file, tmp_path / "light")) > 250
    assert lightness(screenshot(file, tmp_path / "dark", DARK)) < 40
    run(file, tmp_path / "print", DARK, f"--print-to-pdf={tmp_path / 'page.pdf'}", "--no-pdf-header-footer")
    written_pdf = (tmp_path / "page.pdf").read_bytes()
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", written_pdf, re.DOTALL)
    drawn = b" ".join(zlib.decompress(stream) for stream in streams if stream[:1] == b"x")
    assert re.search(rb"\.956\d* \.964\d* \.972\d* rg", drawn)  # the light page's
    assert not re.search(rb"\.1137\d* \.137\d* \.160\d* rg", drawn)  # the dark page's panels
