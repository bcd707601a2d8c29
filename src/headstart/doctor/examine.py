"""One look at everything that an extraction needs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from headstart.doctor.advice import advise
from headstart.doctor.machine import Machine, look_at_machine
from headstart.doctor.rates import LARGE_MEGAPIXELS, Rates, decode_rates, forward_rates, int8_rate, write_rate
from headstart.doctor.weights import WeightsState, look_for_weights
from headstart.errors import HeadstartError


@dataclass(frozen=True, slots=True)
class Examination:
    """What was found.

    Attributes
    ----------
    machine : Machine
        Processor, devices, memory, disk, software.
    weights : WeightsState or None
        None where the installation is broken, so that none can be read.
    rates : Rates or None
        None where nothing was measured.
    problems : tuple of str
        Why nothing could be extracted here, and what to do; empty where it could.
    advice : tuple of str
        What would bound a run, and which option would help.
    """

    machine: Machine
    weights: WeightsState | None
    rates: Rates | None
    problems: tuple[str, ...]
    advice: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        machine, weights, rates = self.machine, self.weights, self.rates
        facts = asdict(machine) | {"folder": str(machine.folder), "precisions": machine.precisions}
        return {
            "can_extract": not self.problems,
            "problems": list(self.problems),
            "advice": list(self.advice),
            "machine": facts | {"devices": [device.name for device in machine.devices]},
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

    Takes about half a minute, most of it for TensorFlow to start and for the rates. Temporary files are written where
    features would go, and deleted.

    Parameters
    ----------
    quick : bool
        Measure nothing.
    on_step : callable
        Told what is looked at now.
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
    """Return the rates; None without weights, since there is no network to measure then."""
    if state.weights is None:
        return None
    on_step("Decoding photographs")
    decode, draft = decode_rates(), decode_rates(LARGE_MEGAPIXELS, preset="jpeg-draft")
    on_step("Compiling the network, and sending batches through it")
    device = machine.devices[-1] if len(machine.devices) == 1 else machine.devices[1]
    forward, recipe = forward_rates(state.weights, device)
    int8_seconds = 0.0
    if "openvino" in machine.engines and device.name == "cpu":
        with suppress(HeadstartError):  # a processor that cannot
            forward["int8"], int8_seconds = int8_rate(state.weights, recipe)
    on_step("Writing features")
    return Rates(decode, draft, forward, write_rate(recipe, machine.folder), int8_seconds)


def problems(weights: WeightsState) -> tuple[str, ...]:
    """Return why nothing could be extracted; nothing where it could."""
    if weights.reachable:
        return ()
    if weights.source:
        return weights.remedies
    ways = "\n".join(f"  {number}. {remedy}" for number, remedy in enumerate(weights.remedies, start=1))
    return (f"No ImageNet weights on this machine, and the host of Keras' download does not answer. Remedies:\n{ways}",)
