"""Output of all commands: tables, progress, errors, and messages of native libraries."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import re
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.text import Text

from headstart.errors import DataError
from headstart.texts import json_value, printable

#: Set this in the environment to see everything.
SHOW_ALL = "HEADSTART_NATIVE_MESSAGES"

#: Lines of TensorFlow, absl and libtiff that are no errors: information, warnings, and a CUDA that is not there.
HARMLESS = re.compile(
    rb"[IW]\d{4} |WARNING: All log messages before absl|E\d{4} .*(failed call to cuInit|Unable to register cu)|\w+: Warning, "
)


@contextmanager
def quiet_native_messages() -> Iterator[None]:
    """Hide harmless messages of native code on standard error while the block runs, where that is possible."""
    try:
        standard_error = sys.stderr.fileno()
    except (AttributeError, OSError, io.UnsupportedOperation):
        yield
        return
    if os.environ.get(SHOW_ALL) or standard_error != 2:
        yield
        return
    screen = os.dup(2)
    python_stderr, sys.stderr = sys.stderr, os.fdopen(os.dup(screen), "w", buffering=1, errors="backslashreplace")
    reading, writing = os.pipe()
    os.dup2(writing, 2)
    os.close(writing)
    forwarder = threading.Thread(target=_forward, args=(reading, screen), daemon=True)
    forwarder.start()
    try:
        yield
    finally:
        sys.stderr.flush()
        python_stderr, sys.stderr = sys.stderr, python_stderr
        os.dup2(screen, 2)
        forwarder.join(timeout=1)
        python_stderr.close()


def _forward(reading: int, screen: int) -> None:
    """Copy every line but harmless ones from the pipe to the screen."""
    with os.fdopen(reading, "rb") as lines:
        for line in lines:
            if not HARMLESS.match(line):
                os.write(screen, line)


class SafeConsole(Console):
    """A console on which control characters in text have no effect; colours and bars are Rich's own controls."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print; the terminal, not Rich, wraps the lines of plain strings, so that paths can be copied."""
        soft_wrap = all(isinstance(one, str) for one in objects)
        super().print(*objects, **{"soft_wrap": soft_wrap, **options})

    def render(self, renderable: Any, options: Any = None) -> Iterable[Segment]:
        """Yield the segments, with control characters other than line ends spelled out."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment("\n".join(map(printable, segment.text.split("\n"))), segment.style)


#: Results.
out = SafeConsole()

#: Progress, notices and errors.
err = SafeConsole(stderr=True)


def shown(text: object) -> str:
    """Return untrusted text escaped for Rich markup, on one line, without control characters."""
    return escape(printable(str(text)))


#: Parameters of the library that messages name in backticks; most options are named after theirs.
PARAMETERS = (
    "address batch_size class_names compression cpus_per_worker crops custom_weights decode_threads device drop_missing "
    "engine features gpus_per_worker include_training intensity join keep_missing learning_curve levels manifest max_memory "
    "method normal on_conflict overwrite page positive precision raw resize storage validation weights "
    "at cost_matrix coverage coverage_per_class"
)

#: The options of parameters: how they are written with another name, or for one value.
OPTIONS = {name: f"--{name.replace('_', '-')}" for name in PARAMETERS.split()} | {
    "output": "-o",
    "input_size_px": "--input-size",
    "cache_layout": "--layout",
    "class_name": "--class",
    "n_clusters": "--k",
    "search='none'": "--no-search",
}


def with_options(message: str) -> str:
    """Return a message of the library with the options of its parameters: ``page=2`` becomes ``--page 2``."""

    def option(match: re.Match[str]) -> str:
        whole, name, value = match[1], match[2], re.sub(r"[\[\]'\"]", "", match[3] or "")
        written = OPTIONS.get(whole, OPTIONS.get(name))
        if written is None:
            return match[0]
        return f"{written} {value}" if value not in ("", "True") and whole not in OPTIONS else written

    return re.sub(r"`(([a-z_]+)(?:=([^`]*))?)`", option, message)


def said(message: object) -> str:
    """Return a sentence of the library for Rich markup, with options in the place of parameters."""
    return shown(with_options(str(message)))


class PrintableFormatter(logging.Formatter):
    """Messages of the log in a form that any terminal can show."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(printable, with_options(super().format(record)).split("\n")))


def print_error(message: str) -> None:
    """Print an expected error; its line ends stay, other control characters are escaped."""
    lines = "\n".join(map(said, message.split("\n")))
    err.print(f"[bold red]Error:[/] {lines}")


def print_first(console: Console, lines: Iterable[str], most: int, hint: str = "") -> None:
    """Print the first lines, escaped already, and how many more there are."""
    found = list(lines)
    for line in found[:most]:
        console.print(f"  {line}")
    if len(found) > most:
        console.print(f"  … and {len(found) - most:,} more{hint}")


def write_text(file: Path, text: str, what: str) -> None:
    """Write a file, and the folder it is in; raise DataError if that is impossible."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(f"{what} cannot be written to {file}: {error.strerror}. Name another file.") from error


def print_json(value: Any) -> None:
    """Print a value as valid JSON: bytes of names that are not UTF-8 become escapes."""
    typer.echo(json.dumps(json_value(value), indent=2))


def leave_closed_terminal() -> None:
    """Discard further output if the terminal was closed: every write would raise an error and end the program."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # a stream without a file
            descriptor = stream.fileno()
            if is_closed_terminal(descriptor):
                with Path(os.devnull).open("wb") as nowhere:
                    os.dup2(nowhere.fileno(), descriptor)


def is_closed_terminal(descriptor: int) -> bool:
    """Return whether a file is a closed terminal (EIO on POSIX; Windows ends the program)."""
    if sys.platform == "win32":
        return False
    try:
        os.tcgetpgrp(descriptor)
    except OSError as error:
        return error.errno == errno.EIO
    return False


class RateColumn(ProgressColumn):
    """Images per second."""

    def render(self, task: Task) -> Text:
        rate = task.finished_speed or task.speed
        return Text(f"{rate:.1f} images/s" if rate else "", style="progress.data.speed")


class TimeLeftColumn(TimeRemainingColumn):
    """Time left for the whole run; bars of workers show none."""

    def render(self, task: Task) -> Text:
        return Text() if task.fields.get("is_part") else super().render(task)


class ProgressBar:
    """A bar with count, rate and time left; drawn only while there is something to compute, and only on a terminal.

    Several workers have a bar each below it, with their images and their rate.
    """

    def __init__(self, description: str) -> None:
        self._description = description
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            RateColumn(),
            TimeLeftColumn(),
            console=err,
            speed_estimate_period=60,
        )
        self._task = self._bar.add_task(description, total=None, visible=False)
        self._parts: dict[str, TaskID] = {}
        self._n_images: int | None = None

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        leave_closed_terminal()
        self._bar.stop()

    def message(self, text: str) -> None:
        self._bar.console.print(escape(text))

    def start(self, n_images: int) -> None:
        """Show the bar for that many images."""
        self._n_images = n_images
        self._bar.reset(self._task, total=n_images, visible=True)

    def advance(self, n_images: int, place: str = "") -> None:
        """Count finished images, and those of one worker."""
        self._bar.advance(self._task, n_images)
        if not place:
            return
        if place not in self._parts:
            self._parts[place] = self._bar.add_task(f"  {shown(place)}", total=self._n_images, is_part=True)
        self._bar.advance(self._parts[place], n_images)
