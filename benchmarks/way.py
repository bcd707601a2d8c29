"""What ways of extracting features have in common: images decoded some ahead, and a steady rate."""

from __future__ import annotations

import argparse
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.images.discovery.scan import ImageSet, discover
from headstart.images.load import load_image

if TYPE_CHECKING:
    from headstart.types import ImageRef

BATCH, THREADS = 32, 2

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Features = np.ndarray[Any, np.dtype[np.float32]]


def pixels_of(images: ImageSet, ref: ImageRef) -> Pixels:
    """Return an image as the network takes it, decoded by our own code: then features differ by the engine alone."""
    return load_image(images.root, ref, size_px=224, resize_preset="keras-bilinear").pixels


class Way(ABC):
    """A loop over batches that are decoded in two threads, some ahead; how a batch becomes features differs.

    Attributes
    ----------
    precision : str
        The type that most products are computed in; ``auto`` until it is chosen.
    """

    precision = "float32"

    def __init__(self, folder: Path, _options: argparse.Namespace) -> None:
        self.images = discover(folder)
        self.forward = self.load()

    @abstractmethod
    def load(self) -> Callable[[Pixels], Features]:
        """Return the function from a batch of uint8 RGB images to their maps, channels last."""

    def batches(self, refs: Sequence[ImageRef]) -> Iterator[Pixels]:
        """Yield decoded batches, in order."""
        with ThreadPoolExecutor(THREADS) as pool:
            ahead = [pool.submit(pixels_of, self.images, ref) for ref in refs[: 3 * BATCH]]
            for start in range(0, len(refs), BATCH):
                batch = np.stack([future.result() for future in ahead[:BATCH]])
                following = refs[start + 3 * BATCH : start + 4 * BATCH]
                ahead = [*ahead[BATCH:], *(pool.submit(pixels_of, self.images, ref) for ref in following)]
                yield batch

    def run(self, refs: Sequence[ImageRef]) -> Features:
        """Return the features of images."""
        return np.concatenate([self.forward(batch) for batch in self.batches(refs)])

    def whole(self, output: Path) -> None:
        """Write the features of the folder to a file."""
        write_plain(output, self.run(self.images.refs), [ref.label for ref in self.images.refs])

    def steady(self, n_images: int) -> float:
        """Return images per second over so many images, the folder's by turns."""
        refs = list(islice(cycle(self.images.refs), n_images))
        start = time.perf_counter()
        self.run(refs)
        return n_images / (time.perf_counter() - start)


def write_plain(output: Path, features: Features, labels: Sequence[object]) -> None:
    """Write features and labels as the tutorials do: arrays in HDF5, as they are."""
    import h5py

    _, codes = np.unique(np.array(labels, str), return_inverse=True)
    with h5py.File(output, "w") as file:
        file["features"], file["labels"] = features, codes
