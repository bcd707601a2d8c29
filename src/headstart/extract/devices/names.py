"""The devices that an option names, and what a process sees that is to use one of them alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from headstart.backbone.device import count_gpus, pick_device
from headstart.runtime import THREAD_VARIABLES

if TYPE_CHECKING:
    from headstart.extract.options import ExtractOptions
    from headstart.schema import Recipe

#: What tells CUDA and ROCm which GPUs there are.
VISIBLE_VARIABLES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")


def devices_of(options: ExtractOptions, existing: Recipe | None) -> list[str]:
    """Return the devices that a run uses, by name; ``auto`` alone where it is for the network to pick one.

    ``auto`` is every GPU there is. An int8 network runs on the CPU alone, and TensorFlow is not asked about GPUs for it.

    Raises
    ------
    HeadstartError
        If the option names none, or a GPU that is not there.
    """
    names = options.device.split(",")
    if len(names) > 1:
        return [pick_device(name.strip()).name for name in names]
    precision = options.precision if existing is None else existing.precision
    if names != ["auto"] or precision == "int8":
        return names
    n_gpus = count_gpus()
    return [f"gpu:{number}" for number in range(n_gpus)] if n_gpus > 1 else names


def environment(name: str, n_threads: int, here: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment of a process that sees one device.

    Parameters
    ----------
    name : str
        ``cpu`` or ``gpu:N``, where N counts those that this process sees.
    n_threads : int
        Threads of its network.
    here : mapping
        The environment of this process.
    """
    found = dict(here)
    for variable in VISIBLE_VARIABLES:
        found[variable] = "-1" if name == "cpu" else number_of(name, here.get(variable, ""))
    found |= dict.fromkeys(THREAD_VARIABLES, str(n_threads))
    found["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    return found


def number_of(name: str, visible: str) -> str:
    """Return what a GPU is called by those who gave a list of visible ones, as ``3`` or ``GPU-…``; its number without one."""
    number = int(name.removeprefix("gpu:"))
    listed = [entry.strip() for entry in visible.split(",") if entry.strip()]
    return listed[number] if number < len(listed) else str(number)
