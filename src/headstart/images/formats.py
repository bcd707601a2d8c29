"""Image formats by suffix and first bytes, and the reasons why a file cannot be read."""

from __future__ import annotations

import importlib
import re
from typing import Any

from PIL import Image

from headstart.errors import ImageError

#: Suffix → Pillow's name of the format, for the formats that are decoded. None of their readers starts another program
#: (Pillow's EPS reader does).
SUFFIX_FORMATS = {
    ".apng": "PNG", ".avif": "AVIF", ".avifs": "AVIF", ".bmp": "BMP", ".bw": "SGI", ".dcm": "DICOM", ".dds": "DDS",
    ".dib": "BMP", ".dicom": "DICOM", ".gif": "GIF", ".heic": "HEIC", ".heics": "HEIC", ".heif": "HEIC", ".heifs": "HEIC",
    ".hif": "HEIC", ".icb": "TGA", ".icns": "ICNS", ".ico": "ICO", ".im1": "SUN", ".j2c": "JPEG2000", ".j2k": "JPEG2000",
    ".jfif": "JPEG", ".jif": "JPEG", ".jp2": "JPEG2000", ".jpc": "JPEG2000", ".jpe": "JPEG", ".jpeg": "JPEG",
    ".jpf": "JPEG2000", ".jpg": "JPEG", ".jpx": "JPEG2000", ".mpo": "JPEG", ".pbm": "PPM", ".pcx": "PCX", ".pfm": "PPM",
    ".pgm": "PPM", ".png": "PNG", ".pnm": "PPM", ".ppm": "PPM", ".psd": "PSD", ".qoi": "QOI", ".ras": "SUN",
    ".rgb": "SGI", ".rgba": "SGI", ".sgi": "SGI", ".sun": "SUN", ".tga": "TGA", ".tif": "TIFF", ".tiff": "TIFF",
    ".vda": "TGA", ".vst": "TGA", ".webp": "WEBP", ".xbm": "XBM",
}  # fmt: skip

#: Suffix → name of the format, for image formats that are not decoded.
UNSUPPORTED_SUFFIXES = {
    ".cur": "CUR", ".emf": "EMF", ".eps": "EPS", ".exr": "OpenEXR", ".hdr": "Radiance HDR", ".jxl": "JPEG XL",
    ".jxr": "JPEG XR", ".svg": "SVG", ".svgz": "SVG", ".wmf": "WMF", ".xcf": "XCF", ".xpm": "XPM",
}  # fmt: skip

#: Suffixes of DICOM files, some of which lack the magic bytes.
DICOM_SUFFIXES = frozenset(suffix for suffix, name in SUFFIX_FORMATS.items() if name == "DICOM")

