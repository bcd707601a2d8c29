"""Convolutional networks on ncnn, in float32 by Winograd's convolutions, without TensorFlow.

Winograd's minimal filtering (Lavin & Gray, CVPR 2016) computes a 3 × 3 convolution with a half to a fifth of the products. It
sums in another order, so its float32 differs from that of others by some 2e-6 of the features (decision 0003). The layers of
ncnn (https://github.com/Tencent/ncnn) and their numbered parameters: docs/developer-guide/operators.md.
"""

from __future__ import annotations

import importlib
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.convnet import IMAGES, Addition, ConvNet, Convolution, Layer, Weights
from headstart.backbones.spec import NetworkBackbone, check_images
from headstart.errors import HeadstartError
from headstart.runtime import available_threads
from headstart.texts import reason_of
from headstart.types import FeatureBatch, Recipe

#: Images per batch, at least, and per thread. More would gain nothing and delay Ctrl-C.
MIN_BATCH_SIZE, IMAGES_A_THREAD = 16, 2

#: First line of a network in ncnn's text form.
MAGIC = 7767517

#: Parameters of a pooling of 2 × 2 that drops an odd edge, as in Keras, and of an average of all positions.
MAX_POOLING = "0=0 1=2 2=2 5=1"
GLOBAL_AVERAGE = "0=1 4=1"

#: Parameters of a convolution's activation.
ACTIVATIONS = {"relu": " 9=1", "relu6": " 9=3 -23310=2,0.0,6.0", None: ""}

#: The tag before a kernel of float32.
FLOAT32_TAG = bytes(4)


def import_ncnn() -> Any:
    """Return the ``ncnn`` module; raise HeadstartError if it is not installed."""
    try:
        return importlib.import_module("ncnn")
    except ImportError as error:
        raise HeadstartError(f"ncnn is not installed ({error}): pip install 'headstart[ncnn]'.") from error


class Memory(threading.local):
    """Memory of a thread, the same for each image, which its caches hold: 2 % faster."""

    def __init__(self) -> None:
        ncnn = import_ncnn()
        self.blobs, self.workspace = ncnn.UnlockedPoolAllocator(), ncnn.UnlockedPoolAllocator()


