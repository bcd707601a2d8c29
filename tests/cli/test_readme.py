"""What the README tells people to do works: every ``bash`` and ``python`` block is executed, in order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pictures import class_folders, picture
from preloaded import preloaded

if TYPE_CHECKING:
    from headstart.backbones.convnet import Weights

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")

#: What pip installs, by the project's own list.
COMMANDS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]

#: Blocks of each language. A new block is counted here, so that none can go unseen.
BLOCKS = {"console": 2, "bash": 3, "python": 2, "text": 1}

#: What runs a block of this language.
RUN = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-W", "error::UserWarning", "-c"]}


def blocks() -> list[tuple[str, str]]:
    """Return (language, text) of every fenced block of the README, in order."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def test_every_block_is_seen() -> None:
    languages = [language for language, _ in blocks()]
    assert {language: languages.count(language) for language in languages} == BLOCKS
    assert README.count("```") == 2 * len(languages)


@pytest.mark.weights
def test_every_bash_and_python_block_runs(tmp_path: Path, imagenet: Weights) -> None:
    class_folders(tmp_path / "photos", n_per_class=6)
    picture(tmp_path / "new-photos" / "one.png", seed=7)
    for number in range(12):
        picture(tmp_path / "loose" / f"{number}.png", seed=number)
    executed = [(language, text) for language, text in blocks() if language in RUN]
    assert len(executed) == BLOCKS["bash"] + BLOCKS["python"]
    with preloaded(*COMMANDS) as folder:
        environment = os.environ | {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
        for language, text in executed:
            result = subprocess.run(
                [*RUN[language], text], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
            )
            assert result.returncode == 0, f"{text}\n{result.stdout}\n{result.stderr}"
            assert result.stdout.strip(), f"printed nothing:\n{text}"
    assert "one.png" in (tmp_path / "predictions.csv").read_text(encoding="utf-8")
    assert (tmp_path / "model.keras").is_file()
    assert (tmp_path / "heads" / "photos").is_dir()


def test_the_make_targets_it_names_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(
        re.findall(r"\bmake ([a-z]+)\b", " ".join([*re.findall(r"`([^`]*)`", README), *(t for _, t in blocks())]))
    )
    assert {"demo", "test"} <= named
    assert named <= set(re.findall(r"^([a-z]+):", makefile, flags=re.MULTILINE))


def test_the_extras_it_names_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = set(",".join(re.findall(r'"\.\[([\w,]+)\]"', README)).split(","))
    named |= set(re.findall(r"^\| `(\w+)` \|", README, flags=re.MULTILINE))
    assert named == set(project["optional-dependencies"])


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/adr/README.md"])
def test_links_lead_somewhere(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    assert links
    assert [link for link in links if not ((ROOT / name).parent / link).exists()] == []
