"""ONNX models on ONNX Runtime and OpenVINO."""

from __future__ import annotations

import importlib.util
import threading
from abc import abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.convnet import Weights
from headstart.backbones.openvino import compile_model, openvino_core
from headstart.backbones.own_networks.onnx_model import as_maps, find_input, parsed, prepared
from headstart.backbones.precision import pick_device
from headstart.backbones.spec import NetworkBackbone, check_images, padded
from headstart.errors import HeadstartError, MissingExtraError
from headstart.own_network import OwnNetwork
from headstart.runtime import available_threads
from headstart.types import FeatureBatch

#: Images per batch, at least and per thread on a CPU, and on a GPU.
BATCH_SIZE, IMAGES_A_THREAD, GPU_BATCH_SIZE = 32, 2, 64


class OnnxRuntimeSession:
    """A model on ONNX Runtime; several threads may run it."""

    def __init__(self, data: bytes, input_name: str, output: str, device: str = "cpu") -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError("This needs ONNX Runtime: pip install 'headstart[onnx]'.") from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # fatal: errors are raised
        providers: list[Any] = ["CPUExecutionProvider"]
        if device == "cpu":
            options.intra_op_num_threads = options.inter_op_num_threads = 1  # each image has a thread
        elif "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise HeadstartError(
                f"ONNX Runtime does not run on {device} here: its GPU build is the package onnxruntime-gpu.",
                hint="Use `device='cpu'`.",
            )
        else:  # float32 is multiplied as float32
            cuda = {"device_id": device.removeprefix("gpu:"), "use_tf32": "0"}
            providers.insert(0, ("CUDAExecutionProvider", cuda))
        self._session = onnxruntime.InferenceSession(data, options, providers=providers)
        self._names = input_name, [output]

    def run(self, images: NDArray[Any]) -> NDArray[Any]:
        """Return the output for preprocessed images."""
        name, outputs = self._names
        found: NDArray[Any] = self._session.run(outputs, {name: images})[0]
        return found


class OpenVinoSession:
    """A model on OpenVINO; each thread that runs it has a request of its own."""

    def __init__(self, data: bytes, input_name: str, _output: str, _device: str = "cpu") -> None:
        self._compiled = compile_model(openvino_core().read_model(data, b""), "float32", n_at_once=available_threads())
        self._input = input_name
        self._local = threading.local()

    def run(self, images: NDArray[Any]) -> NDArray[Any]:
        """Return the output for preprocessed images."""
        if not hasattr(self._local, "request"):
            self._local.request = self._compiled.create_infer_request()
        self._local.request.infer({self._input: images})
        found: NDArray[Any] = self._local.request.get_output_tensor(0).data.copy()
        return found


Session = OnnxRuntimeSession | OpenVinoSession


#: Engine → session, the fastest on a CPU first.
SESSIONS: dict[str, Callable[..., Session]] = {"openvino": OpenVinoSession, "onnxruntime": OnnxRuntimeSession}


def installed() -> list[str]:
    """Return the engines that are installed."""
    return [name for name in SESSIONS if importlib.util.find_spec(name)]


def preprocessed(images: NDArray[np.uint8], network: OwnNetwork, dtype: str = "float32") -> NDArray[Any]:
    """Return RGB images, uint8 of shape (n_images, size, size, 3), as the network takes them.

    Values are computed in float64 and rounded once.
    """
    images = images[..., ::-1] if network.channels == "BGR" else images
    if dtype != "uint8":
        pixels = np.arange(256, dtype=np.float64)[:, np.newaxis]
        table = ((pixels * network.scale - network.mean) / network.std).astype(dtype)
        values = np.empty(images.shape, dtype)
        for channel in range(3):
            values[..., channel] = table[images[..., channel], channel]
    else:
        values = images
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2) if network.layout == "NCHW" else values)


class OnnxBackbone(NetworkBackbone):
    """An ONNX model of the user's own, frozen; parameters as of :class:`~headstart.backbones.spec.NetworkBackbone`.

    On a CPU each image goes through the model alone, in one thread: its row depends on nothing else. A model for a fixed
    number of images gets black ones beside it where images are missing.
    """

    engine_precisions = ("float32",)
    session: ClassVar[Callable[..., Session]]

    @abstractmethod
    def device_for(self, device: str) -> str:
        """Return the name of the device that runs the model."""

    def build(self, weights: Weights, batch_size: int | None, device: str) -> None:
        network = self.recipe.own_network
        if network is None:
            raise HeadstartError(f"The recipe of {self.recipe.backbone} does not describe its network.")
        self._network, self.device = network, self.device_for(device)
        model, on_cpu = parsed(weights.model), self.device == "cpu"
        default = max(BATCH_SIZE, IMAGES_A_THREAD * available_threads()) if on_cpu else GPU_BATCH_SIZE
        self.batch_size = batch_size or default
        self._input = find_input(model, {**asdict(network), "size": self.recipe.input_size_px})
        self._pass_images = self._input.n_images or (1 if on_cpu else self.batch_size)
        selected = prepared(model, self._input, self.recipe.layer, self._pass_images)
        self._session = type(self).session(selected, self._input.name, self.recipe.layer, self.device)
        self._pool = ThreadPoolExecutor(available_threads() if on_cpu else 1)

    def start(self, images: NDArray[np.uint8]) -> Callable[[], FeatureBatch]:
        """Start the passes of these images in threads; return as ``Backbone.start``."""
        check_images(images, self.recipe.input_size_px)
        size = self._pass_images
        passes = [self._pool.submit(self.maps, images[first : first + size]) for first in range(0, len(images), size)]

        def fetch() -> FeatureBatch:
            maps = np.concatenate([one.result() for one in passes])
            return FeatureBatch(maps, np.empty((len(maps), 0), np.float32))

        return fetch

    def maps(self, images: NDArray[np.uint8], network: OwnNetwork | None = None) -> NDArray[np.float32]:
        """Return the maps of at most as many images as a pass takes; ``network`` has another preprocessing."""
        network = network or self._network
        values = preprocessed(padded(images, self._pass_images), network, self._input.dtype)
        return as_maps(self._session.run(values), network.output_kind, network.map_layout)[: len(images)]


class OnnxRuntimeBackbone(OnnxBackbone):
    """An ONNX model on ONNX Runtime, on a CPU or, with its GPU build, a GPU."""

    engine = "ONNX Runtime"
    session = OnnxRuntimeSession

    def device_for(self, device: str) -> str:
        return pick_device(device).name


class OpenVinoOnnxBackbone(OnnxBackbone):
    """An ONNX model on OpenVINO, on the CPU."""

    engine = "OpenVINO"
    session = OpenVinoSession

    def device_for(self, device: str) -> str:
        return "cpu"
