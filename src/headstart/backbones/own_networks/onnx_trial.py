"""An ONNX model from elsewhere is first read and run by a process with limits, which reports what it found.

The runtimes are written in C++ and trust a model: a malicious one can crash or hang the process, or take all memory.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.own_networks.onnx_engines import SESSIONS, Session, installed
from headstart.backbones.own_networks.onnx_model import (
    as_maps,
    check_operators,
    find_input,
    kind_of,
    layout_of,
    parsed,
    prepared,
)
from headstart.errors import HeadstartError, MissingExtraError
from headstart.runtime import limit_threads
from headstart.storage.limited_process import end_of_process, isolated_command, limit_process

#: CPU seconds of a trial, three passes of a model on a few images, and memory: a constant, and a factor of the file's size.
CPU_SECONDS, MEMORY_BYTES, MEMORY_PER_FILE_BYTE = 300, 4 * 2**30, 6

THREADS = 2

#: Line before the report, whatever the runtimes print.
MARK = "headstart-report "


def try_model(path: Path, sha256: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the complete description of a model that another process has run: ``network``, ``output`` and ``size``.

    ``settings`` has the keys of a description; None is found out. Raises HeadstartError if the model is refused, with the
    reason, and MissingExtraError if no runtime is installed.
    """
    check_installed()
    question = {"path": str(path.absolute()), "sha256": sha256, "settings": dict(settings)}
    command = isolated_command("headstart.backbones.own_networks.onnx_trial", "answer", json.dumps(question))
    try:
        done = subprocess.run(command, capture_output=True, timeout=CPU_SECONDS, check=False)  # noqa: S603
    except subprocess.TimeoutExpired as error:
        raise HeadstartError(f"{path} was refused: a process that ran it did not come to an end.") from error
    for line in done.stdout.decode(errors="replace").splitlines():
        if line.startswith(MARK):
            report: dict[str, Any] = json.loads(line.removeprefix(MARK))
            if "error" in report:
                raise HeadstartError(f"{path} cannot be used as a backbone: {report['error']}")
            return report
    ended = end_of_process(done.returncode, CPU_SECONDS)
    raise HeadstartError(f"{path} was refused: a process that ran it {ended}.")


def check_installed() -> None:
    """Raise MissingExtraError unless ``onnx`` and a runtime are installed."""
    if not find_spec("onnx") or not installed():
        raise MissingExtraError(
            "A network in ONNX needs a runtime: pip install 'headstart[onnx]' (or [onnx,openvino])."
        )


def answer() -> None:
    """Print the report on the model that the first argument asks about; run in a process of its own."""
    question = json.loads(sys.argv[2])
    path = Path(question["path"])
    limit_process(MEMORY_BYTES + MEMORY_PER_FILE_BYTE * path.stat().st_size, CPU_SECONDS)
    limit_threads(THREADS)
    report = report_on(path, question["sha256"], question["settings"])
    sys.stdout.write(f"\n{MARK}{json.dumps(report)}\n")
    sys.stdout.flush()
    os._exit(0)  # a runtime that has read a damaged model may fail to end


def report_on(path: Path, sha256: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the complete description of a model, or ``error`` with the reason why it is refused."""
    try:
        return examine(path.read_bytes(), sha256, settings)
    except HeadstartError as error:
        return {"error": str(error)}
    except Exception as error:  # protobuf and the runtimes raise many kinds
        text = " ".join(str(error).split())
        return {"error": f"it cannot be read or run ({type(error).__name__}: {text[:400]})."}


def examine(data: bytes, sha256: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the complete description of a model; raise HeadstartError, with a sentence, if it cannot be a backbone."""
    if hashlib.sha256(data).hexdigest() != sha256:
        raise HeadstartError("it was changed meanwhile.")
    model = parsed(data)
    check_operators(model)
    given = find_input(model, settings)
    output = settings["output"] or model.graph.output[0].name
    n_images = given.n_images or 1
    session = SESSIONS[installed()[0]](prepared(model, given, output, n_images), given.name, output)
    values = run_trial(session, given.shape(n_images), given.dtype)
    kind = settings["output_kind"] or kind_of(values.shape)
    map_layout = settings["map_layout"] or layout_of(values.shape, given.layout)
    shape = as_maps(values, kind, map_layout).shape[1:]
    if shape[0] != shape[1]:
        raise HeadstartError(f"its map is {shape[0]} × {shape[1]}; of a square image a square one is expected.")
    network = {
        "input": given.name,
        "layout": given.layout,
        "channels": settings["channels"],
        "scale": float(settings["scale"]),
        "mean": [float(value) for value in settings["mean"]],
        "std": [float(value) for value in settings["std"]],
        "output_kind": kind,
        "map_layout": map_layout,
        "map_shape": shape,
    }
    return {"network": network, "output": output, "size": given.size_px}


def run_trial(session: Session, shape: Sequence[int], dtype: str) -> NDArray[np.float32]:
    """Return the output for images of noise; raise HeadstartError if it is not that of a frozen network."""
    noise = np.random.default_rng(0).random(shape, dtype=np.float32)
    images = (noise * 255).astype(dtype) if dtype == "uint8" else noise.astype(dtype)
    first, again = session.run(images), session.run(images)
    if not np.isfinite(first).all():
        raise HeadstartError("its output is not finite for an image of noise.")
    if not np.array_equal(first, again):
        raise HeadstartError("it gives other features for the same image each time: it is not in inference mode.")
    return first
