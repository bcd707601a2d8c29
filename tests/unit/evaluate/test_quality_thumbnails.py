"""The page of a quality report, and its thumbnails."""

from __future__ import annotations

import hashlib
import os
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fakes import FakeNetwork
from headstart.evaluate.quality_report import inspect_quality, thumbnail
from headstart.extract.options import ExtractOptions
from headstart.extract.run import extract_features
from headstart.report.html_pages import QualityReport, quality_page
from planted import Planted

pytestmark = pytest.mark.slow

HOSTILE = "<img src=x onerror=alert(1)>.png"


def photo(file: Path, seed: int) -> None:
    """Write a picture that is large enough, and unlike the others."""
    file.parent.mkdir(parents=True, exist_ok=True)
    blocks = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    Image.fromarray(blocks).resize((210, 140), Image.Resampling.NEAREST).save(file)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Pictures under names that attack: markup, direction of writing, line breaks, bytes that are no text."""
    root = tmp_path / "data"
    names = [HOSTILE, "\u202egnp.exe.png", "two\nlines.png", "\"'&{{ 7*7 }}.png", os.fsdecode(b"caf\xe9.png")]
    for seed, name in enumerate(names):
        photo(root / "<b>ants" / name, seed)
        (root / "<b>ants" / f"copy of {name}").write_bytes((root / "<b>ants" / name).read_bytes())
    photo(root / "bees" / "a.png", 100)
    (root / "bees" / "broken<script>alert(2).png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    return root


@pytest.fixture
def report(data: Path, tmp_path: Path) -> QualityReport:
    options = ExtractOptions(decode_threads=1)
    extract_features(data, tmp_path / "data.h5", options=options, network=FakeNetwork())
    return inspect_quality(tmp_path / "data.h5", data)


class Page(HTMLParser):
    """What a browser would make of a page: tags with their attributes, and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_shows_names_as_text_and_asks_for_nothing(report: QualityReport) -> None:
    page = Page(quality_page(report))
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "iframe", "object", "embed", "form", "b"}
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href"):
            address = attributes.get(name) or "#"
            assert address.startswith(("#", "data:image/jpeg;base64,")) or address == "data:,", address
    for name in (HOSTILE, r"\u202egnp.exe.png", r"two\nlines.png", "\"'&{{ 7*7 }}.png", r"caf\xe9.png", "<b>ants"):
        assert name in page.text
    assert "\u202e" not in page.text
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert str(policy).startswith("default-src 'none'; img-src data:; style-src 'sha256-")


def test_thumbnails_are_small_jpegs_of_the_images_listed(report: QualityReport) -> None:
    pictures = [attributes for tag, attributes in Page(quality_page(report)).tags if tag == "img"]
    assert len(pictures) >= 10
    assert all(attributes["alt"] for attributes in pictures)
    assert f"<b>ants/{HOSTILE}" in report.thumbnails
    assert all(jpeg.startswith(b"\xff\xd8\xff") and len(jpeg) < 20_000 for jpeg in report.thumbnails.values())


def test_an_image_that_has_changed_or_lies_outside_gets_no_thumbnail(data: Path, tmp_path: Path) -> None:
    file = data / "bees" / "a.png"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert thumbnail(data, "bees/a.png", digest) is not None
    assert thumbnail(data, "bees/a.png", "0" * 64) is None
    assert thumbnail(data / "<b>ants", "../bees/a.png", digest) is None
    assert thumbnail(tmp_path, str(file), digest) is None
    assert thumbnail(data, "bees/gone.png", digest) is None


def test_a_page_without_findings_or_pictures(tmp_path: Path) -> None:
    page = Page(quality_page(inspect_quality(Planted().write(tmp_path / "cache.h5"))))
    assert "Nothing was found." in page.text
    assert "They need the folder of images" in page.text
