"""The words of the field: none that this project once had for itself, and which a reader would have to learn."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: Words that are not used any more → what is written instead. ``np.floor`` is a function, ``"Floor"`` an operator of ONNX.
WORDS = {
    r"houses?|rooms?|floors|doors?|floor(?![(\"])": "packages, layers, import contracts",
    r"crews?|hire[sd]?|hiring": "worker pool, start a worker",
    r"flights?": "inference queue",
    r"shares(?= of (workers|devices|nodes|actors))": "per-worker statistics",
    r"alike": "possible duplicates, similar",
    r"facts?": "metadata",
    r"strange": "unexpected",
    r"votes?": "number of neighbors",
}

FILES = sorted(
    path
    for folder in ("src", "cli", "docs", "benchmarks", "README.md", "CONTRIBUTING.md", "Makefile", "pyproject.toml")
    for path in ([ROOT / folder] if (ROOT / folder).is_file() else (ROOT / folder).rglob("*"))
    if path.suffix in {".py", ".md", ".toml", ".html", ""} and path.is_file()
)


def words_in(text: str, pattern: str) -> list[str]:
    """Return the words that a pattern finds, in names with underscores too."""
    return re.findall(rf"(?<![A-Za-z])(?:{pattern})(?![A-Za-z])", text, re.IGNORECASE)


def test_the_search_finds_words_in_names_and_sentences() -> None:
    assert words_in("class Crew: the_crew = hired(2)", "crews?|hire[sd]?") == ["Crew", "crew", "hired"]
    assert not words_in("np.floor(x), artifacts, shire", 'floor(?![("])|facts?|hire[sd]?')


@pytest.mark.parametrize("pattern", WORDS)
def test_no_word_of_the_old_vocabulary_is_left(pattern: str) -> None:
    found = {
        str(path.relative_to(ROOT)): words
        for path in FILES
        if (words := words_in(path.read_text(encoding="utf-8"), pattern))
    }
    assert found == {}, f"write: {WORDS[pattern]}"
