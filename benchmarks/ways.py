"""One way of extracting features, in a process of its own: from its start to a file, and then at its steady rate.

python benchmarks/ways.py WAY FOLDER OUTPUT [--started SECONDS]      prints one line of JSON

FOLDER holds class folders of JPEG or PNG files, a multiple of 32 of them. The file is what the way's users write: our
cache, or float32 in plain HDF5 by h5py. Then images go through the warm way again, from files to features (for ours: to a
shard on disk), the folder as often as it takes: the steady rate.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.images.discover import ImageSet, discover
from headstart.images.load import load_image

if TYPE_CHECKING:
    from headstart.schema import Backbone, ImageRef

BATCH, THREADS = 32, 2

#: Seconds that a steady pass takes, about.
STEADY_SECONDS = 12.0

#: Images on which int8 is calibrated, at most.
CALIBRATION_IMAGES = 100

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


class Bare(Way):
    """The compiled forward function on images that are decoded already: no file is read, none is written."""

    def load(self) -> Callable[[Pixels], Features]:
        return self.on_decoded(backbone_of(self.images, self.precision))

    def on_decoded(self, backbone: Backbone) -> Callable[[Pixels], Features]:
        """Decode every image, and return the function of a backbone."""
        self.precision = backbone.recipe.precision
        decoded = list(super().batches(self.images.refs))
        self.batches = lambda refs: islice(cycle(decoded), len(refs) // BATCH)  # type: ignore[method-assign]
        return lambda batch: backbone.forward(batch).features


class BareAuto(Bare):
    """The same in the precision that ``auto`` chooses."""

    precision = "auto"


class TensorFlow(Bare):
    """The compiled function of TensorFlow, which computes where no other engine is installed."""

    def load(self) -> Callable[[Pixels], Features]:
        from headstart.backbone.vgg16 import FrozenBackbone

        return self.on_decoded(FrozenBackbone(batch_size=BATCH, device="cpu"))


def backbone_of(images: ImageSet, precision: str) -> Backbone:
    """Return the network that ``extract-features`` takes for these images."""
    from headstart.extract.network import Network
    from headstart.extract.options import ExtractOptions
    from headstart.extract.sample import draw_sample
    from headstart.extract.shard import ShardJob

    first = np.stack([pixels_of(images, ref) for ref in images.refs[:BATCH]])
    network = Network(ExtractOptions(precision=precision, batch_size=BATCH))
    job = ShardJob(images.root, images.class_names)
    return network.backbone(None, first, lambda: draw_sample(images.refs, network.wanted(None), job))[0]


class Worker(Way):
    """``extract-features`` as it is: a whole run into a cache; then its worker, shard by shard, with the same network."""

    precision = "auto"

    def load(self) -> Callable[[Pixels], Features]:
        from headstart.extract.network import Network
        from headstart.extract.options import ExtractOptions

        class Kept(Network):
            """A network whose backbone is at hand afterwards."""

            def backbone(self, *arguments: Any) -> Any:
                self.kept = super().backbone(*arguments)
                return self.kept

        self.options = replace(ExtractOptions(), precision=self.precision)
        self.network = Kept(self.options)
        return lambda batch: self.network.kept[0].forward(batch).features

    def whole(self, output: Path) -> None:
        from headstart.extract.local import extract_features

        extract_features(self.images.root, output, options=self.options, network=self.network)
        self.precision = self.network.kept[0].recipe.precision

    def steady(self, n_images: int) -> float:
        from headstart.extract.shard import Shard, ShardJob
        from headstart.extract.worker import Pipeline

        job = ShardJob(self.images.root, self.images.class_names, self.options.compression, self.options.decode_threads)
        refs, size = list(islice(cycle(self.images.refs), n_images)), self.options.file_images
        with tempfile.TemporaryDirectory() as folder:
            starts = range(0, n_images, size)
            shards = [Shard(Path(folder, f"{start}.h5"), refs[start : start + size]) for start in starts]
            start = time.perf_counter()
            for _ in Pipeline(job, self.network.kept[0], max_unpublished=self.options.shard_images).run(shards):
                pass
            return n_images / (time.perf_counter() - start)


class Tutorial(Way):
    """As the Keras tutorials do it: ``image_dataset_from_directory``, and one call of ``model.predict``."""

    def load(self) -> Callable[[Pixels], Features]:
        import keras

        from headstart.backbone.weights import load_weights

        self.model = keras.applications.VGG16(weights=None, include_top=False, input_shape=(224, 224, 3))
        for layer, tensors in load_weights().tensors.items():  # in place of the download of weights="imagenet"
            self.model.get_layer(layer).set_weights(tensors)
        self.data = keras.utils.image_dataset_from_directory(
            self.images.root, image_size=(224, 224), batch_size=BATCH, shuffle=False, verbose=False
        )
        return self.model.predict

    def predict(self, data: Any) -> Features:
        """Return the features of a data set of batches of images and labels."""
        from keras.applications.vgg16 import preprocess_input

        return self.model.predict(data.map(lambda x, _y: preprocess_input(x)), verbose=0)

    def whole(self, output: Path) -> None:
        features = self.predict(self.data)
        write_plain(output, features, np.concatenate([y for _x, y in self.data]).tolist())

    def steady(self, n_images: int) -> float:
        start = time.perf_counter()
        self.predict(self.data.repeat().take(n_images // BATCH))
        return n_images / (time.perf_counter() - start)


class TutorialLoop(Tutorial):
    """The same with a call of ``model.predict`` for every batch, as most of them have it."""

    def predict(self, data: Any) -> Features:
        from keras.applications.vgg16 import preprocess_input

        return np.concatenate([self.model.predict(preprocess_input(x), verbose=0) for x, _y in data])


class Torch(Way):
    """PyTorch: ``nn.Sequential``, channels last, fed by a DataLoader of two workers, in inference mode."""

    def load(self) -> Callable[[Pixels], Features]:
        import torch

        from headstart.backbone.vgg16 import BGR_MEANS
        from networks import torch_network

        network, means = torch_network(), torch.tensor(BGR_MEANS)

        def forward(batch: Any) -> Features:
            reduced = torch.autocast("cpu", dtype=torch.bfloat16) if self.precision == "bfloat16" else nullcontext()
            with torch.inference_mode(), reduced:
                maps = network((batch.flip(-1).float() - means).permute(0, 3, 1, 2))
                features: Features = maps.permute(0, 2, 3, 1).float().contiguous().numpy()
                return features

        return forward

    def batches(self, refs: Sequence[ImageRef]) -> Iterator[Any]:
        from torch.utils.data import DataLoader

        return iter(DataLoader(Files(self.images, refs), batch_size=BATCH, num_workers=THREADS))


class Files:
    """Images by their number, as a DataLoader asks for them."""

    def __init__(self, images: ImageSet, refs: Sequence[ImageRef]) -> None:
        self.images, self.refs = images, refs

    def __len__(self) -> int:
        return len(self.refs)

    def __getitem__(self, index: int) -> Pixels:
        return pixels_of(self.images, self.refs[index])


class TorchBfloat16(Torch):
    """The same under autocast to bfloat16."""

    precision = "bfloat16"


class OnnxRuntime(Way):
    """ONNX Runtime on its CPU provider, with its default options."""

    def load(self) -> Callable[[Pixels], Features]:
        import onnxruntime

        from networks import write_onnx

        with tempfile.TemporaryDirectory() as folder:
            write_onnx(Path(folder, "vgg16.onnx"))
            session = onnxruntime.InferenceSession(Path(folder, "vgg16.onnx"))
        return lambda batch: session.run(None, {"images": batch})[0]


class OpenVino(Way):
    """OpenVINO with weights and sums in float32 and products in bfloat16, as its latency mode chooses threads."""

    precision, hint = "bfloat16", "bf16"

    def load(self) -> Callable[[Pixels], Features]:
        import openvino

        core = openvino.Core()
        model = self.model(core)
        model.reshape({0: [BATCH, 224, 224, 3]})
        hints = {"INFERENCE_PRECISION_HINT": self.hint, "PERFORMANCE_HINT": "LATENCY"}
        compiled = core.compile_model(model, "CPU", hints)
        return lambda batch: compiled(batch)[0].copy()

    def model(self, core: Any) -> Any:
        """Return the network."""
        from networks import write_onnx

        with tempfile.TemporaryDirectory() as folder:
            write_onnx(Path(folder, "vgg16.onnx"))
            return core.read_model(Path(folder, "vgg16.onnx"))


class OpenVinoFloat32(OpenVino):
    """The same in float32."""

    precision, hint = "float32", "f32"


class OpenVinoInt8(OpenVino):
    """The same after quantisation to int8 by NNCF, calibrated on images of the folder, evenly spread."""

    precision = "int8"  # of the convolutions; what is left of the network stays in bfloat16

    def model(self, core: Any) -> Any:
        import nncf

        model = super().model(core)
        model.reshape({0: [1, 224, 224, 3]})
        step = max(len(self.images.refs) // CALIBRATION_IMAGES, 1)
        sample = [pixels_of(self.images, ref)[None] for ref in self.images.refs[::step][:CALIBRATION_IMAGES]]
        return nncf.quantize(model, nncf.Dataset(sample), subset_size=len(sample))


#: By the name on the command line.
WAYS: dict[str, type[Way]] = {
    "tensorflow-float32": TensorFlow,
    "bare-float32": Bare,
    "bare-auto": BareAuto,
    "worker-auto": Worker,
    "tutorial-loop": TutorialLoop,
    "tutorial-predict": Tutorial,
    "torch-float32": Torch,
    "torch-bfloat16": TorchBfloat16,
    "openvino-float32": OpenVinoFloat32,
    "openvino-bfloat16": OpenVino,
    "openvino-int8": OpenVinoInt8,
    "onnxruntime-float32": OnnxRuntime,
}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--started", type=float, help="time.time() when the process was started; default: now")
    return parser.parse_args(arguments)


def main() -> None:
    """Run one way and print its figures as the last line."""
    options = parse()
    started = options.started or time.time()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    way = WAYS[options.way](options.folder, options)
    loaded = time.time()
    way.whole(options.output)
    done = time.time()
    rate = way.steady(2 * BATCH)
    n_batches = round(rate * STEADY_SECONDS / BATCH)
    if n_batches > 3:  # else the first pass was long enough itself
        rate = way.steady(n_batches * BATCH)
    print(
        json.dumps(
            {
                "images_per_second": rate,
                "load_seconds": loaded - started,
                "whole_seconds": done - started,
                "precision": way.precision,
            }
        )
    )


if __name__ == "__main__":
    main()
