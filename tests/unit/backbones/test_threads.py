"""OpenVINO and the threads of a process: how many it uses, whether they are bound to cores, and signals."""

from __future__ import annotations

import signal
import threading
from typing import Any

import numpy as np
import pytest

from headstart.backbones.openvino import compile_model
from headstart.runtime import THREAD_VARIABLES

openvino = pytest.importorskip("openvino")


def compiled() -> Any:
    """Return the smallest network."""
    op = openvino.opset13
    images = op.parameter([1, 2], np.float32, name="images")
    return compile_model(openvino.Model([op.result(op.relu(images))], [images], "smallest"), "float32")


@pytest.mark.parametrize("limit", [None, 1])
def test_no_thread_is_bound_to_a_core(monkeypatch: pytest.MonkeyPatch, limit: int | None) -> None:
    for name in THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False) if limit is None else monkeypatch.setenv(name, str(limit))
    assert compiled().get_property("ENABLE_CPU_PINNING") is False
    assert limit is None or compiled().get_property("INFERENCE_NUM_THREADS") == limit


@pytest.mark.slow
@pytest.mark.alone
def test_a_signal_is_handled_after_a_network_was_deleted_in_another_thread() -> None:
    networks, received = [compiled()], []
    thread = threading.Thread(target=networks.clear)
    thread.start()
    thread.join()
    before = signal.signal(signal.SIGTERM, lambda number, _frame: received.append(number))
    signal.raise_signal(signal.SIGTERM)  # would end the process if its signal stack were gone
    signal.signal(signal.SIGTERM, before)
    assert received == [signal.SIGTERM]
