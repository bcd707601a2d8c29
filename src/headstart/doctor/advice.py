"""Facts and rates → what would bound a run on this machine, and which option would help; in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from headstart.backbones.registry import ENGINE_NAMES, fastest_engine, type_to_prove
from headstart.runtime import size_text

if TYPE_CHECKING:
    from headstart.doctor.machine import Machine, Rates

#: Less free memory than this, bytes, and the network alone may not fit: it takes 1.5 GiB with batches of 32.
LITTLE_MEMORY_BYTES = 2 * 2**30

#: Less free disk than this, bytes: features of 70,000 images.
LITTLE_DISK_BYTES = 2**30

#: ``jpeg-draft`` is worth one where decoding takes this share of the network's time.
WORTH_DRAFT = 0.25

#: A reduced type is worth a sentence from this factor on.
WORTH = 1.1


def advise(machine: Machine, rates: Rates | None) -> list[str]:
    """Return what is to be said, the weightiest first; without rates, what follows from the facts alone."""
    measured = [adviser(machine, rates) for adviser in MEASURED] if rates is not None else []
    return [sentence for sentence in (*measured, *(adviser(machine) for adviser in KNOWN)) if sentence]


def _proven(rates: Rates) -> float:
    """Return images/s of the fastest type whose features are those of float32."""
    return max(rate for name, rate in rates.forward.items() if name != "int8")


def _on_gpu(machine: Machine) -> bool:
    """Return whether a run would use a GPU."""
    return len(machine.devices) > 1


def _bound(machine: Machine, rates: Rates) -> str:
    """Return what would bound a run, per size of its photographs."""
    best = _proven(rates)
    decoded = {size: rate * machine.cores for size, rate in rates.decode.items()}
    slow = [size for size, rate in decoded.items() if rate < best]
    total = {s: min(best, r) if _on_gpu(machine) else 1 / (1 / best + 1 / r) for s, r in decoded.items()}
    expected = ", ".join(f"{rate:.1f} at {size:g} megapixels" for size, rate in total.items())
    cores = "1 core" if machine.cores == 1 else f"{machine.cores} cores"
    if not slow:
        what = f"The network bounds a run here, whatever the size of the photographs ({best:.1f} images/s)"
    elif len(slow) < len(decoded):
        what = (
            f"The network bounds a run here ({best:.1f} images/s), and decoding does from {min(slow):g} megapixels on"
        )
    else:
        what = f"Decoding bounds a run here: the network takes {best:.1f} images/s, more than {cores} can decode"
    return f"{what}. Expected on {cores}, images/s: {expected}."


def draft(machine: Machine, rates: Rates) -> str:
    """Return what to do where large photographs keep the network waiting, or take much of the cores that it needs."""
    size, rate = max(rates.draft.items())
    share = _proven(rates) / (rates.decode[size] * machine.cores)
    if share < WORTH_DRAFT:
        return ""
    return (
        f"JPEGs of {size:g} megapixels take {share:.1f} times what the network takes for them: --resize jpeg-draft decodes "
        f"them {rate / rates.decode[size]:.1f} times as fast, with other features than the default has."
    )


def _reduced_precision(machine: Machine, rates: Rates) -> str:
    """Return what the reduced type of the device is worth."""
    reduced = next((name for name in rates.forward if name not in {"float32", "int8"}), None)
    if reduced is None:
        return ""
    factor = rates.forward[reduced] / rates.forward["float32"]
    if type_to_prove(machine.device, machine.engines) is None:  # auto has taken float32 as the faster one
        if factor < WORTH:
            return ""
        return (
            f"{reduced} is {factor:.1f} times as fast as float32 here, which --precision auto takes on this processor: "
            f"--precision {reduced} is worth a try."
        )
    if factor < WORTH:
        return f"{reduced} is only {factor:.2f} times as fast as float32 here: --precision float32 loses nothing."
    return (
        f"{reduced} is {factor:.1f} times as fast as float32 here. --precision auto, the default, takes it where it proves "
        "equal on your own images."
    )


def int8(_machine: Machine, rates: Rates) -> str:
    """Return what int8 would bring, from how many images on, and how to see what it costs."""
    rate, other = rates.forward.get("int8", 0.0), _proven(rates)
    if rate < WORTH * other:
        return ""
    from headstart.backbones.quantize import images_to_pay

    n_images = images_to_pay(rates.int8_seconds, other, rate)
    return (
        f"int8 is {rate / other:.1f} times as fast again ({rate:.0f} images/s) and pays from about {n_images:,.0f} images "
        "on: --precision int8, in a cache of its own. Its features are near those of float32, not equal to them: fit-head "
        "CACHE INT8-CACHE shows which predicts better."
    )


def _missing_engine(machine: Machine) -> str:
    """Return which engine would make the type that ``auto`` takes faster, where it is missing."""
    if _on_gpu(machine) or not machine.devices:
        return ""
    cpu = machine.devices[0]
    precision = type_to_prove(cpu, ENGINE_NAMES) or "float32"
    engine = fastest_engine(precision)
    if engine in machine.engines:
        return ""
    also = ", and int8 with it" if engine == "openvino" else ""
    return (
        f"{ENGINE_NAMES[engine]}, which is not installed, computes {precision} faster on most processors{also}: pip install "
        f"'headstart[{engine}]', then look again."
    )


def _writing(_machine: Machine, rates: Rates) -> str:
    """Return what to do where the disk is slower than the network."""
    best = _proven(rates)
    if rates.write > best:
        return ""
    return f"Writing takes {rates.write:.0f} rows/s, fewer than the network ({best:.1f}/s): write to a local disk (-o)."


def _no_reduced_precision(machine: Machine) -> str:
    """Return what a processor without a native reduced type means."""
    if machine.devices and not _on_gpu(machine) and machine.devices[0].reduced_precision is None:
        return "This processor has no native bfloat16, so float32 is its fastest type that gives the same features."
    return ""


def _hidden_gpu(machine: Machine) -> str:
    """Return what to do where TensorFlow does not see a GPU."""
    if machine.hidden_gpu:
        return "There is an Nvidia GPU that TensorFlow does not see: pip install 'tensorflow[and-cuda]'."
    return ""


def memory(machine: Machine) -> str:
    """Return what to do where memory is short."""
    if machine.free_memory_bytes >= LITTLE_MEMORY_BYTES:
        return ""
    return f"Only {size_text(machine.free_memory_bytes)} of memory are free: a smaller --batch-size, as 8, needs less."


def disk(machine: Machine) -> str:
    """Return what to do where disk is short."""
    if machine.free_disk_bytes >= LITTLE_DISK_BYTES:
        return ""
    left = size_text(machine.free_disk_bytes)
    return (
        f"Only {left} of disk are free in {machine.folder}, about 14 KB an image are needed: write elsewhere with -o."
    )


#: Advice that needs rates, then advice that does not, in the order in which it is given.
MEASURED: tuple[Callable[[Machine, Rates], str], ...] = (_bound, draft, _reduced_precision, int8, _writing)
KNOWN: tuple[Callable[[Machine], str], ...] = (_missing_engine, _no_reduced_precision, _hidden_gpu, memory, disk)