#: Suffixes of camera raw files. Most are TIFFs whose first picture is a small preview.
RAW_SUFFIXES = frozenset(
    (".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".erf", ".kdc", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf",
     ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f")
)  # fmt: skip

#: Suffixes of all images. Those that cannot be decoded become failures with a reason.
IMAGE_SUFFIXES = frozenset(SUFFIX_FORMATS) | frozenset(UNSUPPORTED_SUFFIXES) | RAW_SUFFIXES

#: The formats that are tried, the frequent ones first. TGA is not among them, since its reader accepts nearly any bytes.
FORMATS = (
    "JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "AVIF", "JPEG2000", "PPM", "ICO", "ICNS", "PSD", "DDS", "SGI", "QOI",
    "SUN", "PCX", "DIB", "XBM",
)  # fmt: skip

#: Formats that share suffixes with another one.
SAME_FORMAT = {"MPO": "JPEG", "DIB": "BMP"}

#: Bytes needed to recognise every format (DICOM's magic bytes are at 128).
HEAD_BYTES = 132

#: The last bytes of a TGA of version 2 (Truevision TGA specification 2.0, "TGA file footer").
TGA_FOOTER = b"TRUEVISION-XFILE.\0"

#: First bytes of decoded formats.
MAGIC = (
    b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+",
    b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51", b"8BPS", b"qoif", b"DDS \x7c\0\0\0", b"icns\0", b"\x59\xa6\x6a\x95",
)  # fmt: skip

#: DICOM's magic bytes and their position (PS3.10, 7.1).
DICOM_MARK, DICOM_MARK_AT = b"DICM", 128

#: First bytes of DICOM files without preamble: group 2 or 8 of an element, little endian.
BARE_DICOM = (b"\x02\x00", b"\x08\x00")

#: Brands of ISO media files (bytes 8–11, after "ftyp") that are HEIC or HEIF; the last two may be AVIF.
HEIC_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"))

#: Brands of still pictures → name.
BRANDS = {**dict.fromkeys(HEIC_BRANDS, "HEIC"), b"avif": "AVIF", b"avis": "AVIF", b"crx ": "Canon CR3"}

#: First bytes of formats that are not decoded, and their names.
UNSUPPORTED_MAGIC = (
    (b"\xff\xd8\xff\xf7", "JPEG-LS"), (b"\xff\xd8\xff\xe8\0 SPIFF", "SPIFF"), (b"PF\n", "PFM in colour"),
    (b"%!PS", "EPS"), (b"\xc5\xd0\xd3\xc6", "EPS"), (b"%PDF", "PDF"), (b"<svg", "SVG"), (b"gimp xcf", "XCF"),
    (b"\x76\x2f\x31\x01", "OpenEXR"), (b"#?RADIANCE", "Radiance HDR"), (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"), (b"II\xbc\x01", "JPEG XR"), (b"FUJIFILMCCD-RAW", "camera raw"), (b"IIRO", "camera raw"),
    (b"IIU\0", "camera raw"), (b"\0MRM", "camera raw"), (b"FOVb", "camera raw"), (b"\xd7\xcd\xc6\x9a", "WMF"),
    (b"/* XPM */", "XPM"),
)  # fmt: skip

#: What Pillow's message contains, in lower case → the reason. The first that fits is taken.
REASONS = (
    (
        r"max_text|decompressed data too large",
        "refused: its text or colour profile decompresses to more than a picture needs",
    ),
    (r"security limit|memory allocation", "too large: decoding it needs more memory than is allowed"),
    (r"truncated|not enough|ran out|too short|end of file", "truncated: the file ends before the picture does"),
    (
        r"unsupported|not supported|unknown|cannot handle|unimplemented|not implemented",
        "of a variant that is not supported",
    ),
    (r"decoder error|data stream", "damaged, or compressed in a way that is not supported"),
)

#: Pillow's message about an intact file of a variant that it does not read → name of the variant.
UNREAD_KINDS = (
    (re.compile(r"JPEG: cannot handle (\d+)-bit layers"), "JPEG of {} bits"),
    (re.compile(r"PSD: \(\d+, (\d+)\)"), "PSD of this colour mode and {} bits"),
)


def suffix_of(path: str) -> str:
    """Return the suffix of a path in lower case, with its dot; empty if there is none."""
    stem, dot, suffix = path.rpartition(".")
    return f".{suffix.lower()}" if dot and stem and "/" not in suffix and not stem.endswith("/") else ""


def has_magic(head: bytes) -> bool:
    """Return whether the first bytes of a file are those of an image.

    Formats with one or two magic bytes (PPM, PCX, ICO, SGI) are recognised by suffix alone, since text may begin with them.
    """
    bmp = head[:2] == b"BM" and head[6:10] == bytes(4)
    webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    media = head[4:8] == b"ftyp" and head[8:12] in BRANDS
    dicom = head[DICOM_MARK_AT:HEAD_BYTES] == DICOM_MARK
    return head.startswith(MAGIC) or bmp or webp or media or dicom


def is_dicom(data: bytes, name: str) -> bool:
    """Return whether a file is DICOM: by its magic bytes, or by its suffix and the group of its first element.

    The preamble before the magic bytes may make it another image as well: then the suffix decides.
    """
    named_so = suffix_of(name) in DICOM_SUFFIXES
    if data[DICOM_MARK_AT:HEAD_BYTES] == DICOM_MARK:
        return named_so or not has_magic(data[:DICOM_MARK_AT])
    return named_so and data.startswith(BARE_DICOM)


def is_heic(data: bytes) -> bool:
    """Return whether a file is HEIC or HEIF, by its brands; files compatible with AVIF are left to Pillow."""
    if data[4:8] != b"ftyp" or data[8:12] not in HEIC_BRANDS:
        return False
    end = min(int.from_bytes(data[:4], "big"), 4096)
    compatible = {data[at : at + 4] for at in range(16, end, 4)}
    return not compatible & {b"avif", b"avis"}


def _unsupported_format(data: bytes, name: str) -> str:
    """Return the name of a format that is not decoded, by content, then by file name; empty if there is none."""
    head = data[:HEAD_BYTES].lstrip()
    for magic, format_name in UNSUPPORTED_MAGIC:
        if data.startswith(magic) or head.startswith(magic):
            return format_name
    if data[4:8] == b"ftyp":
        return BRANDS.get(data[8:12], "a video or similar container").replace("AVIF", "")
    if head.startswith(b"<?xml") and b"<svg" in data[:4096]:
        return "SVG"
    suffix = suffix_of(name)
    return "camera raw" if suffix in RAW_SUFFIXES else UNSUPPORTED_SUFFIXES.get(suffix, "")


def wrong_suffix(name: str, actual: str) -> str:
    """Return the suffix of the name, without its dot, if it belongs to another format; else nothing."""
    suffix = suffix_of(name)
    claimed = SUFFIX_FORMATS.get(suffix) or UNSUPPORTED_SUFFIXES.get(suffix) or (suffix in RAW_SUFFIXES and "raw")
    return suffix[1:] if claimed and claimed != SAME_FORMAT.get(actual, actual) else ""


def readers(data: bytes, name: str) -> tuple[str, ...]:
    """Return the formats to try, in order."""
    tga = SUFFIX_FORMATS.get(suffix_of(name)) == "TGA" or data.endswith(TGA_FOOTER)
    return (*FORMATS, "TGA") if tga else FORMATS


def explain(error: Exception) -> str:
    """Return why an image of a recognised format cannot be decoded."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, Image.DecompressionBombError):
        n_pixels, limit = ([*map(int, re.findall(r"\d+", text)), 0, 0])[:2]
        return f"too large: {n_pixels:,} pixels, at most {limit:,} are decoded in this format"
    if isinstance(error, MemoryError):
        return "too large: decoding it needs more memory than there is"
    if isinstance(error, EOFError):
        return "truncated: the file ends before the picture does"
    for pattern, reason in REASONS:
        if re.search(pattern, text.lower()):
            return f"{reason} ({text})"
    return f"damaged: its content does not match its format ({text})"


def unidentified(data: bytes, name: str, refusals: list[str]) -> str:
    """Return why no reader accepted the file; ``refusals`` are the messages of those that recognised its first bytes."""
    if format_name := _unsupported_format(data, name):
        return f"{format_name} is not supported: convert it to JPEG, PNG or TIFF"
    for pattern, kind in UNREAD_KINDS:
        if found := pattern.search("; ".join(refusals)):
            return f"{kind.format(found[1])} is not supported: convert it to PNG or TIFF"
    if refusals:
        return f"damaged: it begins like an image but cannot be read ({'; '.join(refusals)})"
    if not any(data[:4096]):
        return "not an image: the file is filled with zeros"
    return "not an image: its content is damaged, or of no known format"


def import_reader(module: str, *, extra: str, kind: str) -> Any:
    """Return an optional module, e.g. ``tifffile``; raise ImageError naming the extra if it is not installed.

    ``kind`` is the kind of images that it reads, as the subject of a sentence: ``64-bit float``, ``5 channels``, ``HEIC``.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImageError(
            f"{kind} {verb_of(kind)} not supported without the extra {extra}: "
            f'pip install "headstart[{extra}]", or convert it to 8-bit JPEG, PNG or TIFF'
        ) from error


def verb_of(kind: str) -> str:
    """Return ``are`` for a plural, e.g. ``5 channels``, else ``is``."""
    return "are" if kind.endswith(("channels", "values")) else "is"