class NcnnBackbone(NetworkBackbone):
    """A convolutional network up to a layer, frozen, on the CPU by ncnn.

    Each image goes through the network alone, in one thread, so that its row depends on nothing else.
    """

    engine = "ncnn"
    engine_precisions = ("float32",)

    def build(self, weights: Weights, batch_size: int | None, device: str) -> None:
        n_threads = available_threads()
        self.batch_size = batch_size or max(MIN_BATCH_SIZE, IMAGES_A_THREAD * n_threads)
        self._net, self._memory = load_network(self.recipe, weights, self.network), Memory()
        self._threads = ThreadPoolExecutor(n_threads, "ncnn")

    def start(self, images: NDArray[np.uint8]) -> Callable[[], FeatureBatch]:
        check_images(images, self.recipe.input_size_px)
        rows = [self._threads.submit(self._row, image) for image in images]

        def fetch() -> FeatureBatch:
            features, pooled = zip(*(row.result() for row in rows), strict=True)
            return FeatureBatch(np.stack(features), np.stack(pooled), self.spec.column_layers)

        return fetch

    def _row(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the stored layer of an image, channels last, and the averages of its pooled layers."""
        ncnn, size, network = import_ncnn(), self.recipe.input_size_px, self.network
        kind = ncnn.Mat.PixelType.PIXEL_RGB2BGR if network.bgr else ncnn.Mat.PixelType.PIXEL_RGB
        pixels = ncnn.Mat.from_pixels(np.ascontiguousarray(image), kind, size, size)
        pixels.substract_mean_normalize(list(network.mean), [] if network.scale == 1 else [network.scale] * 3)
        run = self._net.create_extractor()
        run.set_blob_allocator(self._memory.blobs)
        run.set_workspace_allocator(self._memory.workspace)
        run.input(IMAGES, pixels)
        # The averages first, so that their maps are freed early.
        pooled, features = (run.extract(name)[1] for name in ("averages", "features"))
        return np.array(features).transpose(1, 2, 0), np.array(pooled)


def load_network(recipe: Recipe, weights: Weights, network: ConvNet) -> Any:
    """Return the network of a recipe, in float32 throughout; each run of it uses one thread."""
    net = import_ncnn().Net()
    net.opt.num_threads = 1
    # By default ncnn stores and computes in smaller types if the processor has them.
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = False
    if hasattr(net.opt, "use_bf16_packed"):  # not in older versions
        net.opt.use_bf16_packed = False
    with network_files(recipe, weights, network) as (structure, values):
        if net.load_param(str(structure)) != 0 or net.load_model(str(values)) != 0:
            raise HeadstartError("This version of ncnn could not load the network: pip install --upgrade ncnn.")
    return net


@contextmanager
def network_files(recipe: Recipe, weights: Weights, network: ConvNet) -> Iterator[tuple[Path, Path]]:
    """Write structure and weights to files for ncnn, removed at the end; HeadstartError if that is impossible."""
    layers = network.needed_for((recipe.layer, *recipe.pooled_layers))
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="headstart-ncnn-"))
            structure, values = Path(folder, "network.param"), Path(folder, "network.bin")
            structure.write_text(network_text(recipe, layers, network), encoding="ascii")
            with values.open("wb") as file:
                for layer in layers:
                    if isinstance(layer, Convolution):
                        file.writelines(layer_bytes(*weights.tensors[layer.name], depthwise=layer.depthwise))
        except OSError as error:
            raise HeadstartError(
                f"The network for ncnn, 60 MB or less for a moment, cannot be written to a temporary folder: "
                f"{reason_of(error)}. The variable TMPDIR names another one."
            ) from error
        yield structure, values


def layer_bytes(kernel: NDArray[np.float32], bias: NDArray[np.float32], *, depthwise: bool) -> Iterator[bytes]:
    """Yield a convolution in ncnn's form: a tag, the kernel by output and input channel, the bias."""
    yield FLOAT32_TAG
    yield np.ascontiguousarray(
        kernel.transpose(2, 3, 0, 1) if depthwise else kernel.transpose(3, 2, 0, 1), "<f4"
    ).tobytes()
    yield np.ascontiguousarray(bias, "<f4").tobytes()


def network_text(recipe: Recipe, layers: Sequence[Layer], network: ConvNet) -> str:
    """Return the network from ``images`` to ``features`` and ``averages`` in ncnn's text form."""
    lines = list(network_lines(recipe, layers, network))
    n_values = sum(int(line.split()[3]) for line in lines)
    return "\n".join([str(MAGIC), f"{len(lines)} {n_values}", *lines, ""])


def network_lines(recipe: Recipe, layers: Sequence[Layer], network: ConvNet) -> Iterator[str]:
    """Yield the layers: type, name, numbers of inputs and outputs, their names, parameters.

    A value has one taker in ncnn: an output with several is split, into one value for each.
    """
    takers: dict[str, list[str]] = {name: [] for name in (IMAGES, *(layer.name for layer in layers))}
    for layer in layers:
        for source in layer.sources:
            takers[source].append(f"{source}_for_{layer.name}")
    for name in recipe.pooled_layers:
        takers[name].append(f"{name}_map")
    takers[recipe.layer].append("features")
    yield f"Input {IMAGES} 0 1 {IMAGES}"
    yield from split_lines(IMAGES, takers[IMAGES], IMAGES)
    sides, specs = network.sides(recipe.input_size_px), network.layer_specs()
    for layer in layers:
        inputs = [given(source, takers[source], f"{source}_for_{layer.name}") for source in layer.sources]
        output = layer.name if len(takers[layer.name]) > 1 else takers[layer.name][0]
        source = layer.sources[0]
        n_inputs = specs[source].channels if source in specs else 3
        kind, settings = layer_settings(layer, sides[source], n_inputs)
        yield f"{kind} {layer.name} {len(inputs)} 1 {' '.join(inputs)} {output}{settings}"
        yield from split_lines(layer.name, takers[layer.name], output)
    for name in recipe.pooled_layers:
        yield f"Pooling {name}_average 1 1 {name}_map {name}_average {GLOBAL_AVERAGE}"
    averages = " ".join(f"{name}_average" for name in recipe.pooled_layers)
    yield f"Concat averages {len(recipe.pooled_layers)} 1 {averages} averages 0=0"


def given(source: str, takers: Sequence[str], taker: str) -> str:
    """Return the name of a value for one of its takers; that of the images is fixed."""
    return IMAGES if source == IMAGES and len(takers) == 1 else taker


def split_lines(name: str, takers: Sequence[str], output: str) -> Iterator[str]:
    """Yield the split of a value with several takers."""
    if len(takers) > 1:
        yield f"Split {name}_split 1 {len(takers)} {output} {' '.join(takers)}"


def layer_settings(layer: Layer, side: int, n_inputs: int) -> tuple[str, str]:
    """Return type and parameters of a layer whose input has this side and number of channels."""
    if isinstance(layer, Addition):
        return "BinaryOp", " 0=0"
    if not isinstance(layer, Convolution):
        return "Pooling", f" {MAX_POOLING}"
    before, behind = layer.padding(side)
    n_weights = layer.channels * layer.kernel_px**2 * (1 if layer.depthwise else n_inputs)
    settings = (
        f" 0={layer.channels} 1={layer.kernel_px} 3={layer.stride} 4={before} 14={before} 15={behind} 16={behind} 5=1 "
        f"6={n_weights}{f' 7={layer.channels}' if layer.depthwise else ''}{ACTIVATIONS[layer.activation]}"
    )
    return "ConvolutionDepthWise" if layer.depthwise else "Convolution", settings
