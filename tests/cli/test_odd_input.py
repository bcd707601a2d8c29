"""Folders that nobody would make on purpose, from the images to what is printed of their cache."""

from __future__ import annotations

import io
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from commands import Cli, exit_code
from fakes import FakeBackbone, FakeNetwork
from headstart.backbones.vgg16 import VGG16
from headstart.cache.reader import open_cache
from headstart.extract import run
from headstart.texts import class_name
from headstart.types import FeatureBatch
from labelled import labelled_cache
from pictures import class_folders, picture

pytestmark = pytest.mark.slow

#: Folders and files may be called so on Linux.
NAMES = (
    b"new\nline\r",
    b"\xff\xfe",
    "אב\u0301\u202e".encode(),
    b'"quoted" \'[red]x[-1]',
    b"n" * 251,
    b"e\xcc\x81",
    b"\xc3\xa9",
    b"\x1b[31mred",
    b"tab\t,;",
    b" ",
    b"-o",
)


class StrictOutput(io.TextIOWrapper):
    """A terminal that refuses what is not UTF-8, as most are."""

    def __init__(self) -> None:
        self.bytes = io.BytesIO()
        super().__init__(self.bytes, encoding="utf-8", errors="strict", write_through=True)


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run ``headstart …`` on a strict terminal; return exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(run, "Network", lambda _options: FakeNetwork())

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        streams = StrictOutput(), StrictOutput()
        with monkeypatch.context() as context:
            context.setattr(sys, "stdout", streams[0])
            context.setattr(sys, "stderr", streams[1])
            code = exit_code(context, *arguments)
        return code, *(stream.bytes.getvalue().decode() for stream in streams)

    return call


def fit_for_a_terminal(text: str) -> bool:
    """Whether a text holds nothing that moves the cursor, changes colours or turns the direction of writing."""
    return all(char.isprintable() or char == "\n" for char in text)


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes")
def test_names_of_any_bytes_from_folder_to_screen(cli: Cli, tmp_path: Path) -> None:
    for number, name in enumerate(NAMES):
        folder = Path(os.fsdecode(os.fsencode(tmp_path / "data") + b"/" + name))
        picture(tmp_path / "picture.png", number).rename(tmp_path / "picture")
        for end in (b".png", b".bad.png"):
            path = folder / os.fsdecode(name[: 255 - len(end)] + end)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes((tmp_path / "picture").read_bytes() if end == b".png" else b"no picture")
    output = os.fsdecode(b"o\xff\n.h5")
    code, printed, errors = cli("extract-features", "data", "-o", output, "--max-failures", "1")
    assert code == 0, errors
    assert fit_for_a_terminal(printed + errors)
    with open_cache(output) as cache:
        kept = {class_name(os.fsdecode(name)) for name in NAMES}  # one form of Unicode, no spaces at the ends
        assert sorted(cache.class_names) == sorted(kept)
        assert {os.fsencode(path) for path in cache.paths} == {n + b"/" + n[:251] + b".png" for n in NAMES}
        assert all((tmp_path / "data" / path).is_file() for path in cache.paths)
        assert len(cache.failures) == len(NAMES)
    code, printed, _ = cli("extract-features", "data", "-o", output, "--max-failures", "1")
    assert (code, "0 images computed" in printed) == (0, True)
    code, printed, errors = cli("inspect", output)
    assert (code, errors) == (0, "")
    assert fit_for_a_terminal(printed)
    assert "new\\nline" in printed
    code, printed, _ = cli("inspect", output, "--json")
    facts = json.loads(printed)
    assert "new\nline" in facts["classes"]
    assert "\\xff\\xfe" in facts["classes"]
    assert "\\ud" not in printed.replace("\\\\ud", "")  # no half of a surrogate pair
    for arguments in (("--quality",), ("--quality", "--json")):
        code, printed, errors = cli("inspect", output, *arguments)
        assert (code, errors) == (0, "")
        assert fit_for_a_terminal(printed)


def test_an_error_about_an_odd_name_is_printed_on_any_terminal(cli: Cli) -> None:
    code, _, errors = cli("inspect", os.fsdecode(b"\xff\x1b[31m.h5"))
    assert code == 1
    assert "There is no cache at \\xff\\x1b[31m.h5" in errors.replace("\n", " ")


class OneForwardPass(FakeBackbone):
    """Features of nothing, for tests in which only their number counts."""

    def forward(self, images: np.ndarray) -> FeatureBatch:
        return FeatureBatch(
            np.ones((len(images), 1, 1, 2), np.float32), np.ones((len(images), 1472), np.float32), VGG16.column_layers
        )


