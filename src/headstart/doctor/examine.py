"""The examination of a machine: weights, rates and problems, what would limit a run, and which options would help."""

from __future__ import annotations

import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from headstart.backbones.convnet import DOWNLOAD_TIMEOUT_SECONDS, Weights
from headstart.backbones.registry import ENGINE_NAMES, fastest_engine, type_to_prove
from headstart.backbones.vgg16 import checked, local_sources
from headstart.doctor.machine import (
    LARGE_MEGAPIXELS,
    Machine,
    Rates,
    decode_rates,
    forward_rates,
    int8_rate,
    look_at_machine,
    write_rate,
)
from headstart.errors import HeadstartError, WeightsError
from headstart.extract.estimate import seconds_with_decoding
from headstart.runtime import import_keras, size_text
from headstart.texts import counted


@dataclass(frozen=True, slots=True)
class WeightsState:
    """The ImageNet weights on this machine."""

    #: Read, every tensor compared with its published digest; None if there are none, or they differ.
    weights: Weights | None
    source: str  # their place, for users; empty if there are none
    reachable: bool  # whether a run can have them: they are here and valid, or the host of Keras' download answers
    remedies: tuple[str, ...]  # what to do if a run cannot have them, or has to download them


def look_for_weights() -> WeightsState:
    """Return the state of the weights that a run would use: the first source that has any, as in ``load_weights``."""
    sources = local_sources()
    for source in sources:
        if source.read is None:
            continue
        name = f"{source.name}: {source.location}"
        try:
            return WeightsState(checked(source.read(), source=name), name, True, ())
        except WeightsError as error:
            return WeightsState(None, name, False, (str(error),))
    others = tuple(source.remedy for source in sources)
    named = "`weights=PATH` with a Keras .h5 file that is on this machine"
    return WeightsState(None, "", download_answers(), (*reversed(others), named))


def download_answers() -> bool:
    """Return whether the host of Keras' weights answers within seconds; nothing is downloaded."""
    import_keras()
    module = sys.modules.get("keras.src.applications.vgg16")
    address = str(getattr(module, "WEIGHTS_PATH_NO_TOP", ""))
    if not address.startswith("https://"):
        return False
    try:
        request = urllib.request.Request(address, method="HEAD")  # noqa: S310  (https, as checked above)
        with urllib.request.urlopen(request, timeout=DOWNLOAD_TIMEOUT_SECONDS) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class Examination:
    """The result of an examination."""

    machine: Machine
    weights: WeightsState | None  # None if the installation is broken
    rates: Rates | None  # None if nothing was measured
    problems: tuple[str, ...]  # why nothing can be extracted here, and what to do; empty if it can
    advice: tuple[str, ...]  # what would limit a run, and which options would help

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        machine, weights, rates = self.machine, self.weights, self.rates
        devices = [device.name for device in machine.devices]
        extra = {"folder": str(machine.folder), "precisions": machine.precisions, "devices": devices}
        return {
            "can_extract": not self.problems,
            "problems": list(self.problems),
            "advice": list(self.advice),
            "machine": asdict(machine) | extra,
            "weights": weights
            and {
                "source": weights.source,
                "checked": weights.weights is not None,
                "reachable": weights.reachable,
                "remedies": list(weights.remedies),
            },
            "rates": rates
            and {
                "decode_images_per_second_and_thread": {f"{size:g}": rate for size, rate in rates.decode.items()},
                "draft_images_per_second_and_thread": {f"{size:g}": rate for size, rate in rates.draft.items()},
                "forward_images_per_second": rates.forward,
                "write_rows_per_second": rates.write,
            },
        }


