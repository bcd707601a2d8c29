"""What the machine around a command may lack: space for its output, a home folder, UTF-8, Keras on TensorFlow."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fakes import FakeBackbone
from headstart import predict, runtime
from headstart.backbones import ncnn
from headstart.backbones import vgg16 as weights
from headstart.backbones.vgg16 import NETWORK
from headstart.bundles.bundle import Bundle
from headstart.bundles.metadata import list_heads
from headstart.errors import HeadstartError, WeightsError
from headstart.predict import Predictor
from headstart.storage import objects
from headstart_cli.app import check_encoding

pytestmark = pytest.mark.slow

RUN = "from headstart_cli.app import run; import typer; app = typer.Typer(); app.command()(lambda: {}); run(app)"


def ended(action: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a command that does something in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", RUN.format(action)], stderr=subprocess.PIPE, text=True, check=False, **options
    )  # type: ignore[call-overload,no-any-return]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_for_which_there_is_no_space_is_an_error_in_a_sentence() -> None:
    with Path("/dev/full").open("w") as full:
        result = ended("print('x' * 100)", stdout=full)
    assert result.returncode == 1
    assert result.stderr.strip() == "Error: Writing failed: No space left on device"


@pytest.mark.skipif(os.name == "nt", reason="pipes")
def test_a_reader_that_has_enough_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    result = ended("print('x' * 100)", stdout=write)
    os.close(write)
    assert "Traceback" not in result.stderr
    assert "Exception" not in result.stderr
    assert result.returncode == 1


@pytest.mark.skipif(os.name == "nt", reason="the shell's way to close a stream")
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_lead_nowhere_and_into_no_file(closed: str, tmp_path: Path) -> None:
    action = f"(open('{tmp_path}/cache', 'w').write('kept'), __import__('os').write(1, b'lost'), print('x'))"
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh"]
    result = subprocess.run(
        [*shell, sys.executable, "-c", RUN.format(action)], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert (tmp_path / "cache").read_text() == "kept"


def test_the_network_for_which_there_is_no_space_is_an_error_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ncnn, "network_text", full)
    with (
        pytest.raises(HeadstartError, match=r"temporary folder: No space left on device\. The variable TMPDIR"),
        ncnn.network_files(FakeBackbone().recipe, None, NETWORK),  # type: ignore[arg-type]
    ):
        pass


def test_a_head_that_cannot_be_written_says_why_without_numbers(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HeadstartError, match=r"cannot be listed: Not a directory\."):
        list_heads(tmp_path / "file")


def test_an_error_of_the_system_is_a_sentence() -> None:
    result = ended(
        f"(_ for _ in ()).throw(OSError({errno.EACCES}, 'Permission denied', 'photos'))", stdout=subprocess.PIPE
    )
    assert (result.returncode, result.stderr.strip()) == (1, "Error: photos: Permission denied")


def test_names_of_files_must_be_utf8() -> None:
    check_encoding("utf-8")
    with pytest.raises(HeadstartError, match=r"encoded in ascii.*PYTHONUTF8=1"):
        check_encoding("ascii")


def test_a_user_without_a_home_has_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    for name in ("KERAS_HOME", "XDG_CACHE_HOME", objects.FOLDER_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    assert objects.home().name == "headstart"
    assert weights.keras_home() == objects._temporary_home() / ".keras"
    assert objects._temporary_home().stat().st_mode & 0o077 == 0


def test_a_backend_that_is_not_installed_is_named_before_keras_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    monkeypatch.setattr(runtime.importlib, "import_module", lambda name: pytest.fail(f"imported {name}"))
    with pytest.raises(HeadstartError, match="Received: KERAS_BACKEND=torch"):
        runtime.import_keras()


def test_a_weights_file_that_is_not_the_published_one_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weights.onnx").write_bytes(b"something else")
    monkeypatch.setattr(weights, "read_onnx_file", lambda path: pytest.fail(f"opened {path}"))
    with pytest.raises(WeightsError, match="was not opened"):
        weights.read_wheel_file(tmp_path / "weights.onnx")


@pytest.mark.parametrize("engine", ["ncnn", "openvino"])
def test_a_forked_process_builds_its_own_network_or_says_why_not(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "build_backbone", lambda *_arguments, **_options: FakeBackbone())
    monkeypatch.setattr(predict, "pick_engine", lambda *_arguments: engine)
    bundle = Bundle(head=None, spec=None, recipe=FakeBackbone().recipe, class_names=("a",))  # type: ignore[arg-type]
    predictor = Predictor(bundle)
    first = predictor.backbone
    assert predictor.backbone is first
    monkeypatch.setattr(os, "getpid", lambda: -1)
    if engine == "ncnn":
        assert predictor.backbone is not first
        assert predictor.backbone is predictor.backbone
    else:
        with pytest.raises(HeadstartError, match="OpenVINO does not run in a forked process"):
            predictor.backbone  # noqa: B018
