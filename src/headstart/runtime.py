"""The one way to import Keras: with TensorFlow as its engine, and without pages of start-up messages."""

from __future__ import annotations

import importlib
import os
from typing import Any

from headstart.errors import HeadstartError


def import_keras() -> Any:
    """Return the ``keras`` module, running on TensorFlow.

    Side effects: sets ``TF_CPP_MIN_LOG_LEVEL`` and ``KERAS_BACKEND`` where the user has not, which takes the place of the
    backend in ``keras.json``; images are channels last, whatever that file says. The import takes seconds, so it is done
    where a network is needed and nowhere else.

    Raises
    ------
    HeadstartError
        If Keras was set to run on another engine: the compiled forward function is a ``tf.function``.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    check_backend(os.environ.setdefault("KERAS_BACKEND", "tensorflow"))  # that of another package may not be installed
    keras = importlib.import_module("keras")
    check_backend(keras.backend.backend())  # Keras may have been imported before
    keras.config.set_image_data_format("channels_last")
    return keras


def check_backend(backend: str) -> None:
    """Raise HeadstartError unless Keras runs on TensorFlow."""
    if backend != "tensorflow":
        raise HeadstartError(
            f"headstart runs Keras on TensorFlow. Received: KERAS_BACKEND={backend}. "
            "Set KERAS_BACKEND=tensorflow and try again."
        )


def import_tensorflow() -> Any:
    """Return the ``tensorflow`` module, imported with the same settings as :func:`import_keras`."""
    import_keras()
    return importlib.import_module("tensorflow")


#: What TensorFlow and OpenMP read when they are imported.
THREAD_VARIABLES = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")


def limit_threads(n_threads: int) -> None:
    """Let a network use this many threads in this process. Too late for TensorFlow once it has been imported."""
    for name in THREAD_VARIABLES:
        os.environ[name] = str(n_threads)


def thread_limit() -> int | None:
    """Return how many threads a network may use in this process; None for all cores."""
    limit = os.environ.get(THREAD_VARIABLES[0], "")
    return int(limit) if limit.isdigit() and int(limit) else None


def usable_cores() -> int:
    """Return how many cores this process may use, which may be fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_threads() -> int:
    """Return how many threads a network is to use in this process: those it is limited to, or one for each usable core."""
    return thread_limit() or usable_cores()
