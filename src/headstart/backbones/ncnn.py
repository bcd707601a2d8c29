"""VGG16 without top on ncnn, in float32 by Winograd's convolutions, without TensorFlow.

Winograd's minimal filtering (Lavin & Gray, CVPR 2016) computes a 3 × 3 convolution with a half to a fifth of the products. It
sums in another order, so its float32 differs from that of others by some 2e-6 of the features (decision 0003). The layers of
ncnn (https://github.com/Tencent/ncnn) and their numbered parameters: docs/developer-guide/operators.md.
"""

from __future__ import annotations

import importlib
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.spec import check_images
from headstart.backbones.vgg16 import BGR_MEANS, LAYERS, VGG16, Vgg16Engine
from headstart.backbones.weights import Weights
from headstart.errors import HeadstartError
from headstart.runtime import available_threads
from headstart.texts import reason_of
from headstart.types import FeatureBatch, Recipe

#: Images per batch, at least, and per thread. More would gain nothing and delay Ctrl-C.
MIN_BATCH_SIZE, IMAGES_A_THREAD = 16, 2

#: First line of a network in ncnn's text form.
MAGIC = 7767517

#: Parameters of the layers: a convolution of 3 × 3 with its ReLU; a pooling of 2 × 2 that drops an odd edge, as in Keras.
CONVOLUTION = "0={n_out} 1=3 4=1 5=1 6={n_weights} 9=1"
MAX_POOLING = "0=0 1=2 2=2 5=1"
GLOBAL_AVERAGE = "0=1 4=1"

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


class NcnnBackbone(Vgg16Engine):
    """VGG16 up to a layer, frozen, on the CPU by ncnn.

    Each image goes through the network alone, in one thread, so that its row depends on nothing else.
    """

    engine = "ncnn"
    engine_precisions = ("float32",)

    def build(self, weights: Weights, batch_size: int | None, device: str) -> None:
        n_threads = available_threads()
        self.batch_size = batch_size or max(MIN_BATCH_SIZE, IMAGES_A_THREAD * n_threads)
        self._net, self._memory = load_network(self.recipe, weights), Memory()
        self._threads = ThreadPoolExecutor(n_threads, "ncnn")

    def start(self, images: NDArray[np.uint8]) -> Callable[[], FeatureBatch]:
        check_images(images, self.recipe.input_size_px)
        rows = [self._threads.submit(self._row, image) for image in images]

        def fetch() -> FeatureBatch:
            features, pooled = zip(*(row.result() for row in rows), strict=True)
            return FeatureBatch(np.stack(features), np.stack(pooled), VGG16.column_layers)

        return fetch

    def _row(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the stored layer of an image, channels last, and the averages of its pooled layers."""
        ncnn, size = import_ncnn(), self.recipe.input_size_px
        pixels = ncnn.Mat.from_pixels(np.ascontiguousarray(image), ncnn.Mat.PixelType.PIXEL_RGB2BGR, size, size)
        pixels.substract_mean_normalize(list(BGR_MEANS), [])
        run = self._net.create_extractor()
        run.set_blob_allocator(self._memory.blobs)
        run.set_workspace_allocator(self._memory.workspace)
        run.input("images", pixels)
        # The averages first, so that their maps are freed early.
        pooled, features = (run.extract(name)[1] for name in ("averages", "features"))
        return np.array(features).transpose(1, 2, 0), np.array(pooled)


def load_network(recipe: Recipe, weights: Weights) -> Any:
    """Return the network of a recipe, in float32 throughout; each run of it uses one thread."""
    net = import_ncnn().Net()
    net.opt.num_threads = 1
    # By default ncnn stores and computes in smaller types if the processor has them.
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_packed = net.opt.use_bf16_storage = False
    with network_files(recipe, weights) as (structure, values):
        if net.load_param(str(structure)) != 0 or net.load_model(str(values)) != 0:
            raise HeadstartError("This version of ncnn could not load the network: pip install --upgrade ncnn.")
    return net


@contextmanager
def network_files(recipe: Recipe, weights: Weights) -> Iterator[tuple[Path, Path]]:
    """Write structure and weights to files for ncnn, removed at the end; HeadstartError if that is impossible."""
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="headstart-ncnn-"))
            structure, values = Path(folder, "vgg16.param"), Path(folder, "vgg16.bin")
            structure.write_text(network_text(recipe, weights), encoding="ascii")
            with values.open("wb") as file:
                for name in needed_layers(recipe):
                    if name in weights.tensors:
                        file.writelines(layer_bytes(*weights.tensors[name]))
        except OSError as error:
            raise HeadstartError(
                f"The network for ncnn, 60 MB for a moment, cannot be written to a temporary folder: "
                f"{reason_of(error)}. The variable TMPDIR names another one."
            ) from error
        yield structure, values


def needed_layers(recipe: Recipe) -> tuple[str, ...]:
    """Return the layers up to the last one whose output is used."""
    return LAYERS[: max(map(LAYERS.index, (recipe.layer, *recipe.pooled_layers))) + 1]


def layer_bytes(kernel: NDArray[np.float32], bias: NDArray[np.float32]) -> Iterator[bytes]:
    """Yield a convolution in ncnn's form: a tag, the kernel by output and input channel, the bias."""
    yield FLOAT32_TAG
    yield np.ascontiguousarray(kernel.transpose(3, 2, 0, 1), "<f4").tobytes()
    yield np.ascontiguousarray(bias, "<f4").tobytes()


def network_text(recipe: Recipe, weights: Weights) -> str:
    """Return the network from ``images`` to ``features`` and ``averages`` in ncnn's text form."""
    lines = list(network_lines(recipe, weights))
    n_values = sum(int(line.split()[3]) for line in lines)
    return "\n".join([str(MAGIC), f"{len(lines)} {n_values}", *lines, ""])


def network_lines(recipe: Recipe, weights: Weights) -> Iterator[str]:
    """Yield the layers: type, name, numbers of inputs and outputs, their names, parameters."""
    yield "Input images 0 1 images"
    given, needed = "images", needed_layers(recipe)
    for name in needed:
        takers = [f"{name}_next"] if name != needed[-1] else []
        takers += [f"{name}_map"] if name in recipe.pooled_layers else []
        takers += ["features"] if name == recipe.layer else []
        output = takers[0] if len(takers) == 1 else name
        if name in weights.tensors:
            kernel, _bias = weights.tensors[name]
            settings = CONVOLUTION.format(n_out=kernel.shape[3], n_weights=kernel.size)
            yield f"Convolution {name} 1 1 {given} {output} {settings}"
        else:
            yield f"Pooling {name} 1 1 {given} {output} {MAX_POOLING}"
        if len(takers) > 1:  # a value has one taker in ncnn
            yield f"Split {name}_split 1 {len(takers)} {name} {' '.join(takers)}"
        given = takers[0]
    for name in recipe.pooled_layers:
        yield f"Pooling {name}_average 1 1 {name}_map {name}_average {GLOBAL_AVERAGE}"
    averages = " ".join(f"{name}_average" for name in recipe.pooled_layers)
    yield f"Concat averages {len(recipe.pooled_layers)} 1 {averages} averages 0=0"
