"""The decoder on damaged files: every one is decoded or refused, soon, with little memory.

python benchmarks/fuzz_decoder.py FOLDER [--files 20000] [--seed 0] [--only NUMBER]

The files of the folder, one of every format that Pillow writes, and TIFFs of more than 8 bits are damaged
(tests/mutations.py) and decoded in child processes. A finding is: a child that dies, an exception that is no refusal, a
refusal that hides an error of the package's own code, pixels that are not those of the first time, too much time, too much
memory. The files of findings are kept.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import os
import re
import resource
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from headstart.errors import HeadstartError, ImageError
from headstart.images.decode import DecodedImage, decode
from machine import machine, write_result
from mutations import mutated
from pictures import deep_tiffs, encoded_pictures

MAX_SECONDS = 10.0
MAX_MEMORY_BYTES = 2**30

#: A child may ask for more than is allowed, so that it is seen, but not for so much that the machine suffers.
ADDRESS_SPACE_BYTES = 6 * 2**30

#: Files that were decoded sooner are decoded again, to see whether the pixels are the same.
REPEATED_SECONDS = 0.2

#: Reasons of refusal that are printed.
LISTED_REASONS = 15


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a file: ``decoded``, ``refused``, or the kind of the finding."""

    number: int
    kind: str
    reason: str = ""
    seconds: float = 0.0
    peak_bytes: int = 0
    repeated: bool = False


def read_corpus(folder: Path) -> dict[str, bytes]:
    """Name → content of the files to damage."""
    files = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    return files | encoded_pictures() | deep_tiffs()


def child(connection: Connection, folder: Path, seed: int) -> None:
    """Decode the files whose numbers come in."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
    warnings.simplefilter("error")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libtiff writes thousands of lines there
    corpus = read_corpus(folder)
    connection.send("ready")
    while (number := connection.recv()) is not None:
        name, data = mutated(corpus, seed, number)
        forget_peak()
        start = time.perf_counter()
        kind, reason = attempt(data, name)
        connection.send(Outcome(number, kind, reason, time.perf_counter() - start, peak_bytes()))


def attempt(data: bytes, name: str) -> tuple[str, str]:
    """Decode a file; return what became of it and why."""
    start = time.perf_counter()
    try:
        image = decode(data, name=name)
        oddity = oddity_of(image)
        if (
            not oddity
            and time.perf_counter() - start < REPEATED_SECONDS
            and digest(image) != digest(decode(data, name=name))
        ):
            oddity = "other pixels the second time"
    except ImageError as error:
        return ("own error", "".join(traceback.format_exception(error))) if is_own(error) else ("refused", str(error))
    except BaseException as error:
        return "exception", "".join(traceback.format_exception(error))
    return ("wrong pixels", oddity) if oddity else ("decoded", image.format)


def oddity_of(image: DecodedImage) -> str:
    """Return what is wrong with a decoded image; nothing if all is well."""
    pixels = image.pixels
    if pixels.dtype != "uint8" or pixels.shape != (image.height_px, image.width_px, 3) or not pixels.size:
        return f"{pixels.dtype} of shape {pixels.shape}, said to be {image.width_px} × {image.height_px}"
    return ""


def digest(image: DecodedImage) -> str:
    """Digest of everything that is said of an image."""
    return hashlib.sha256(repr((image.notes, image.format)).encode() + image.pixels.tobytes()).hexdigest()


def is_own(error: ImageError) -> bool:
    """Whether the refusal hides an exception that the package's own code raised, or memory that was not to be had."""
    cause = error.__cause__
    if cause is None or isinstance(cause, HeadstartError):
        return False
    frames = traceback.extract_tb(cause.__traceback__)
    return isinstance(cause, MemoryError) or (bool(frames) and "headstart" in Path(frames[-1].filename).parts)


