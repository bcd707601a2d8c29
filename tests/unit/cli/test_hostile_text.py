"""Text in a cache or a saved head that would act on a terminal, as markup or in a page, in the output of every command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from caches import RECIPE, make_batch, make_row
from commands import exit_code
from headstart.cache.writer import ShardWriter
from headstart.types import Failure, ImageRef

pytestmark = pytest.mark.slow

#: Markup of Rich that is not balanced, colours, a title, the direction of writing, C1 controls, line ends, HTML, a formula.
HOSTILE = "=[/bold][red]\x1b[31m\x1b]0;title\x07\u202e\u2066\x9b2J\r\n<script>alert(1)</script>|`"

N = 24


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache whose every string is hostile."""
    fields = ("backbone", "weights", "weights_sha256", "layer", "decode", "resize", "precision")
    recipe = replace(RECIPE, **{name: f"{getattr(RECIPE, name)}{HOSTILE}" for name in fields})  # type: ignore[arg-type]
    names = tuple(f"{name}{HOSTILE}" for name in ("ants", "bees"))
    path = tmp_path_factory.mktemp("hostile") / "a.h5"
    info = {"precision_reason": HOSTILE, HOSTILE: HOSTILE}
    options: dict[str, Any] = {"recipe": recipe, "class_names": names, "layout": HOSTILE, "info": info}
    with ShardWriter(path, **options) as writer:
        for number in range(N):
            ref = ImageRef(f"{HOSTILE}{number}.jpg", names[number % 2], HOSTILE, f"{HOSTILE}{number}", 1, 1)
            writer.append(make_batch([number]), [replace(make_row(number), ref=ref, notes=(HOSTILE,))])
        writer.add_failure(Failure(ImageRef(HOSTILE, names[0], HOSTILE, HOSTILE, 1, 1), HOSTILE))
    return path


@pytest.fixture(scope="module")
def head(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head that was fitted on it."""
    folder = tmp_path_factory.mktemp("heads") / "head"
    with pytest.MonkeyPatch.context() as patch:
        assert exit_code(patch, "fit-head", cache, "--no-search", "--validation", "0.5", "-o", folder) == 0
    return folder


def check_shown(capsys: pytest.CaptureFixture[str]) -> str:
    """Return what was printed, in which nothing acts on a terminal."""
    text = "".join(capsys.readouterr())
    assert all(char.isprintable() or char == "\n" for char in text), repr(text)
    return text


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect", "{cache}"],
        ["inspect", "{cache}", "--json"],
        ["inspect", "{cache}", "--quality", "--html", "{tmp}/quality.html"],
        ["verify", "{cache}"],
        ["verify", "{cache}", "--json"],
        ["convert", "{cache}", "{tmp}/a.csv"],
        ["merge", "{cache}", "{cache}", "-o", "{tmp}/b.h5"],
        ["evaluate", "{head}", "{cache}"],
        ["evaluate", "{head}", "{cache}", "--json"],
        ["heads", "{heads}"],
        ["heads", "{heads}", "--json"],
        ["predict", "{head}", "{tmp}"],
        ["fit-head", "{cache}", "--validation", "0.5", "-o", "{tmp}/head", "--no-search"],
    ],
    ids=lambda words: " ".join(word for word in words if "{" not in word),
)
def test_nothing_of_a_cache_or_a_head_acts(
    arguments: list[str],
    cache: Path,
    head: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    capsys.readouterr()
    places = {"cache": cache, "head": head, "heads": head.parent, "tmp": tmp_path}
    assert exit_code(monkeypatch, *(word.format(**places) for word in arguments)) in (0, 1)
    check_shown(capsys)
    for page in tmp_path.glob("*.html"):
        assert "<script>alert" not in page.read_text()


def test_markup_is_shown_as_text(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(monkeypatch, "inspect", cache) == 0
    text = check_shown(capsys)
    assert text.count("[/bold][red]\\x1b[31m\\x1b]0;title\\x07\\u202e") >= 3  # layout, notes, reason


def test_metadata_of_a_head_is_shown_as_text_whatever_it_says(
    head: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every string of every JSON file, one after the other: the head is listed, or called broken."""
    for file in sorted(head.glob("*.json")):
        original = file.read_text()
        for changed in hostile_variants(json.loads(original)):
            file.write_text(json.dumps(changed))
            assert exit_code(monkeypatch, "heads", head.parent) == 0
            check_shown(capsys)
        file.write_text(original)


def hostile_variants(value: Any) -> list[Any]:
    """Return copies of a JSON value, in each of which one string is hostile."""
    if isinstance(value, str):
        return [f"{value}{HOSTILE}"]
    if isinstance(value, dict):
        return [{**value, key: changed} for key, inside in value.items() for changed in hostile_variants(inside)]
    if isinstance(value, list):
        part = value[:2]
        return [
            [*value[:i], changed, *value[i + 1 :]]
            for i, inside in enumerate(part)
            for changed in hostile_variants(inside)
        ]
    return []
