"""VGG16 without top: its layers and preprocessing; those of VGG19 differ in the numbers of convolutions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from headstart.backbones.layers import IMAGES, ConvNet, Convolution, Layer, MaxPooling
from headstart.backbones.spec import BackboneSpec
from headstart.backbones.weights import IMAGENET_VGG16_SHA256, load_weights, local_sources

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
    weights_licence="CC BY 4.0",
    can_download=True,
    precisions=("float32", "bfloat16", "float16", "int8"),
    engines={
        "ncnn": "headstart.backbones.ncnn:NcnnBackbone.from_recipe",
        "openvino": "headstart.backbones.openvino:OpenVinoBackbone.from_recipe",
        "tensorflow": "headstart.backbones.tensorflow:FrozenBackbone.from_recipe",
    },
    network=NETWORK,
)
