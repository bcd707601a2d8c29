"""Images of a scan → decoded images, in order, some of them ahead of the one that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING

from headstart.errors import ImageError
from headstart.extract.stages import Stage, StageTime
from headstart.images.load import LoadedImage, load_image
from headstart.images.rules import DecodeRules
from headstart.schema import Failure
from headstart.storage.address import Address

#: Images of a bucket that are read at the same time beside those that are decoded: a request takes some 10–100 ms, whatever
#: the size, so that 16 bring some hundred images a second.
REQUESTS_AT_ONCE = 16

if TYPE_CHECKING:
    from headstart.extract.shard import ShardJob
    from headstart.schema import ImageRef, Recipe
    from headstart.storage.address import Location


def decoded(
    refs: Iterable[ImageRef], recipe: Recipe, job: ShardJob, *, ahead: int, time: StageTime | None = None
) -> Generator[LoadedImage | Failure]:
    """Yield each image, or why it failed, in order; up to ``ahead`` of them are decoded before they are asked for.

    Raises
    ------
    ImageError
        With ``job.stop_on_failure``, for the first image that cannot be read, after those before it.
    """
    rules = DecodeRules.of(recipe)

    def load(ref: ImageRef) -> LoadedImage | Failure:
        try:
            return load_image(job.root, ref, size_px=recipe.input_size_px, resize_preset=recipe.resize, rules=rules)
        except ImageError as error:
            if job.stop_on_failure:
                raise ImageError(f"{ref.path}: {error}") from error
            return Failure(ref, str(error))

    with Stage("decode", threads_of(job.root, job.decode_threads), time or StageTime()) as stage:
        for ref in refs:
            stage.submit(load, ref)
            if len(stage) >= ahead:
                yield stage.take()
        while len(stage):
            yield stage.take()


def threads_of(root: Location, threads: int) -> int:
    """Return how many threads read: more than were asked for where most of them wait for a bucket to answer."""
    return threads + (REQUESTS_AT_ONCE if isinstance(root, Address) else 0)


def batches(
    refs: Iterable[ImageRef], recipe: Recipe, job: ShardJob, batch_size: Callable[[], int]
) -> Iterator[tuple[list[LoadedImage], list[Failure]]]:
    """Yield full batches of decoded images, in order, with the failures met on the way."""
    with closing(decoded(refs, recipe, job, ahead=images_ahead(batch_size(), job))) as results:
        yield from grouped(results, batch_size)


def grouped(
    results: Iterable[LoadedImage | Failure], batch_size: Callable[[], int]
) -> Iterator[tuple[list[LoadedImage], list[Failure]]]:
    """Yield what was decoded by batches of so many images, with the failures met on the way; the last may be smaller."""
    images: list[LoadedImage] = []
    failures: list[Failure] = []
    for result in results:
        if isinstance(result, Failure):
            failures.append(result)
        else:
            images.append(result)
        if len(images) >= batch_size():
            yield images, failures
            images, failures = [], []
    if images or failures:
        yield images, failures


def images_ahead(batch_size: int, job: ShardJob) -> int:
    """Return how many images are decoded ahead: enough that one slow image among many does not stop the network."""
    return 2 * batch_size + job.decode_threads
