from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from headstart.errors import DataError, MissingExtraError
from headstart_cli import demo_command
from headstart_cli.demo_command import Cell, find_table, lay_out, read_cells, take

LINES = (
    "images/b.png  1.0  mono\nimages/a.png  0.0  poly\nimages/c.png 0.3333333333333333 mono\nimages/d.png 0.5 poly\n"
)


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed wheel that fails when it is imported; returns its table."""
    site = tmp_path / "site"
    info, data = site / "toy_cells-1.0.dist-info", site / "toy_cells" / "data"
    info.mkdir(parents=True)
    (data / "images").mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-cells\nVersion: 1.0\n")
    (site / "toy_cells" / "__init__.py").write_text("raise AssertionError('the wheel was imported')\n")
    (data / "labels.csv").write_text(LINES)
    for name in "abcd":
        (data / "images" / f"{name}.png").write_bytes(name.encode() * 10)
    files = [file.relative_to(site).as_posix() for file in site.rglob("*") if file.is_file()]
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(demo_command, "WHEEL", "toy-cells")
    monkeypatch.setattr(demo_command, "TABLE", "toy_cells/data/labels.csv")
    return data / "labels.csv"


def test_the_table_is_found_in_the_installed_wheel_without_importing_it(wheel: Path) -> None:
    assert find_table() == wheel


def test_a_wheel_that_is_not_installed_is_named_with_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_command, "WHEEL", "no-such-wheel-anywhere")
    with pytest.raises(MissingExtraError, match=r'pip install "headstart\[demo,weights\]"'):
        find_table()


def test_cells_are_sorted_and_defective_from_one_half_on(wheel: Path) -> None:
    cells = read_cells(wheel)
    assert [(cell.source.name, cell.label) for cell in cells] == [
        ("a.png", "functional"),
        ("b.png", "defective"),
        ("c.png", "functional"),
        ("d.png", "defective"),
    ]


@pytest.mark.parametrize("line", ["images/a.png 0.5", "images/a.png much mono", "images/a.png,0.5,mono"])
def test_a_line_that_is_something_else_is_named(tmp_path: Path, line: str) -> None:
    table = tmp_path / "labels.csv"
    table.write_text(f"images/b.png 1.0 mono\n{line}\n")
    with pytest.raises(DataError, match="Line 2 of"):
        read_cells(table)


def test_an_empty_table_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("")
    with pytest.raises(DataError, match="lists no images"):
        read_cells(table)


def some_cells() -> list[Cell]:
    labels = ["functional"] * 3 + ["defective"]
    return [Cell(Path(f"{i:03d}.png"), labels[i % 4]) for i in range(400)]


def test_a_tour_keeps_the_proportions_of_the_classes_and_spreads_evenly() -> None:
    chosen = take(some_cells(), 40)
    assert Counter(cell.label for cell in chosen) == {"functional": 30, "defective": 10}
    assert len(set(chosen)) == 40
    defective = [int(cell.source.stem) for cell in chosen if cell.label == "defective"]
    assert {b - a for a, b in pairwise(defective)} == {40}
    assert chosen == take(some_cells(), 40)


@pytest.mark.parametrize("limit", [None, 400, 1000])
def test_without_a_smaller_limit_every_cell_is_taken(limit: int | None) -> None:
    assert take(some_cells(), limit) == some_cells()


def test_cells_are_laid_out_as_class_folders_and_the_wheel_stays_as_it_was(wheel: Path, tmp_path: Path) -> None:
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in wheel.parent.rglob("*.png")}
    lay_out(read_cells(wheel), tmp_path / "cells")
    found = sorted(path.relative_to(tmp_path / "cells").as_posix() for path in (tmp_path / "cells").rglob("*.*"))
    assert found == ["defective/b.png", "defective/d.png", "functional/a.png", "functional/c.png"]
    copy = tmp_path / "cells" / "functional" / "a.png"
    assert copy.read_bytes() == b"a" * 10
    copy.write_bytes(b"changed")  # a copy, not a link: changing it must not reach the wheel
    assert before == {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in wheel.parent.rglob("*.png")}


def test_a_second_layout_leaves_good_copies_alone_and_heals_bad_ones(wheel: Path, tmp_path: Path) -> None:
    cells = read_cells(wheel)
    lay_out(cells, tmp_path / "cells")
    good, bad = tmp_path / "cells" / "functional" / "a.png", tmp_path / "cells" / "functional" / "c.png"
    bad.write_bytes(b"x" * 10)
    inode = good.stat().st_ino
    lay_out(cells, tmp_path / "cells")
    assert good.stat().st_ino == inode
    assert bad.read_bytes() == b"c" * 10


def test_a_missing_image_is_said(wheel: Path, tmp_path: Path) -> None:
    (wheel.parent / "images" / "b.png").unlink()
    with pytest.raises(DataError, match=r"could not be laid out in .*b\.png"):
        lay_out(read_cells(wheel), tmp_path / "cells")
