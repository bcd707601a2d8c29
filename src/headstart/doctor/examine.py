"""One look at everything that an extraction needs."""

from __future__ import annotations

import sys
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from headstart.backbones.weights import DOWNLOAD_TIMEOUT_SECONDS, checked, local_sources
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

if TYPE_CHECKING:
    from headstart.backbones.weights import Weights


@dataclass(frozen=True, slots=True)
class WeightsState:
    """Where ImageNet weights are, or how they would be got.

    Attributes
    ----------
    weights : Weights or None
        Read, every tensor compared with its published digest; None where there are none, or they are not sound.
    source : str
        Where they are, for a person; empty where they are nowhere on this machine.
    reachable : bool
        Whether a run could have them: they are here and sound, or the host of Keras' download answers.
    remedies : tuple of str
        What to do where a run could not, or would have to download them.
    """

    weights: Weights | None
    source: str
    reachable: bool
    remedies: tuple[str, ...]


def look_for_weights() -> WeightsState:
    """Return the state of the weights that a run would use: of the first source that has any, as ``load_weights`` does."""
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
    named = "--weights PATH with a Keras .h5 file that is on this machine"
    return WeightsState(None, "", download_answers(), (*reversed(others), named))


def download_answers() -> bool:
    """Return whether the host that Keras downloads weights from answers, within seconds; nothing is downloaded."""
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