@pytest.mark.faults  # it takes a while to make as many folders
def test_ten_thousand_classes(cli: Cli, tmp_path: Path) -> None:
    pixels = io.BytesIO()
    Image.new("RGB", (1, 1)).save(pixels, "BMP")
    for number in range(10_000):
        (tmp_path / "data" / f"{number:05d}").mkdir(parents=True)
        changed = bytearray(pixels.getvalue())
        changed[-4:-1] = number.to_bytes(3, "big")
        (tmp_path / "data" / f"{number:05d}" / "1.bmp").write_bytes(changed)
    network = FakeNetwork()
    network.made = OneForwardPass(batch_size=500)
    run.extract_features("data", "many.h5", network=network, shard_images=5000)
    with open_cache("many.h5") as cache:
        assert cache.n_images == len(cache.class_names) == 10_000
        assert cache.labels.tolist() == list(range(10_000))
    code, printed, _ = cli("inspect", "many.h5")
    assert code == 0
    assert len(printed.splitlines()) < 100
    assert "… and 9,961 more (--json lists all)" in printed
    assert "all 10,000" in printed
    code, printed, _ = cli("inspect", "many.h5", "--json")
    assert len(json.loads(printed)["classes"]) == 10_000


def test_one_class_only(cli: Cli, tmp_path: Path) -> None:
    class_folders(tmp_path / "data", n_per_class=3, classes=("ant",))
    code, printed, _ = cli("extract-features", "data")
    assert (code, "1 class," in printed) == (0, True)
    facts = json.loads(cli("inspect", "features/data.h5", "--json")[1])
    assert facts["classes"] == {"ant": {"": 3}}
    code, _, errors = cli("fit-head", "features/data.h5", "--type", "logistic")
    assert code == 1
    assert errors.startswith("Error: ")


def test_no_images(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "data" / "ant").mkdir(parents=True)
    code, printed, errors = cli("extract-features", "data")
    assert (code, printed) == (1, "")
    assert "contains no images" in errors
    assert not (tmp_path / "features").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="pipes, sockets and devices")
def test_pipes_sockets_and_devices_are_never_opened(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class_folders(tmp_path / "data", n_per_class=2)
    os.mkfifo(tmp_path / "data" / "ant" / "pipe.png")
    os.mkfifo(tmp_path / "data" / "ant" / "pipe")
    (tmp_path / "data" / "bee" / "endless.png").symlink_to("/dev/zero")
    (tmp_path / "data" / "bee" / "endless").symlink_to("/dev/zero")
    monkeypatch.chdir(tmp_path / "data" / "bee")  # the path of a socket has few characters
    opened: list[Any] = []
    real = os.open
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(
            os, "open", lambda path, *rest, **named: (opened.append(path), real(path, *rest, **named))[1]
        )
        assert cli("extract-features", "data")[0] == 0
    assert not [path for path in opened if Path(path).stem in ("pipe", "endless", "socket")]
    with open_cache("features/data.h5") as cache:
        assert cache.n_images == 4
        assert cache.failures == ()


@pytest.mark.skipif(sys.platform == "win32", reason="links")
def test_links_out_of_the_folder_and_back_into_it_go_through_the_network_once(cli: Cli, tmp_path: Path) -> None:
    class_folders(tmp_path / "data", n_per_class=2)
    picture(tmp_path / "elsewhere" / "1.png", 1)
    (tmp_path / "data" / "cat").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "ant" / "again.png").symlink_to(tmp_path / "data" / "bee" / "000.png")
    code, printed, _ = cli("extract-features", "data")
    assert code == 0
    assert "5 images computed" in printed
    with open_cache("features/data.h5") as cache:
        assert cache.paths == [
            "ant/000.png", "ant/001.png", "ant/again.png", "bee/000.png", "bee/001.png", "cat/1.png"
        ]  # fmt: skip


def test_an_image_that_grows_while_it_is_read_is_computed_by_the_next_run(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class_folders(tmp_path / "data", n_per_class=2)
    growing = tmp_path / "data" / "ant" / "000.png"
    real = os.fstat

    def grow(descriptor: int) -> os.stat_result:
        found = real(descriptor)
        if os.path.samestat(found, growing.stat()):
            with growing.open("ab") as file:
                file.write(b"more")
        return found

    with monkeypatch.context() as context:
        context.setattr("headstart.images.load.os.fstat", grow)
        cli("extract-features", "data", "--max-failures", "1")
    with open_cache("features/data.h5") as cache:
        assert [f.ref.path for f in cache.failures] == ["ant/000.png"]
        assert cache.failures[0].reason.startswith("changed")
    assert "1 image computed" in cli("extract-features", "data")[1]
    with open_cache("features/data.h5") as cache:
        assert (cache.n_images, cache.failures) == (4, ())


def test_a_manifest_that_climbs_out_is_refused_before_anything_is_written(cli: Cli, tmp_path: Path) -> None:
    class_folders(tmp_path / "data", n_per_class=1)
    picture(tmp_path / "secret.png", 1)
    for path in ("../secret.png", "ant/../../secret.png", str(tmp_path / "secret.png")):
        (tmp_path / "data" / "labels.csv").write_text(f"\ufeffpath,label\n{path},ant\n", "utf-8")
        code, _, errors = cli("extract-features", "data/labels.csv")
        assert code == 1
        assert "leads out of" in errors
    assert not (tmp_path / "features").exists()


def test_a_class_without_an_image_is_listed(cli: Cli, tmp_path: Path) -> None:
    labelled_cache(tmp_path / "c.h5", [0, 1] * 3, failed=["wasps"])
    facts = json.loads(cli("inspect", tmp_path / "c.h5", "--json")[1])
    assert facts["classes"] == {"ants": {"": 3}, "bees": {"": 3}, "wasps": {"": 0}}