def examine_machine(*, quick: bool = False, on_step: Callable[[str], None] = lambda _text: None) -> Examination:
    """Return what this machine can do for an extraction.

    Takes about half a minute, most of it for TensorFlow to start and for the rates, which ``quick`` leaves out. Temporary
    files are written to the folder of features, and deleted. ``on_step`` is called with the name of each step.
    """
    on_step("Looking at processor, devices and software")
    machine = look_at_machine()
    if machine.broken:
        return Examination(machine, None, None, machine.broken, tuple(advise(machine, None)))
    on_step("Comparing the weights with their published digests")
    weights = look_for_weights()
    rates = None if quick else measure(machine, weights, on_step)
    return Examination(machine, weights, rates, problems(weights), tuple(advise(machine, rates)))


def measure(machine: Machine, state: WeightsState, on_step: Callable[[str], None]) -> Rates | None:
    """Return the rates; None without weights, since there is no network to measure."""
    if state.weights is None:
        return None
    on_step("Decoding photographs")
    decode, draft = decode_rates(), decode_rates(LARGE_MEGAPIXELS, preset="jpeg-draft")
    on_step("Compiling the network, and sending batches through it")
    device = machine.devices[-1] if len(machine.devices) == 1 else machine.devices[1]
    forward, recipe = forward_rates(state.weights, device)
    int8_seconds = 0.0
    if "openvino" in machine.engines and device.name == "cpu":
        with suppress(HeadstartError):  # not supported by this processor
            forward["int8"], int8_seconds = int8_rate(state.weights, recipe)
    on_step("Writing features")
    return Rates(decode, draft, forward, write_rate(recipe, machine.folder), int8_seconds)


def problems(weights: WeightsState) -> tuple[str, ...]:
    """Return why nothing can be extracted; empty if it can."""
    if weights.reachable:
        return ()
    if weights.source:
        return weights.remedies
    ways = "\n".join(f"  {number}. {remedy}" for number, remedy in enumerate(weights.remedies, start=1))
    return (
        "No ImageNet weights of VGG16 on this machine, and the host of Keras' download does not answer. headstart backbones "
        f"lists the other networks. Remedies:\n{ways}",
    )


#: Free memory, bytes, below which the network may not fit: it needs 1.5 GiB with batches of 32.
LITTLE_MEMORY_BYTES = 2 * 2**30

#: Free disk space, bytes, that is little: features of 70,000 images.
LITTLE_DISK_BYTES = 2**30

#: ``jpeg-draft`` is advised if decoding takes this fraction of the network's time.
WORTH_DRAFT = 0.25

#: Speed-up from which on a reduced type is advised.
WORTH = 1.1


def advise(machine: Machine, rates: Rates | None) -> list[str]:
    """Return the advice, the most important first; without rates, only what follows from the machine."""
    measured = [adviser(machine, rates) for adviser in MEASURED] if rates is not None else []
    return [sentence for sentence in (*measured, *_from_machine(machine)) if sentence]


def _proven(rates: Rates) -> float:
    """Return images/s of the fastest type with the features of float32."""
    return max(rate for name, rate in rates.forward.items() if name != "int8")


def _on_gpu(machine: Machine) -> bool:
    return len(machine.devices) > 1


def _bound(machine: Machine, rates: Rates) -> str:
    best = _proven(rates)
    decoded = {size: rate * machine.cores for size, rate in rates.decode.items()}
    slow = [size for size, rate in decoded.items() if rate < best]
    on_cpu = not _on_gpu(machine)
    total = {s: 1 / seconds_with_decoding(1 / best, 1 / rate, on_cpu=on_cpu) for s, rate in decoded.items()}
    expected = ", ".join(f"{rate:.1f} at {size:g} megapixels" for size, rate in total.items())
    cores = counted(machine.cores, "core")
    if not slow:
        limit = f"The network limits a run here, whatever the size of the images ({best:.1f} images/s)"
    elif len(slow) < len(decoded):
        limit = f"The network limits a run here ({best:.1f} images/s); from {min(slow):g} megapixels on, decoding does"
    else:
        limit = f"Decoding limits a run here: the network takes {best:.1f} images/s, more than {cores} can decode"
    return f"{limit}. Expected on {cores}, images/s: {expected}."


