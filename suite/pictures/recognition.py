"""What a file is that is not opened, told by how it begins; and what the header of a TIFF says.

Names lie, and "not a picture" helps nobody whose camera wrote the file. Nothing here decodes pixels.
"""

from __future__ import annotations

import contextlib
import io
import re
from typing import Sequence

import numpy as np
from PIL import Image, TiffImagePlugin

SIGNATURES = {  # of the formats that can be opened
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "BMP": rb"BM.{4}\0\0\0\0",
    "GIF": rb"GIF8[79]a",
    "WEBP": rb"RIFF.{4}WEBP",
    "TIFF": rb"II[*+]\0|MM\0[*+]",
}
OFF = {  # why those that are opened only when asked for are not
    "WEBP": "off because the libwebp in the last Pillow for Python 3.7 has a hole that lets a picture run "
    "code (CVE-2023-4863); --formats WEBP opens pictures that you trust",
    "TIFF": "off; --formats TIFF opens it",
}
CAMERA_RAW = "a camera's raw file"
FOREIGN = (  # (how it begins, what it is), the first that fits
    (
        rb"II\*\0.{4}CR|II.{4}HEAPCCDR|.{4}ftypcrx |II(RO|RS|U\0)|MMOR|FUJIFILMCCD-RAW|FOVb|\0MRM",
        CAMERA_RAW,
    ),
    (rb".{4}ftyp(.{4}){0,15}?avi[fs]", "AVIF"),
    (rb".{4}ftyp(hei|hev|mif1|msf1)", "HEIC"),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "JPEG 2000"),
    (rb"\0\0\0\x0cJXL |\xff\x0a", "JPEG XL"),
    (rb"P[1-7][\s#]", "PGM, PPM or PBM"),
    (rb"8BPS", "a Photoshop file"),
    (rb"%PDF", "PDF"),
    (rb"\0\0\x01\0", "an icon file"),
    (rb".{128}DICM", "DICOM"),
    (rb"\x76\x2f\x31\x01|#\?RADIANCE", "a picture of high dynamic range"),
    (rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?(<!DOCTYPE svg|<svg)", "SVG"),
)
NO_PICTURES = (
    (rb".{4}ftyp|\x1aE\xdf\xa3|RIFF.{4}AVI ", "a film, not a picture"),
    (rb"\s*<(!doctype|!DOCTYPE|html|HTML)", "a web page, not a picture; download the picture itself"),
    (rb"version https://git-lfs", "a pointer of Git LFS, not a picture; git lfs pull fetches that"),
)

# TIFF's tags, and values of them
SUBFILE_TYPE, WIDTH, PHOTOMETRIC, SUB_IFDS, DNG_VERSION = 254, 256, 262, 330, 50706
BITS_PER_SAMPLE, SAMPLES_PER_PIXEL, SAMPLE_FORMAT = 258, 277, 339
KINDS = {1: "integers", 2: "integers with a sign", 3: "fractions"}  # by the last of these
REDUCED, MASK = 1, 4
SENSOR = (32803, 34892)  # values of single sensor cells
MOST_IFDS = 16  # of one file are looked at
MOST_TAGS = 200  # of one of these


def is_picture(beginning: bytes) -> bool:
    """Whether bytes begin as a picture does that can be opened, or as HEIC."""
    return any(re.match(pattern, beginning, re.DOTALL) for pattern in (*SIGNATURES.values(), rb"\0.{3}ftyp"))


def why_refused(data: bytes, formats: Sequence[str]) -> str:
    """What to say of bytes that Pillow did not open as any of the formats."""
    beginning = data[:4096]
    for pattern, name in FOREIGN:
        if re.match(pattern, beginning, re.DOTALL):
            return "%s, which is not opened; convert it to JPEG" % name
    for format, pattern in SIGNATURES.items():
        if re.match(pattern, beginning, re.DOTALL):
            if format not in formats:
                return "%s, which is %s" % (format, OFF[format])
            said = what_pillow_says(data, format)
            if said == "unknown pixel mode":  # of a TIFF
                return "TIFF %s, which is not opened; convert it to RGB of 8 bits" % describe_pixels(data)
            return "damaged %s: %s" % (format, said)
    for pattern, reason in NO_PICTURES:
        if re.match(pattern, beginning, re.DOTALL):
            return reason
    return "not a picture in %s or %s format" % (", ".join(formats[:-1]), formats[-1])


def what_pillow_says(data: bytes, format: str) -> str:
    """Why Pillow's reader of this format refuses the bytes; Image.open keeps that to itself."""
    factory, _ = Image.OPEN[format]
    try:
        factory(io.BytesIO(data), "")
    except Exception as error:  # they raise nearly anything
        return str(error) or type(error).__name__
    return "cannot be read"


# --- TIFF ----------------------------------------


def describe_pixels(data: bytes) -> str:
    """What a TIFF's first picture says that it holds for each pixel."""
    tags = BITS_PER_SAMPLE, SAMPLE_FORMAT, SAMPLES_PER_PIXEL
    with contextlib.suppress(Exception):  # damaged
        pages, _ = read_ifds(data)
        bits, kind, count = (np.ravel(pages[0].get(tag, 1))[0] for tag in tags)
        return "of %s of %d bits, %d a pixel" % (KINDS.get(kind, "values"), bits, count)
    return "of pixels that it does not describe"


def is_tiff(data: bytes) -> bool:
    """Whether the bytes begin as a TIFF does, which camera's raw files do, too."""
    return bool(re.match(SIGNATURES["TIFF"], data))


def is_camera_raw(data: bytes) -> bool:
    """Whether the first picture of a TIFF is a sensor's values, or the thumbnail of them."""
    pages, inner = read_ifds(data)
    if not pages:
        return False
    first = pages[0]
    return (
        DNG_VERSION in first
        or number(first, PHOTOMETRIC) in SENSOR
        or bool(number(first, SUBFILE_TYPE) & REDUCED)
        or any(number(tags, WIDTH) > number(first, WIDTH) for tags in inner)
    )


def count_pages(data: bytes) -> int:
    """How many of a TIFF's pictures are no smaller copies or masks; MOST_IFDS at most."""
    pages, _ = read_ifds(data)
    return sum(not number(tags, SUBFILE_TYPE) & (REDUCED | MASK) for tags in pages)


def number(tags, name):
    """A tag's value; 0 where there is none, or something else, which Pillow finds only now."""
    value = None
    with contextlib.suppress(Exception):
        value = tags.get(name)
    return value if isinstance(value, int) else 0


def read_ifds(data: bytes) -> tuple[list, list]:
    """The tags of a TIFF's pictures, and of those within its first: lists of mappings, as far as they go."""
    pages: list = []
    inner: list = []
    with contextlib.suppress(Exception):  # damaged: Pillow's own reader says how
        at = TiffImagePlugin.ImageFileDirectory_v2(data[:8]).next
        while at and len(pages) < MOST_IFDS:
            pages.append(read_ifd(data, at))
            at = pages[-1].next
        offsets = pages[0].get(SUB_IFDS, ())
        for at in offsets[:MOST_IFDS] if isinstance(offsets, tuple) else [offsets]:
            inner.append(read_ifd(data, at))
    return pages, inner


def read_ifd(data, at):
    """A mapping of the tags that lie there in a TIFF."""
    file = io.BytesIO(data)
    file.seek(at)
    count = int.from_bytes(data[at : at + 2], "little" if data.startswith(b"II") else "big")
    if count > MOST_TAGS:
        raise ValueError("no such TIFF comes from a camera")
    tags = TiffImagePlugin.ImageFileDirectory_v2(data[:8])
    tags.load(file)
    return tags