def forget_peak() -> None:
    """Let the peak of the memory begin anew (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """Most memory that this process held since."""
    with contextlib.suppress(OSError):
        if found := re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text()):
            return int(found.group(1)) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Decoder:
    """Decodes numbered files in a child process, and starts another one when it dies."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed = folder, seed
        self.start()

    def start(self) -> None:
        """Start a child, and wait until it has read the corpus."""
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=child, args=(other, self.folder, self.seed), daemon=True)
        self.process.start()
        other.close()
        self.connection.recv()

    def outcome(self, number: int, *, again: bool = False) -> Outcome:
        """Decode one file; once more if it was slow, since the machine may have had something else to do."""
        self.connection.send(number)
        if not self.connection.poll(MAX_SECONDS):
            self.process.kill()
            self.restart()
            if not again:
                return replace(self.outcome(number, again=True), repeated=True)
            return Outcome(number, "slow", f"twice no answer after {MAX_SECONDS:.0f} s", MAX_SECONDS)
        try:
            found: Outcome = self.connection.recv()
        except EOFError:
            return Outcome(number, "crash", f"the process ended with {self.restart()}")
        if found.peak_bytes >= MAX_MEMORY_BYTES:
            return Outcome(number, "memory", f"{found.kind}: {found.reason}", found.seconds, found.peak_bytes)
        return found

    def restart(self) -> int | None:
        """Start another child; return the exit code of the old one."""
        self.process.join()
        code = self.process.exitcode
        self.start()
        return code

    def end(self) -> None:
        """Let the child end."""
        self.connection.send(None)
        self.process.join()


def run(folder: Path, seed: int, numbers: range, workers: int) -> list[Outcome]:
    """Return what became of the files with these numbers."""
    outcomes: list[Outcome] = []
    lock = threading.Lock()

    def work(part: range) -> None:
        decoder = Decoder(folder, seed)
        for number in part:
            outcome = decoder.outcome(number)
            with lock:
                outcomes.append(outcome)
                if len(outcomes) % 2000 == 0:
                    print(f"{len(outcomes):,} files", flush=True)
        decoder.end()

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, (numbers[start::workers] for start in range(workers))))
    return sorted(outcomes, key=lambda outcome: outcome.number)


def keep(findings: list[Outcome], folder: Path, seed: int, kept: Path) -> None:
    """Write the files of the findings, and what was found, to a folder."""
    if not findings:
        return
    corpus = read_corpus(folder)
    kept.mkdir(parents=True, exist_ok=True)
    for finding in findings:
        name, data = mutated(corpus, seed, finding.number)
        (kept / f"{seed}-{finding.number}-{Path(name).name}").write_bytes(data)
    (kept / f"findings-{seed}.json").write_text(json.dumps([asdict(finding) for finding in findings], indent=1))
    print(f"The files are in {kept}.")


def counted(outcomes: list[Outcome]) -> dict[str, int]:
    """Return the most frequent reasons of refusal, without numbers and without what stands in brackets."""
    reasons = (re.sub(r"\d[\d,.]*", "N", o.reason.split(" (")[0]) for o in outcomes if o.kind == "refused")
    return dict(Counter(reasons).most_common(LISTED_REASONS))


def main() -> None:
    """Decode damaged files, write ``results/fuzz_decoder.json``, and exit with 1 where something was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", type=int, help="decode one file, by its number, and write no result")
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "headstart-fuzz")
    options = parser.parse_args()
    numbers = range(options.files) if options.only is None else range(options.only, options.only + 1)
    start = time.perf_counter()
    outcomes = run(options.folder, options.seed, numbers, options.workers if options.only is None else 1)
    seconds = time.perf_counter() - start
    findings = [outcome for outcome in outcomes if outcome.kind not in {"decoded", "refused"}]
    slowest = max(outcomes, key=lambda outcome: outcome.seconds)
    result: dict[str, Any] = {
        "files": len(outcomes),
        "seed": options.seed,
        "corpus_files": len(read_corpus(options.folder)),
        "decoded": sum(outcome.kind == "decoded" for outcome in outcomes),
        "refused": sum(outcome.kind == "refused" for outcome in outcomes),
        "decoded_by_format": dict(Counter(o.reason for o in outcomes if o.kind == "decoded").most_common()),
        "refused_by_reason": counted(outcomes),
        "slowest_file_seconds": round(slowest.seconds, 3),
        "slowest_file": slowest.number,
        "peak_memory_mib": round(max(outcome.peak_bytes for outcome in outcomes) / 2**20),
        "limits": {"seconds": MAX_SECONDS, "memory_mib": MAX_MEMORY_BYTES // 2**20},
        "repeated_because_slow": [outcome.number for outcome in outcomes if outcome.repeated],
        "findings": dict(Counter(outcome.kind for outcome in findings)),
        "seconds": round(seconds),
    }
    for finding in findings[:20]:
        memory = f"{finding.peak_bytes / 2**20:.0f} MiB"
        print(f"{finding.number}: {finding.kind}, {finding.seconds:.2f} s, {memory}\n{finding.reason}")
    if options.only is None:
        write_result("fuzz_decoder", result)
    else:
        print(json.dumps([asdict(outcome) for outcome in outcomes] + [machine()["versions"]], indent=1))
    keep(findings, options.folder, options.seed, options.keep)
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()
