"""Which stage bounded a run, and what would make it faster, in a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headstart.backbones.precision import cpu, cpu_flags
from headstart.backbones.quantize import adds_up_int8
from headstart.backbones.registry import ENGINE_NAMES, fastest_engine, installed_engines, type_to_prove
from headstart.runtime import usable_cores

if TYPE_CHECKING:
    from headstart.extract.options import ExtractionSummary, ExtractOptions

#: A run over fewer images, or a shorter one, says nothing: it is start-up for the most part.
MIN_IMAGES, MIN_SECONDS = 128, 5.0

#: The stages in words.
NAMES = {"decode": "reading and decoding", "forward": "the network", "write": "compressing and writing"}


def bottleneck(summary: ExtractionSummary, options: ExtractOptions, n_cores: int | None = None) -> str:
    """Return which stage bounded a run, how busy each was, and what would help; empty where the run was too short.

    Parameters
    ----------
    summary : ExtractionSummary
        What the run did.
    options : ExtractOptions
        What it was asked to do.
    n_cores : int, optional
        Cores of this machine.
    """
    times = summary.times
    if summary.n_computed < MIN_IMAGES or times.seconds < MIN_SECONDS:
        return ""
    bound = times.bound()
    shares = {name: f"{times.share(getattr(times, name)):.0%}" for name in NAMES}
    others = ", ".join(f"{NAMES[name]} {shares[name]}" for name in NAMES if name != bound)
    helps = {
        "decode": lambda: faster_decoding(options, n_cores or usable_cores()),
        "forward": lambda: faster_network(summary, options),
        "write": lambda: faster_writing(options),
    }
    return f"Bounded by {NAMES[bound]}, at work {shares[bound]} of the time ({others}). {helps[bound]()}"


def seconds_with_decoding(forward: float, decode: float, *, on_cpu: bool) -> float:
    """Return the seconds an image takes: a CPU's cores are shared by both steps; a GPU computes while the CPU decodes."""
    return forward + decode if on_cpu else max(forward, decode)


def faster_decoding(options: ExtractOptions, n_cores: int) -> str:
    """Return what makes reading and decoding faster."""
    if options.decode_threads < n_cores:
        return f"`decode_threads={n_cores}` would help: there are {n_cores} cores."
    draft = "" if options.resize == "jpeg-draft" else "; for large JPEGs `resize='jpeg-draft'`, in a cache of its own"
    return f"More cores would help; where the files come over a network, more `decode_threads` than cores{draft}."


def faster_network(summary: ExtractionSummary, options: ExtractOptions) -> str:
    """Return what makes the network faster."""
    if summary.device.startswith("gpu"):
        return "A faster GPU would help; if its memory is not full, a larger `batch_size`."
    ways = ["A GPU (`device='gpu:0'`) would help"]
    engine = fastest_engine(summary.recipe.precision) if summary.recipe else "tensorflow"
    if engine not in installed_engines():
        ways.append(f"so may {ENGINE_NAMES[engine]}, with the same features: pip install 'headstart[{engine}]'")
    if options.precision == "float32" and type_to_prove(cpu(), installed_engines()):
        ways.append("so may `precision='auto'`: it takes a faster type where that gives the same features")
    if options.precision == "auto" and adds_up_int8(cpu_flags()):
        ways.append(
            "or `precision='int8'`, whose features are near these, not equal, in a cache of its own: headstart doctor "
            "says what it would bring, and fit-head with both caches which predicts better"
        )
    return "; ".join(ways) + "."


def faster_writing(options: ExtractOptions) -> str:
    """Return what makes compression and writing faster."""
    if options.compression == "gzip":
        return "`compression='zstd'` would help."
    if options.compression == "zstd":
        return "A faster disk (`output`) would help, or, where the processor is what is busy, `compression='none'`."
    return "A faster disk (`output`) would help."
