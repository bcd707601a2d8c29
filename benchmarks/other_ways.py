"""The ways of others: the Keras tutorials', PyTorch, ONNX Runtime, OpenVINO."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from way import BATCH, THREADS, Features, Pixels, Way, pixels_of, write_plain

if TYPE_CHECKING:
    from headstart.images.discovery.scan import ImageSet
    from headstart.types import ImageRef

#: Images on which int8 is calibrated, at most.
CALIBRATION_IMAGES = 100


class Tutorial(Way):
    """As the Keras tutorials do it: ``image_dataset_from_directory``, and one call of ``model.predict``."""

    def load(self) -> Callable[[Pixels], Features]:
        import keras

        from headstart.backbones.vgg16 import load_weights

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

        from headstart.backbones.vgg16 import BGR_MEANS
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
