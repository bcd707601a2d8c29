"""Networks of ``keras.applications``, without top, each with its own preprocessing, on TensorFlow.

Weights come from Keras' cache or download, which check the file by Keras' own hash, or from a file. The recipe has the digest
of all tensors.
"""

from __future__ import annotations

import hashlib
import importlib
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.convnet import (
    DOWNLOAD_TIMEOUT_SECONDS,
    ConvNet,
    Convolution,
    LayerSpec,
    Source,
    Tensors,
    Weights,
    keras_home,
)
from headstart.backbones.spec import BackboneSpec
from headstart.backbones.tensorflow import POLICIES, FrozenBackbone
from headstart.backbones.vgg16 import BGR_MEANS, VGG16, vgg_layers
from headstart.errors import WeightsError
from headstart.runtime import import_keras
from headstart.types import Recipe

#: Place of all tensors of a network whose layers are not described, in the order of Keras.
ALL = "all"

ENGINE = "headstart.backbones.keras_applications:ApplicationBackbone.from_recipe"

#: Licence of weights for which no statement was found.
UNKNOWN = "see Keras"

#: What ``preprocess_input`` of a network does (``mode`` in keras.applications.imagenet_utils).
CAFFE = "RGB → BGR, means of ImageNet subtracted"
TORCH = "to 0…1, means and deviations of ImageNet"
TF = "to −1…1"
INSIDE = "inside the network"


class Affine(NamedTuple):
    """Preprocessing of pixels of 0–255: (pixel − mean) · scale."""

    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)  # in the order of the channels
    scale: float | tuple[float, float, float] = 1.0
    bgr: bool = False  # whether the channels are blue, green, red


#: The same as numbers, for exports (the means and deviations are those of keras.applications.imagenet_utils).
AFFINE = {
    CAFFE: Affine(BGR_MEANS, bgr=True),
    TORCH: Affine((0.485 * 255, 0.456 * 255, 0.406 * 255), (1 / (0.229 * 255), 1 / (0.224 * 255), 1 / (0.225 * 255))),
    TF: Affine((127.5, 127.5, 127.5), 1 / 127.5),
    INSIDE: Affine(),
}