def _draft(machine: Machine, rates: Rates) -> str:
    size, rate = max(rates.draft.items())
    relative = _proven(rates) / (rates.decode[size] * machine.cores)
    if relative < WORTH_DRAFT:
        return ""
    return (
        f"Decoding JPEGs of {size:g} megapixels takes {relative:.1f} times as long as the network: `resize='jpeg-draft'` "
        f"decodes them {rate / rates.decode[size]:.1f} times as fast, but gives other features than the default."
    )


def _reduced_precision(machine: Machine, rates: Rates) -> str:
    reduced = next((name for name in rates.forward if name not in {"float32", "int8"}), None)
    if reduced is None:
        return ""
    factor = rates.forward[reduced] / rates.forward["float32"]
    if type_to_prove(machine.device, machine.engines) is None:  # auto prefers float32
        if factor < WORTH:
            return ""
        return (
            f"{reduced} is {factor:.1f} times as fast as float32 here, but `precision='auto'` uses float32 on this "
            f"processor: try `precision='{reduced}'`."
        )
    if factor < WORTH:
        return f"{reduced} is only {factor:.2f} times as fast as float32 here: `precision='float32'` loses nothing."
    return (
        f"{reduced} is {factor:.1f} times as fast as float32 here. `precision='auto'`, the default, uses it if it gives "
        "equal features for your own images."
    )


def _int8(_machine: Machine, rates: Rates) -> str:
    rate, other = rates.forward.get("int8", 0.0), _proven(rates)
    if rate < WORTH * other:
        return ""
    from headstart.backbones.precision import images_to_pay

    n_images = images_to_pay(rates.int8_seconds, other, rate)
    return (
        f"int8 is another {rate / other:.1f} times as fast ({rate:.0f} images/s) and pays from about {n_images:,.0f} images "
        "on: `precision='int8'`, in a cache of its own. Its features are near those of float32, not equal to them: fit-head "
        "CACHE INT8-CACHE shows which predicts better."
    )


def _writing(_machine: Machine, rates: Rates) -> str:
    best = _proven(rates)
    if rates.write > best:
        return ""
    return (
        f"The disk takes {rates.write:.0f} rows/s, the network {best:.1f}/s: write to a faster, local disk (`output`)."
    )


def _missing_engine(machine: Machine) -> str:
    """Return which missing engine would compute the type of ``auto`` faster."""
    if _on_gpu(machine) or not machine.devices:
        return ""
    cpu = machine.devices[0]
    precision = type_to_prove(cpu, ENGINE_NAMES) or "float32"
    engine = fastest_engine(precision)
    if engine in machine.engines:
        return ""
    also = " and int8" if engine == "openvino" else ""
    return (
        f"{ENGINE_NAMES[engine]}, which is not installed, computes {precision}{also} faster on most processors: pip install "
        f"'headstart[{engine}]', then run headstart doctor again."
    )


def _from_machine(machine: Machine) -> Iterator[str]:
    yield _missing_engine(machine)
    if machine.devices and not _on_gpu(machine) and machine.devices[0].reduced_precision is None:
        yield "This processor has no native bfloat16: float32 is its fastest type that gives the same features."
    if machine.hidden_gpu:
        yield "There is an Nvidia GPU that TensorFlow does not see: pip install 'tensorflow[and-cuda]'."
    if machine.free_memory_bytes < LITTLE_MEMORY_BYTES:
        free = size_text(machine.free_memory_bytes)
        yield f"Only {free} of memory are free: a smaller `batch_size`, e.g. 8, needs less."
    if machine.free_disk_bytes < LITTLE_DISK_BYTES:
        free = size_text(machine.free_disk_bytes)
        yield f"Only {free} of disk are free in {machine.folder}, about 14 KB an image are needed: change `output`."


#: Advice that needs rates, in order.
MEASURED: tuple[Callable[[Machine, Rates], str], ...] = (_bound, _draft, _reduced_precision, _int8, _writing)
