"""An image file, object or value to the input of the network, with notes and digest; many in threads, ahead of their use."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.errors import DataError, ImageError
from headstart.images.decode import DecodedImage, decode
from headstart.images.discovery.refs import READ_FLAGS, state_of
from headstart.images.resize import DRAFT_PRESETS, resize, resize_crop
from headstart.images.samples import DEFAULT_RULES, DecodeRules
from headstart.runtime import usable_cores
from headstart.storage import bucket
from headstart.storage.bucket import Address, Location
from headstart.types import Failure, ImageRef, ImageRow, Recipe

#: Larger files are refused before they are read.
MAX_FILE_BYTES = 2 * 1024**3

#: Attempts to read a file that changes.
MAX_READS = 3


@dataclass(frozen=True, slots=True)
class GivenImage(ImageRef):
    """An image that is no file but a value; its path is a name for it."""

    content: bytes | Image.Image = field(default=b"", compare=False, repr=False)


def given_image(value: Any, name: str) -> GivenImage:
    """Return the bytes of an image file, a PIL image or a uint8 array as an image of this name; DataError for others."""
    if isinstance(value, np.ndarray):
        if value.dtype != np.uint8 or (value.ndim, *value.shape[2:]) not in {(2,), (3, 3), (3, 4)} or not value.size:
            raise DataError(
                f"{name} is an array of {value.dtype} with the shape {value.shape}. Expected: uint8 with the shape (height, "
                "width), (height, width, 3) or (height, width, 4), of values from 0 to 255.",
                hint="Several images are given as a list of arrays.",
            )
        value = Image.fromarray(value)
    if not isinstance(value, bytes | Image.Image):
        raise DataError(
            f"{name} is of the type {type(value).__name__}. Expected: a path, the bytes of an image file, a PIL image, or a "
            "NumPy array."
        )
    return GivenImage(name, None, None, None, len(value) if isinstance(value, bytes) else 0, 0, content=value)


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """An image ready for the network."""

    pixels: NDArray[np.uint8]  # shape (size_px, size_px, 3), RGB, 0–255
    row: ImageRow  # the metadata kept in the cache
    others: tuple[NDArray[np.uint8], ...] = ()  # the same for each further recipe


#: What the pixels for a recipe depend on: input size, resize preset, rules of decoding.
Form = tuple[int, str, DecodeRules]


def form_of(recipe: Recipe) -> Form:
    """Return in what form a recipe takes images."""
    return recipe.input_size_px, recipe.resize, DecodeRules.of(recipe)


def load_image(
    root: Location,
    ref: ImageRef,
    *,
    size_px: int,
    resize_preset: str,
    rules: DecodeRules = DEFAULT_RULES,
    others: Sequence[Form] = (),
) -> LoadedImage:
    """Return an image, read once, and in other forms: equal ones are decoded once.

    The digest is that of the decoded bytes; empty for an image that is given decoded. Raises ImageError, with the reason, if
    it cannot be read or decoded.
    """
    data = ref.content if isinstance(ref, GivenImage) else read_image_bytes(root, ref)
    forms = ((size_px, resize_preset, rules), *others)
    images = {form: decode_resized(data, ref.path, *form) for form in dict.fromkeys(forms)}
    digest = hashlib.sha256(data).hexdigest() if isinstance(data, bytes) else ""
    image, notes = images[forms[0]], dict.fromkeys(note for image in images.values() for note in image.notes)
    row = ImageRow(ref, digest, image.width_px, image.height_px, tuple(notes))
    return LoadedImage(image.pixels, row, tuple(images[form].pixels for form in others))


def decode_resized(
    data: bytes | Image.Image,
    name: str,
    size_px: int,
    preset: str = "keras-bilinear",
    rules: DecodeRules = DEFAULT_RULES,
) -> DecodedImage:
    """Return an image as a square; raises what ``decode`` and ``resize`` do."""
    shrink, margin = partial(resize, size_px=size_px, preset=preset), 1
    if rules.random_crop:
        seed = hashlib.sha256(data if isinstance(data, bytes) else data.tobytes()).digest()
        shrink, margin = partial(resize_crop, size_px=size_px, preset=preset, seed=seed, number=rules.random_crop), 2
    draft_px = margin * size_px if preset in DRAFT_PRESETS else None
    return decode(data, name=name, shrink=shrink, draft_px=draft_px, rules=rules)


def read_image_bytes(root: Location, ref: ImageRef) -> bytes:
    """Return the bytes of a file, or of an object in a bucket.

    Raises ImageError if it is gone, may not be read, is no regular file, is too large, changes while it is read, or has
    another size than in the scan; StorageError if nothing of the bucket can be read.
    """
    if isinstance(root, Address):
        _check_bytes(ref.size_bytes)
        return _read_object(root / ref.path, ref)
    path = root / ref.path
    try:
        descriptor = os.open(path, READ_FLAGS)
    except OSError as error:
        raise ImageError(open_error(error, path)) from error
    try:
        return _read_steady(descriptor, ref)
    finally:
        os.close(descriptor)


def _read_object(address: Address, ref: ImageRef) -> bytes:
    try:
        data = bucket.read(address)
    except bucket.GoneError as error:
        raise ImageError("gone: the object was there when the bucket was listed") from error
    except bucket.DeniedError as error:
        raise ImageError("permission denied") from error
    if len(data) != ref.size_bytes:
        raise ImageError("changed since the bucket was listed: run again")
    return data


def _read_steady(descriptor: int, ref: ImageRef) -> bytes:
    """Return the bytes of an open file that no other process changes meanwhile.

    Size and times must be the same before and after; if only times differ (a tool touches the file, or the file system
    reports changing times), two reads must give the same bytes.
    """
    before, earlier = os.fstat(descriptor), None
    if not stat.S_ISREG(before.st_mode):
        raise ImageError(f"not a regular file but {_kind_of(before.st_mode)}")
    for _ in range(MAX_READS):
        _check_bytes(before.st_size)
        data, after = _read_all(descriptor, before.st_size), os.fstat(descriptor)
        whole = len(data) == before.st_size == after.st_size
        if whole and (state_of(before) == state_of(after) or data == earlier):
            break
        before, earlier = after, data
    else:
        raise ImageError("changed while it was read: run again when it is complete")
    if len(data) != ref.size_bytes:
        raise ImageError("changed since the folder was scanned: run again")
    return data


def _read_all(descriptor: int, size_bytes: int) -> bytes:
    """Return the bytes of an open file from its start, at most one more than expected, so that growth is noticed."""
    try:
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            file.seek(0)
            return file.read(size_bytes + 1)
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}") from error


def _check_bytes(size_bytes: int) -> None:
    if size_bytes > MAX_FILE_BYTES:
        raise ImageError(f"too large: {size_bytes:,} bytes, at most {MAX_FILE_BYTES:,} are read")


def open_error(error: OSError, path: Path) -> str:
    """Return why a file could not be opened."""
    if isinstance(error, FileNotFoundError):
        return "a broken link" if path.is_symlink() else "gone: the file was there when the folder was scanned"
    if isinstance(error, PermissionError):
        return "permission denied"
    return f"cannot be opened: {error.strerror}"


def _kind_of(mode: int) -> str:
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFDIR: "a folder", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
    return kinds.get(stat.S_IFMT(mode), "something else")


#: Small results that are computed ahead of their use.
AHEAD = 256

#: Additional threads that read images from a bucket: a request takes 10–100 ms whatever the size, so that 16 threads read
#: some hundred images a second.
REQUESTS_AT_ONCE = 16

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(slots=True)
class StageTime:
    """How busy one stage was."""

    threads: int = 1  # tasks at the same time
    busy_seconds: float = 0.0  # working time, summed over the threads
    #: Time in which the run only waited for this stage. The stage with most of it limits the run.
    awaited_seconds: float = 0.0


@dataclass(slots=True)
class RunTimes:
    """How long each stage of a run took."""

    decode: StageTime = field(default_factory=StageTime)  # reading and decoding
    forward: StageTime = field(default_factory=StageTime)  # the network
    write: StageTime = field(default_factory=StageTime)  # compression and writing
    seconds: float = 0.0  # from the first image requested to the last shard written

    def add(self, other: RunTimes) -> None:
        """Add the times of another run with the same number of threads."""
        for name in ("decode", "forward", "write"):
            mine, theirs = getattr(self, name), getattr(other, name)
            mine.threads = theirs.threads
            mine.busy_seconds += theirs.busy_seconds
            mine.awaited_seconds += theirs.awaited_seconds

    def of_several(self, n_runs: int) -> None:
        """Multiply the threads by the number of simultaneous runs."""
        for stage in (self.decode, self.forward, self.write):
            stage.threads *= n_runs

    def share(self, stage: StageTime) -> float:
        """Return the fraction of the run in which a stage was busy, 0–1; the mean over its threads."""
        return min(1.0, stage.busy_seconds / (stage.threads * self.seconds)) if self.seconds else 0.0

    def bound(self) -> str:
        """Return the stage that the run waited for most: ``decode``, ``forward`` or ``write``."""
        return max(("forward", "decode", "write"), key=lambda name: float(getattr(self, name).awaited_seconds))


class Stage:
    """Threads for one kind of work; results come back in the order of submission.

    At the end of the ``with`` block, running tasks are finished; pending ones are dropped unless ``finish`` is set.
    ``time`` is updated with the times of the work and of the waiting; ``clock`` returns seconds.
    """

    def __init__(
        self,
        name: str,
        threads: int,
        time: StageTime,
        *,
        finish: bool = False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.time, self._finish, self._clock = time, finish, clock
        self.time.threads = threads
        self._pool = ThreadPoolExecutor(threads, name)
        self._pending: deque[Future[Any]] = deque()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return the number of tasks whose results were not taken yet."""
        return len(self._pending)

    def submit(self, work: Callable[..., Any], *arguments: Any) -> None:
        """Submit a task."""
        self._pending.append(self._pool.submit(self._timed, work, *arguments))

    def take(self) -> Any:
        """Return the result of the oldest task, waiting for it; its exception is raised here."""
        start = self._clock()
        try:
            return self._pending.popleft().result()
        finally:
            self.time.awaited_seconds += self._clock() - start

    def _timed(self, work: Callable[..., Any], *arguments: Any) -> Any:
        start = self._clock()
        try:
            return work(*arguments)
        finally:
            seconds = self._clock() - start
            with self._lock:
                self.time.busy_seconds += seconds

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=not self._finish)


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How images are read."""

    root: Location  # folder, on a disk or in a bucket, that the paths are relative to
    decode_threads: int = field(default_factory=usable_cores, kw_only=True)  # images decoded at the same time
    #: Raise at the first image that cannot be read, instead of recording a failure.
    stop_on_failure: bool = field(default=False, kw_only=True)


def decoded(
    refs: Iterable[ImageRef],
    recipe: Recipe,
    job: ReadOptions,
    *others: Recipe,
    ahead: int,
    time: StageTime | None = None,
) -> Generator[LoadedImage | Failure]:
    """Return a generator of each image, or its failure, in order; up to ``ahead`` images are decoded in advance.

    Each is decoded for ``others``, further recipes, too. With ``job.stop_on_failure``, ImageError is raised for the first
    image that cannot be read, after those before it.
    """
    (size_px, preset, rules), *more = map(form_of, (recipe, *others))

    def load(ref: ImageRef) -> LoadedImage | Failure:
        try:
            return load_image(job.root, ref, size_px=size_px, resize_preset=preset, rules=rules, others=more)
        except ImageError as error:
            if job.stop_on_failure:
                raise ImageError(f"{ref.path}: {error}") from error
            return Failure(ref, str(error))

    return in_order(load, refs, threads_of(job.root, job.decode_threads), ahead=ahead, time=time)


def in_order(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    threads: int,
    *,
    ahead: int = AHEAD,
    time: StageTime | None = None,
) -> Generator[Result]:
    """Yield the results for some items in order, computed by threads up to ``ahead`` items in advance."""
    with Stage("read", threads, time or StageTime()) as stage:
        for item in items:
            stage.submit(work, item)
            if len(stage) >= ahead:
                yield stage.take()
        while len(stage):
            yield stage.take()


def threads_of(root: Location, threads: int) -> int:
    """Return the number of reading threads: more for a bucket, whose answers most of them wait for."""
    return threads + (REQUESTS_AT_ONCE if isinstance(root, Address) else 0)


def batches(
    refs: Iterable[ImageRef], recipe: Recipe, job: ReadOptions, batch_size: Callable[[], int], *others: Recipe
) -> Iterator[tuple[dict[int, LoadedImage], dict[int, Failure]]]:
    """Yield full batches of images, decoded for all recipes, and the failures among them, each by its index in ``refs``."""
    with closing(decoded(refs, recipe, job, *others, ahead=images_ahead(batch_size(), job))) as results:
        yield from grouped(results, batch_size)


def grouped(
    results: Iterable[LoadedImage | Failure], batch_size: Callable[[], int]
) -> Iterator[tuple[dict[int, LoadedImage], dict[int, Failure]]]:
    """Yield batches of decoded images, and the failures among them, each by its index; the last batch may be smaller."""
    images: dict[int, LoadedImage] = {}
    failures: dict[int, Failure] = {}
    for index, result in enumerate(results):
        if isinstance(result, Failure):
            failures[index] = result
        else:
            images[index] = result
        if len(images) >= batch_size():
            yield images, failures
            images, failures = {}, {}
    if images or failures:
        yield images, failures


def images_ahead(batch_size: int, job: ReadOptions) -> int:
    """Return the number of images decoded ahead: enough that a single slow image does not stall the network."""
    return 2 * batch_size + job.decode_threads
