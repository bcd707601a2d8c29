"""The examination of a machine: hardware, weights, rates, problems and advice."""

from __future__ import annotations

import sys
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from headstart.backbones.weights import DOWNLOAD_TIMEOUT_SECONDS, Weights, checked, local_sources
from headstart.doctor.advice import advise
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
from headstart.runtime import import_keras


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
    return (f"No ImageNet weights on this machine, and the host of Keras' download does not answer. Remedies:\n{ways}",)