@dataclass(frozen=True, slots=True)
class Application:
    """A network of ``keras.applications``."""

    name: str
    function: str  # ``module.function`` in ``keras.applications``
    file: str  # name of the weights without top in Keras' cache
    #: Layers whose output may be stored, the last one by default. Averages are kept of the others.
    layers: Mapping[str, LayerSpec]
    preprocessing: str
    gmac: float  # multiply-add operations of the convolutions for one image, in billions
    n_parameters: int
    licence: str  # of the weights, as the Keras project states it where they were published
    input_size_px: int = 224
    min_input_size_px: int = 32
    network: ConvNet | None = None  # its layers, if the other engines and exports can build them

    @property
    def module(self) -> Any:
        """The module of ``keras.applications`` with ``preprocess_input``."""
        import_keras()
        return importlib.import_module(f"keras.applications.{self.function.rpartition('.')[0]}")

    @property
    def constructor(self) -> Any:
        """The function of ``keras.applications`` that makes the network."""
        return getattr(self.module, self.function.rpartition(".")[2])

    def model(self, size_px: int, weights: str | None = None) -> Any:
        """Return the network without top; weights are random, or those that Keras finds or downloads."""
        return self.constructor(weights=weights, include_top=False, input_shape=(size_px, size_px, 3))

    def load(self, weights: str | Path = "imagenet", *, custom: bool = False) -> Weights:
        """Return the weights: ``imagenet``, or a Keras ``.h5`` or ``.weights.h5`` file without top.

        Raises
        ------
        WeightsError
            If Keras can neither find nor download them, or the file does not hold all weights of the network. Only the
            digests of Keras' own files are known: other files need ``custom``.
        """
        if str(weights) == "imagenet":
            return self._weights(self._downloaded(), "imagenet", "Keras")
        if not custom:
            raise WeightsError(
                f"No digest of weights in files is known for {self.name}. Received: {weights}.",
                hint="Say that they are yours with `weights=PATH` and `custom_weights=True`.",
            )
        return self._weights(self._read(Path(weights)), "custom", str(weights))

    def _weights(self, model: Any, name: str, source: str) -> Weights:
        arrays = [np.asarray(array, np.float32) for array in model.get_weights()]
        if not all(np.isfinite(array).all() for array in arrays):
            raise WeightsError(f"{source} does not hold all weights of {self.name}: some are missing or not finite.")
        digest = hashlib.sha256()
        for array in arrays:
            digest.update(array.astype("<f4", copy=False).tobytes())
        return Weights(name, self._by_layer(arrays), digest.hexdigest(), source)

    def _by_layer(self, arrays: Sequence[NDArray[np.float32]]) -> Tensors:
        """Return kernel and bias of each convolution; all in one place if the layers are not described."""
        if self.network is None:
            return {ALL: tuple(arrays)}
        names = [layer.name for layer in self.network.layers if isinstance(layer, Convolution)]
        return dict(zip(names, zip(arrays[::2], arrays[1::2], strict=True), strict=True))

    def _downloaded(self) -> Any:
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_SECONDS)  # Keras sets none
        try:
            return self.model(self.input_size_px, "imagenet")
        except Exception as error:  # urllib, socket and Keras each have their own
            raise WeightsError(
                f"No ImageNet weights of {self.name} on this machine, and Keras could not download them ({error}). "
                f"Put {self.file} into {keras_home() / 'models'}."
            ) from error
        finally:
            socket.setdefaulttimeout(before)

    def _read(self, path: Path) -> Any:
        if not path.is_file() or path.suffix != ".h5":
            raise WeightsError(f"{path} is not a file that can be read. Expected: a Keras .h5 or .weights.h5 file.")
        model = self.model(self.input_size_px)
        model.set_weights([np.full(array.shape, np.nan, np.float32) for array in model.weights])
        try:
            model.load_weights(path)
        except Exception as error:  # Keras raises many kinds for a file that does not fit
            raise WeightsError(f"{path} cannot be read as weights of {self.name} without top: {error}") from error
        return model

    def sources(self) -> Sequence[Source]:
        """Return the place on this machine where the weights are looked for."""
        path = keras_home() / "models" / self.file
        return (Source("Keras' cache", str(path) if path.is_file() else "", "download"),)

    def spec(self) -> BackboneSpec:
        """Return the description."""
        *inner, last = self.layers
        if self.network:  # the last convolution of each block, as for VGG16
            inner = [before for before, name in pairwise(self.layers) if name.endswith("pool")]
        return BackboneSpec(
            name=self.name,
            layers=self.layers,
            pooled_layers=tuple(inner),
            default_layer=last,
            default_input_size_px=self.input_size_px,
            min_input_size_px=self.min_input_size_px,
            preprocessing=self.preprocessing,
            weights={"imagenet": ""},
            load_weights=self.load,
            weights_sources=self.sources,
            weights_licence=self.licence,
            can_download=True,
            precisions=tuple(POLICIES),
            engines=VGG16.engines if self.network else {"tensorflow": ENGINE},
            network=self.network,
            gmac=self.gmac,
            n_parameters=self.n_parameters,
        )


class ApplicationBackbone(FrozenBackbone):
    """A network of ``keras.applications`` on TensorFlow; parameters as of :class:`FrozenBackbone`."""

    @property
    def application(self) -> Application:
        """The network."""
        return APPLICATIONS[self.spec.name]

    def model(self, recipe: Recipe, weights: Weights) -> Any:
        return application_model(self.application, recipe, weights, (recipe.layer, *recipe.pooled_layers))

    def preprocessed(self, images: Any) -> Any:
        return self.application.module.preprocess_input(images)


def application_model(application: Application, recipe: Recipe, weights: Weights, names: Sequence[str]) -> Any:
    """Return a Keras model from preprocessed images to the outputs of the named layers, with these weights."""
    keras = import_keras()
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(POLICIES[recipe.precision])
    try:
        model = application.model(recipe.input_size_px)
    finally:
        keras.config.set_dtype_policy(before)
    model.set_weights(weights.tensors[ALL])
    model.trainable = False
    last = list(application.layers)[-1]  # some have no name that is always the same
    return keras.Model(model.input, [model.output if name == last else model.get_layer(name).output for name in names])


