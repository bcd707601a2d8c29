"""The description of a network: shapes, padding, what is needed for an output, costs."""

from __future__ import annotations

import pytest

from headstart.backbones.convnet import IMAGES, Addition, ConvNet, Convolution, MaxPooling
from headstart.backbones.efficientnet_lite import LITE0, LITE2, scaled_channels
from headstart.backbones.registry import BACKBONES
from headstart.backbones.vgg16 import NETWORK

MEAN = (0.0, 0.0, 0.0)

SMALL = ConvNet(
    (
        Convolution("a", IMAGES, 8, stride=2),
        Convolution("b", "a", 8, kernel_px=1),
        Addition("c", ("b", "a")),
        MaxPooling("d", "a"),
    ),
    MEAN,
)


@pytest.mark.parametrize(
    ("side", "kernel_px", "stride", "expected"),
    [(224, 3, 1, (1, 1)), (224, 3, 2, (0, 1)), (65, 3, 2, (1, 1)), (260, 5, 2, (1, 2)), (7, 1, 1, (0, 0))],
)
def test_padding_is_that_of_tensorflow(side: int, kernel_px: int, stride: int, expected: tuple[int, int]) -> None:
    layer = Convolution("x", IMAGES, 1, kernel_px=kernel_px, stride=stride)
    assert layer.padding(side) == expected
    assert (side + sum(expected) - kernel_px) // stride + 1 == layer.side(side)


def test_a_side_is_rounded_as_the_layer_does() -> None:
    assert SMALL.sides(33) == {IMAGES: 33, "a": 17, "b": 17, "c": 17, "d": 8}
    assert [(name, spec.channels, spec.stride) for name, spec in SMALL.layer_specs().items()] == [
        ("a", 8, 2),
        ("b", 8, 2),
        ("c", 8, 2),
        ("d", 8, 4),
    ]


def test_only_what_an_output_is_computed_from_is_needed() -> None:
    assert [layer.name for layer in SMALL.needed_for(["c"])] == ["a", "b", "c"]
    assert [layer.name for layer in SMALL.needed_for(["d"])] == ["a", "d"]


@pytest.mark.parametrize("name", [name for name, spec in BACKBONES.items() if spec.network])
@pytest.mark.parametrize("size_px", [32, 96, 100, 224, 260])
def test_the_shape_of_a_map_is_that_of_its_layers(name: str, size_px: int) -> None:
    spec = BACKBONES[name]
    for layer, side in spec.convnet().sides(size_px).items():
        if layer != IMAGES:
            recipe = spec.recipe(weights_sha256="", layer=layer, input_size_px=size_px)
            assert spec.map_shape(recipe) == (side, side, spec.layers[layer].channels)


def test_costs_are_the_published_ones() -> None:
    """In billions of multiplications: VGG16 without top 15.35, Lite0 0.407 and Lite2 0.899 with top and normalisations."""
    assert NETWORK.multiplications(224) / 1e9 == pytest.approx(15.35, abs=0.01)
    assert LITE0.network().multiplications(224) / 1e9 == pytest.approx(0.407, rel=0.07)
    assert LITE2.network().multiplications(260) / 1e9 == pytest.approx(0.899, rel=0.07)


@pytest.mark.parametrize(("channels", "expected"), [(16, 16), (24, 24), (40, 48), (80, 88), (112, 120), (320, 352)])
def test_channels_are_scaled_to_multiples_of_eight(channels: int, expected: int) -> None:
    assert scaled_channels(channels, 1.1) == expected
