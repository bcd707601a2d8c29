"""What there is: processor, devices, memory, disk, software. Read from the system; nothing is measured."""

from __future__ import annotations

import importlib
import platform
import re
import shutil
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from headstart.backbones.device import BFLOAT16_FLAGS, Device, count_gpus, cpu, cpu_flags, gpu
from headstart.backbones.registry import installed_engines
from headstart.errors import HeadstartError
from headstart.runtime import free_bytes, usable_cores

#: Packages whose versions decide about results or speed.
PACKAGES = (
    "headstart", "tensorflow", "keras", "numpy", "pillow", "h5py", "hdf5plugin", "scikit-learn", "skops", "onnx", "openvino",
    "ncnn",
)  # fmt: skip

#: Flags of a CPU that say how fast it multiplies.
SPEED_FLAGS = (*BFLOAT16_FLAGS, "avx512_vnni", "amx_int8", "avx_vnni", "avx512f", "avx2")

#: Modules without which nothing can be extracted, and what each is for.
NEEDED = {
    "headstart.images.load": "images are decoded by Pillow",
    "headstart.cache.reader": "caches are read and written by h5py and hdf5plugin",
    "tensorflow": "the network runs on TensorFlow",
}


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is.

    Attributes
    ----------
    processor, system : str
        Names for a person.
    flags : tuple of str
        Those of :data:`SPEED_FLAGS` that the processor has.
    cores : int
        That this process may use.
    free_memory_bytes, free_disk_bytes : int
        Memory that it may still take, and disk that is free in ``folder``.
    folder : Path
        Where features go by default, or the folder above it.
    devices : tuple of Device
        The CPU, then every GPU that TensorFlow sees; empty where TensorFlow cannot be imported.
    engines : tuple of str
        Those of the network that are installed, by their module (backbones/registry.py).
    hidden_gpu : bool
        Whether the system has an Nvidia GPU and TensorFlow sees none.
    versions : dict of str to str
        Python and :data:`PACKAGES`, those that are installed.
    broken : tuple of str
        What cannot be imported, why that is needed, and what to do; empty in a sound installation.
    """

    processor: str
    system: str
    flags: tuple[str, ...]
    cores: int
    free_memory_bytes: int
    free_disk_bytes: int
    folder: Path
    devices: tuple[Device, ...]
    engines: tuple[str, ...]
    hidden_gpu: bool
    versions: dict[str, str]
    broken: tuple[str, ...]

    @property
    def device(self) -> Device:
        """What a run would use: the first GPU, or the CPU where there is none."""
        return self.devices[min(1, len(self.devices) - 1)]

    @property
    def precisions(self) -> dict[str, tuple[str, ...]]:
        """Device → types it computes in; the reduced one only where it is native."""
        return {d.name: tuple(filter(None, ("float32", d.reduced_precision))) for d in self.devices}


def look_at_machine(folder: Path = Path("features")) -> Machine:
    """Return what there is. May import TensorFlow, which takes seconds."""
    broken = tuple(filter(None, (broken_import(name, purpose) for name, purpose in NEEDED.items())))
    n_gpus = 0 if broken else count_gpus()
    existing = folder if folder.is_dir() else Path()
    flags = cpu_flags()
    return Machine(
        processor=processor(),
        system=platform.platform(),
        flags=tuple(flag for flag in SPEED_FLAGS if flag in flags),
        cores=usable_cores(),
        free_memory_bytes=free_bytes(),
        free_disk_bytes=shutil.disk_usage(existing).free,
        folder=existing.resolve(),
        devices=() if broken else (cpu(), *map(gpu, range(n_gpus))),
        engines=installed_engines(),
        hidden_gpu=not n_gpus and Path("/proc/driver/nvidia/gpus").is_dir(),
        versions=installed_versions(),
        broken=broken,
    )


def broken_import(name: str, purpose: str) -> str:
    """Return what to say where a module cannot be imported; nothing where it can."""
    try:
        if name == "tensorflow":
            from headstart.runtime import import_tensorflow

            import_tensorflow()
        else:
            importlib.import_module(name)
    except HeadstartError as error:  # says itself what to do
        return str(error)
    except Exception as error:  # a broken wheel raises whatever its loader finds
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return f"{purpose}, which cannot be imported ({reason}). Install anew: pip install --force-reinstall headstart"
    return ""


def installed_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the name of the processor."""
    try:
        found = re.search(r"^model name\s*:\s*(.*)$", cpuinfo.read_text(), flags=re.MULTILINE)
    except OSError:
        found = None
    return found.group(1).strip() if found else platform.processor() or platform.machine()