def _halved(names: Sequence[str], channels: Sequence[int], offsets: Sequence[int]) -> dict[str, LayerSpec]:
    """Return layers whose strides double, down to 32."""
    strides = [32 >> (len(names) - 1 - number) for number in range(len(names))]
    return {name: LayerSpec(*values) for name, *values in zip(names, channels, strides, offsets, strict=True)}


#: Configuration E of Simonyan & Zisserman.
VGG19 = ConvNet(tuple(vgg_layers((2, 2, 4, 4, 4))), BGR_MEANS, bgr=True)

SAME = (3, 7, 15, 31)  # offsets of strides 4 to 32 where all sides are rounded up

#: The networks, by name. Sizes, layers and files are those of Keras 3; the figures were computed from its models.
APPLICATIONS = {
    application.name: application
    for application in (
        Application(
            "vgg19",
            "vgg19.VGG19",
            "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5",
            VGG19.layer_specs(),
            CAFFE,
            19.51,
            20_024_384,
            "CC BY",
            network=VGG19,
        ),
        Application(
            "resnet50",
            "resnet.ResNet50",
            "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
            _halved(
                ("conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "conv5_block3_out"),
                (256, 512, 1024, 2048),
                SAME,
            ),
            CAFFE,
            3.86,
            23_587_712,
            "MIT",
        ),
        Application(
            "resnet50v2",
            "resnet_v2.ResNet50V2",
            "resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
            _halved(
                ("conv2_block2_out", "conv3_block3_out", "conv4_block5_out", "post_relu"), (256, 512, 1024, 2048), SAME
            ),
            TF,
            3.48,
            23_564_800,
            UNKNOWN,
        ),
        Application(
            "mobilenetv2",
            "mobilenet_v2.MobileNetV2",
            "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
            _halved(
                ("block_3_expand_relu", "block_6_expand_relu", "block_13_expand_relu", "out_relu"),
                (144, 192, 576, 1280),
                SAME,
            ),
            TF,
            0.30,
            2_257_984,
            UNKNOWN,
        ),
        Application(
            "densenet121",
            "densenet.DenseNet121",
            "densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5",
            _halved(("pool2_relu", "pool3_relu", "pool4_relu", "relu"), (256, 512, 1024, 1024), (3, 3, 3, 3)),
            TORCH,
            2.83,
            7_037_504,
            UNKNOWN,
        ),
        Application(
            "efficientnetv2b0",
            "efficientnet_v2.EfficientNetV2B0",
            "efficientnetv2-b0_notop.h5",
            _halved(
                ("block2b_add", "block4a_expand_activation", "block6a_expand_activation", "top_activation"),
                (32, 192, 672, 1280),
                SAME,
            ),
            INSIDE,
            0.72,
            5_919_312,
            UNKNOWN,
        ),
        Application(
            "inceptionv3",
            "inception_v3.InceptionV3",
            "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
            _halved(("mixed2", "mixed7", "mixed10"), (288, 768, 2048), (-19, -27, -43)),
            TF,
            5.71,
            21_802_784,
            UNKNOWN,
            input_size_px=299,
            min_input_size_px=75,
        ),
        Application(
            "xception",
            "xception.Xception",
            "xception_weights_tf_dim_ordering_tf_kernels_notop.h5",
            _halved(
                ("block4_sepconv2_bn", "block13_sepconv2_bn", "block14_sepconv2_act"), (728, 1024, 2048), (1, 9, 25)
            ),
            TF,
            8.36,
            20_861_480,
            UNKNOWN,
            input_size_px=299,
            min_input_size_px=71,
        ),
        Application(
            "convnexttiny",
            "convnext.ConvNeXtTiny",
            "convnext_tiny_notop.h5",
            _halved(
                (
                    "convnext_tiny_stage_0_block_2_identity",
                    "convnext_tiny_stage_1_block_2_identity",
                    "convnext_tiny_stage_2_block_8_identity",
                    "output",
                ),
                (96, 192, 384, 768),
                (0, 0, 0, 0),
            ),
            INSIDE,
            4.45,
            27_820_128,
            UNKNOWN,
        ),
    )
}
