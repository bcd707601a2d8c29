"""Small pictures for tests."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image


def picture(path: Path, seed: int, size: tuple[int, int] = (40, 30)) -> Path:
    """Write a picture of coloured blocks that differs for every seed; the suffix decides the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST).save(path)
    return path


def class_folders(root: Path, n_per_class: int = 6, classes: tuple[str, ...] = ("ant", "bee")) -> Path:
    """Write a folder of class folders; the classes differ in brightness, so that a head can learn them."""
    for number, name in enumerate(classes):
        for i in range(n_per_class):
            path = root / name / f"{i:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            low, high = (0, 128) if number % 2 == 0 else (128, 256)
            blocks = np.random.default_rng(1000 * number + i).integers(low, high, (5, 5, 3), dtype=np.uint8)
            Image.fromarray(blocks).resize((40, 30), Image.Resampling.NEAREST).save(path)
    return root


def split_photographs(root: Path, n_per_class: int = 6) -> Path:
    """Write JPEGs of many sizes and smooth content, in class folders below ``train`` and ``val``."""
    rng = np.random.default_rng(7)
    for folder in (root / split / name for split in ("train", "val") for name in ("ants", "bees")):
        folder.mkdir(parents=True)
        for number in range(n_per_class):
            size = tuple(rng.integers(80, 400, 2).tolist())
            colours = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
            colours.resize(size, Image.Resampling.BICUBIC).save(folder / f"{number}.jpg", quality=90)
    return root


#: Pillow's name of a format → the modes in which a small picture of it is made.
FORMAT_MODES = {
    "AVIF": ("RGB", "RGBA"), "BMP": ("1", "L", "P", "RGB", "RGBA"), "DDS": ("L", "RGB", "RGBA"), "GIF": ("L", "P", "RGB"),
    "ICNS": ("RGBA",), "ICO": ("RGBA",), "JPEG": ("L", "RGB", "CMYK"), "JPEG2000": ("L", "RGB", "RGBA"),
    "PCX": ("1", "L", "P", "RGB"), "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"), "PPM": ("1", "L", "RGB", "F"),
    "QOI": ("RGB", "RGBA"), "SGI": ("L", "RGB", "RGBA"), "TGA": ("1", "L", "LA", "P", "RGB", "RGBA"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "LAB", "I;16", "I", "F"), "WEBP": ("RGB", "RGBA"), "XBM": ("1",),
}  # fmt: skip


def encoded_pictures() -> dict[str, bytes]:
    """Return name → content of a small picture in every format and mode that this Pillow writes."""
    Image.init()
    blocks = np.random.default_rng(0).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    rgb = Image.fromarray(blocks).resize((40, 30), Image.Resampling.NEAREST)
    files = {}
    for kind, modes in FORMAT_MODES.items():
        for mode in modes if kind in Image.SAVE else ():
            file = io.BytesIO()
            in_mode(rgb, mode).save(file, kind)
            files[f"{kind}_{mode.replace(';', '')}.{kind.lower()}"] = file.getvalue()
    return files


def deep_tiffs() -> dict[str, bytes]:
    """Return name → content of small TIFFs of more than 8 bits, of kinds that Pillow does not write."""
    ramp = np.arange(24 * 32 * 3).reshape(24, 32, 3) * 28
    planes: dict[str, object] = {"photometric": "rgb", "planarconfig": "separate"}
    kinds: dict[str, tuple[np.ndarray, dict[str, object]]] = {
        "float64": (ramp[:, :, 0] / 65535, {"compression": "zlib"}),
        "planes": (np.moveaxis(ramp, 2, 0).astype(np.uint16), planes),
        "planes_tiled": (np.moveaxis(ramp, 2, 0).astype(np.float32), {**planes, "tile": (16, 16)}),
        "alpha": (ramp[:, :, :2].astype(np.uint16), {"extrasamples": ["assocalpha"], "planarconfig": "contig"}),
        "inverted": (ramp[:, :, 0].astype(np.uint32), {"photometric": "miniswhite"}),
        "stack": (np.moveaxis(ramp, 2, 0).astype(np.int16), {}),
        "cmyk": (np.concatenate([ramp, ramp], axis=2)[:, :, :4].astype(np.float32), {"photometric": "separated"}),
        **{
            kind: (ramp[:, :, 0].astype(np.uint16), {"compression": kind})
            for kind in ("lerc", "png", "jpegxl", "jpeg2000")
        },
    }
    files = {}
    for name, (values, options) in kinds.items():
        file = io.BytesIO()
        tifffile.imwrite(file, values, **{"photometric": "minisblack", "metadata": None, **options})
        files[f"deep_{name}.tif"] = file.getvalue()
    return files


def in_mode(rgb: Image.Image, mode: str) -> Image.Image:
    """Return the picture in one of Pillow's modes."""
    if mode == "LAB":
        return Image.merge("LAB", rgb.split())
    return rgb.convert("I").convert(mode) if mode.startswith("I") else rgb.convert(mode)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """Return a picture as a file of a format that Pillow writes."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def quadrants() -> Image.Image:
    """Red, green, blue and grey quarters, wider than high."""
    image = Image.new("RGB", (40, 20))
    for box, colour in (((0, 0), "red"), ((20, 0), "lime"), ((0, 10), "blue"), ((20, 10), "grey")):
        image.paste(colour, (*box, box[0] + 20, box[1] + 10))
    return image


def png(header: bytes, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG made by hand: what Pillow does not write."""
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    crc = [struct.pack(">I", zlib.crc32(kind + content)) for kind, content in parts]
    written = (struct.pack(">I", len(c)) + k + c + end for (k, c), end in zip(parts, crc, strict=True))
    return b"\x89PNG\r\n\x1a\n" + b"".join(written)
