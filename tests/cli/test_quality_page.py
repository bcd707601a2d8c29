"""``headstart inspect --quality`` as a person runs it, and its page as a browser shows it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from browser import browse, screenshot
from commands import Cli
from fakes import FakeNetwork
from headstart.extract.options import ExtractOptions
from headstart.extract.run import extract_features

pytestmark = pytest.mark.slow

HOSTILE = "<img src=x onerror=alert(1)>.png"

#: Colour of the hostile image; the page itself has none like it.
MAGENTA = (255, 0, 255)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two classes; one image twice, under a name that attacks; one that is broken."""
    root = tmp_path / "data"
    for name in ("ants", "[bold]bees"):
        (root / name).mkdir(parents=True)
    Image.new("RGB", (200, 150), MAGENTA).save(root / "ants" / HOSTILE)
    shutil.copy(root / "ants" / HOSTILE, root / "[bold]bees" / "b.png")
    (root / "ants" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 nothing")
    return root


@pytest.fixture
def cache(data: Path, tmp_path: Path) -> Path:
    path = tmp_path / "data.h5"
    extract_features(data, path, options=ExtractOptions(decode_threads=1), network=FakeNetwork())
    return path


def test_the_table_says_what_was_found(cli: Cli, cache: Path) -> None:
    code, output, _ = cli("inspect", cache, "--quality")
    assert code == 0
    for words in ("Identical files with different labels", HOSTILE, "[bold]bees", "broken.jpg", "Not checked"):
        assert words in output


def test_json_says_the_same(cli: Cli, cache: Path) -> None:
    code, output, _ = cli("inspect", cache, "--quality", "--json")
    report = json.loads(output)
    assert code == 0
    assert {finding["name"] for finding in report["findings"]} >= {"unreadable", "identical-files", "few-images"}
    assert report["findings"][0]["examples"][0]["images"][1] == {
        "path": f"ants/{HOSTILE}", "label": "ants", "split": None
    }  # fmt: skip


def test_a_page_without_its_folder_says_so(cli: Cli, cache: Path, tmp_path: Path) -> None:
    code, _, messages = cli("inspect", cache, "--quality", "--html", tmp_path / "new" / "page.html")
    assert code == 0
    assert "0 thumbnails. They need the folder of images" in messages
    assert (tmp_path / "new" / "page.html").is_file()


def test_wrong_usage_and_a_page_that_cannot_be_written(cli: Cli, cache: Path, data: Path) -> None:
    assert cli("inspect", cache, "--html", "page.html")[0] == 2
    assert cli("inspect", cache, "--quality", "--data", data)[0] == 2
    code, _, messages = cli("inspect", cache, "--quality", "--html", data)
    assert code == 1
    assert "The page cannot be written" in messages


# In a browser


@pytest.fixture
def page(cli: Cli, cache: Path, data: Path, tmp_path: Path) -> Path:
    file = tmp_path / "page.html"
    code, _, messages = cli("inspect", cache, "--quality", "--data", data, "--html", file)
    assert code == 0, messages
    return file


def test_a_browser_shows_the_page_without_a_word_on_its_console(page: Path, tmp_path: Path) -> None:
    document, console = browse(page, tmp_path / "profile")
    assert console == []
    assert "ants/&lt;img src=x onerror=alert(1)&gt;.png</bdi>" in document
    assert "<script" not in document
    assert "<img src=x" not in document.replace('alt="ants/<img src=x onerror=alert(1)>.png"', "")
    assert document.count('<img src="data:image/jpeg;base64,') >= 4


def test_a_browser_draws_the_thumbnails(page: Path, tmp_path: Path) -> None:
    with Image.open(screenshot(page, tmp_path / "profile")) as image:
        pixels = np.asarray(image.convert("RGB"), np.int16)
    near = (np.abs(pixels - MAGENTA) < 12).all(axis=2)
    assert near.sum() > 4 * 100 * 75


def test_the_console_is_listened_to(tmp_path: Path) -> None:
    """The attack, unescaped, under the page's own policy: what the first test would see if a name got through."""
    file = tmp_path / "attack.html"
    policy = "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; img-src data:\">"
    file.write_text(f"<!DOCTYPE html><title>x</title>{policy}<img src=x onerror=alert(1)>", encoding="utf-8")
    _, console = browse(file, tmp_path / "profile")
    assert console
