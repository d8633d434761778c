"""Any picture file to a small upright RGB JPEG.

Pillow and numpy alone: nothing here waits for TensorFlow. suite/records/preprocessing.py turns the JPEG bytes
into the network's input. Python's warnings are the whole program's, which may be somebody else's, and stay as
they are.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import stat
import threading
import warnings
from typing import Iterator, Sequence

import numpy as np
from PIL import Image, ImageCms, MpoImagePlugin  # noqa: F401  (MPO: see warm_up)

from suite.files.litter import visible
from suite.pictures import recognition
from suite.pictures.conversion import (
    SRGB,
    colour_profile,
    damage_as_bad_picture,
    how_to_turn,
    pad,
    shrink,
    target_size,
)
from suite.pictures.opening import MAX_PIXELS, BadPicture, both, check_size, open_picture
from suite.process import commandline

FORMATS = ("JPEG", "PNG", "BMP", "GIF")  # what a picture is tried as, whatever its name says
MORE_FORMATS = ("WEBP", "TIFF")  # opened only when asked for
MAX_BYTES = 256 * 1000 * 1000  # larger files and pictures are refused before memory is spent on them
START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # the second byte of these markers
END_OF_IMAGE = b"\xd9"
JPEG_QUALITY = 95

PLAIN = 2.0  # levels of 255; a picture whose colours all deviate by less shows hardly anything

# What there is to remark about a picture that was taken.
HARDLY_ANY_CONTRAST = "hardly any contrast is left in it"
BLANK_FRAME = "its first frame is blank, and no other is looked at"
SEVERAL_PAGES = "only the first of its pages is looked at"
REMARKS = ("", HARDLY_ANY_CONTRAST, BLANK_FRAME, SEVERAL_PAGES)


def add_formats_option(parser, mistaken=""):
    """--formats: a list of those of MORE_FORMATS that are opened too.

    Args:
        mistaken: what to say besides where a word is none of them.
    """

    def format_name(text):
        if text not in MORE_FORMATS:
            neither = "%r is neither %s" % (text, " nor ".join(MORE_FORMATS))
            raise argparse.ArgumentTypeError(neither + (mistaken and "; " + mistaken))
        return text

    parser.add_argument(
        "--formats",
        nargs="+",
        default=[],
        type=format_name,
        metavar="{%s}" % ",".join(MORE_FORMATS),
        help="formats to open besides %s; WEBP only for pictures that you trust" % ", ".join(FORMATS),
    )


# --- from a file to JPEG bytes ----------------------------------------


def read_file(path: str) -> bytes:
    """The bytes of a file. Raises BadPicture."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # reading a pipe could wait for ever
            if stat.S_ISDIR(status.st_mode):
                os.scandir(path).close()  # says so where it must not be entered
            what = "a folder, not entered" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise BadPicture("cannot be read: %s" % what)
        check_bytes(status.st_size)
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        hint = ""
        if isinstance(error, FileNotFoundError):
            is_link = os.path.islink(path)  # of a data set, say, whose files were not fetched
            hint = ", where the link leads" if is_link else commandline.meant(path, may_be_picture)
        raise BadPicture("cannot be read: %s%s" % (error.strerror, hint)) from error
    except ValueError as error:
        raise BadPicture("cannot be read: %s" % error) from error  # a NUL in the name


def check_bytes(count: int) -> None:
    """Raises BadPicture where a file of so many bytes is too large."""
    if count > MAX_BYTES:
        raise BadPicture("%d bytes are too many, %d is the limit" % (count, MAX_BYTES))


def may_be_picture(path: str) -> bool:
    """Whether a path is that of a folder, or of a file that begins as pictures do."""
    if not os.path.isfile(path):
        return os.path.isdir(path)
    with open(path, "rb") as file:
        return recognition.is_picture(file.read(64))


def encode(
    data: bytes,
    image_size: int | None,
    formats: Sequence[str] = FORMATS,
    fit: str = "crop",
    max_pixels: int | Sequence[int] = MAX_PIXELS,
) -> bytes:
    """Make any supported picture a small upright RGB JPEG.

    Args:
        data: bytes of a picture file, its format told by content; of a GIF the first frame.
        image_size: pixels that the network sees; None keeps any size.
        formats: those that are opened.
        fit: one of schemas.FITS. "crop": a larger picture is reduced until its shorter side is MARGIN times
            image_size; a smaller one is not enlarged. "pad" and "squash" make a square of the longer side,
            of image_size where that is less: the picture in its middle, on GREY, or drawn out to fill it. An
            orderly JPEG that needs no change is passed on byte for byte.
        max_pixels: larger pictures are refused; one number for JPEGs and one for the rest, or one for all.
    Returns:
        JPEG bytes.
    Raises:
        BadPicture: the data is of no such format, damaged or has too many pixels.
    """
    return load_and_encode(data, image_size, formats, fit, max_pixels)[1]


def load_and_encode(
    data: bytes,
    image_size: int | None,
    formats: Sequence[str] = FORMATS,
    fit: str = "crop",
    max_pixels: int | Sequence[int] = MAX_PIXELS,
) -> tuple[Image.Image, bytes, str]:
    """As `encode`; returns the RGB PIL image before it is padded, the JPEG bytes and one of REMARKS."""
    with without_warnings():
        original = open_picture(data, formats, max_pixels)
        image, jpeg = make_small(original, data, image_size, fit)
        if original.format == "TIFF" and recognition.count_pages(data) > 1:
            return image, jpeg, SEVERAL_PAGES
        return image, jpeg, remark(image, original)


def without_encoding(
    image: Image.Image,
    image_size: int | None,
    fit: str = "crop",
    max_pixels: int | Sequence[int] = MAX_PIXELS,
) -> tuple[Image.Image, str]:
    """What `encode` would make a JPEG of, and one of REMARKS, of a PIL image that a program has.

    It stays as it is, but for being loaded where it was only opened. May return the image itself.

    Raises:
        BadPicture: see `encode`.
    """
    if 0 in image.size:
        raise BadPicture("%d x %d pixels" % image.size)
    check_size(image.size, max(both(max_pixels)))  # it is decoded
    with without_warnings():
        small = shrink(image, image_size, fit)
    return pad(small) if fit == "pad" else small, remark(small, small)


def make_small(
    image: Image.Image, data: bytes, image_size: int | None, fit: str
) -> tuple[Image.Image, bytes]:
    """What `load_and_encode` returns, but for the remark, of a picture that was opened from `data`."""
    wanted = target_size(image.size, image_size, fit)
    fits = wanted == image.size and (fit == "crop" or image.width == image.height)
    with damage_as_bad_picture():
        # A JPEG decoder halves for free; other formats pass over it.
        image.draft(None, [max(1, int(side)) for side in wanted])
        if image.format == "JPEG" and image.mode == "RGB" and fits and is_plain(image, data):
            image.load()
            return image, data
    image = shrink(image, image_size, fit)
    return image, to_jpeg(pad(image) if fit == "pad" else image)


class _Decoding(threading.local):
    """As the pattern of a filter of warnings: matches in the threads that decode, whatever the module."""

    here = False

    def match(self, module):
        return self.here


_decoding = _Decoding()


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """None of Pillow's warnings, which do not name the file, in this thread; others' are left as they are."""
    filters, ours = warnings.filters, ("ignore", None, Warning, _decoding, 0)
    filters.insert(0, ours)  # type: ignore
    _decoding.here = True
    try:
        yield
    finally:
        _decoding.here = False
        with contextlib.suppress(ValueError):  # somebody has emptied the list
            filters.remove(ours)  # type: ignore


def is_orderly(jpeg: bytes) -> bool:
    """Whether a JPEG's segments follow each other up to the header of an image.

    Pillow passes over other bytes, and over an end before there was an image; TensorFlow does not.
    """
    at = 2
    while jpeg[at : at + 1] == b"\xff" and jpeg[at + 1 : at + 2] not in (END_OF_IMAGE, b""):
        if jpeg[at + 1] in START_OF_FRAME:
            return True
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
    return False


def to_jpeg(image: Image.Image) -> bytes:
    """An RGB PIL image as JPEG bytes."""
    jpeg = io.BytesIO()
    image.save(jpeg, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return jpeg.getvalue()


def warm_up(formats: Sequence[str] = FORMATS) -> None:
    """Have everything imported that decoding needs, which Pillow does at first use.

    For processes that cannot open files any more, and for threads at work while TensorFlow is imported. That
    brings in setuptools, which holds Python's import lock for long: a thread that imports meanwhile may wait
    for ever.
    """
    picture = Image.new("RGB", (64, 64), "red")
    exif = Image.Exif()
    exif[0x0112] = 6
    of_jpeg = {"exif": exif, "icc_profile": ImageCms.ImageCmsProfile(SRGB).tobytes()}
    for format in formats:
        file = io.BytesIO()
        picture.save(file, format, **(of_jpeg if format == "JPEG" else {}))
        encode(file.getvalue(), 32, formats)


def is_plain(image: Image.Image, jpeg: bytes) -> bool:
    """Whether a JPEG shows the same to all that read it."""
    return is_orderly(jpeg) and how_to_turn(image) is None and not colour_profile(image)


def remark(image: Image.Image, original: Image.Image) -> str:
    """One of REMARKS: whether anything is to be seen on an RGB image; `original`: what it was made from."""
    sample = image.resize((32, 32), Image.NEAREST)  # is enough for nearly all
    if contrast(sample) >= PLAIN or contrast(image) >= PLAIN:
        return ""
    with contextlib.suppress(Exception):  # a damaged frame after the first: see `damage_as_bad_picture`
        if getattr(original, "is_animated", False):
            return BLANK_FRAME
    return HARDLY_ANY_CONTRAST


def contrast(image: Image.Image) -> float:
    """The standard deviation, in levels of 255, of the colour of an RGB image that varies most."""
    counts, levels = np.reshape(image.histogram(), [3, 256]), np.arange(256)
    counts = counts / counts[0].sum()
    return np.sqrt((counts @ levels**2 - (counts @ levels) ** 2).max().clip(0))


# --- which files ----------------------------------------


def natural(name: str) -> tuple[list, str]:
    """A sort key that puts 2 before 10."""
    parts = re.split("([0-9]+)", name)
    return [int(part) if i % 2 else part.lower() for i, part in enumerate(parts)], name


def list_files(folder: str, follow_links: bool = False) -> list[str]:
    """The paths of the files below a folder, in natural order, but for hidden files and LITTER.

    A folder below it that is not entered, being a link or forbidden, is listed as if it were a file:
    so `read_file` will refuse it, and nothing is left out without a word.
    """
    paths, entered = [], set()

    def forbidden(error):
        paths.append(error.filename)

    for parent, folders, names in os.walk(folder, onerror=forbidden, followlinks=follow_links):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in entered:  # links may lead in a circle
            folders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        if not follow_links:
            names += [name for name in folders if os.path.islink(os.path.join(parent, name))]
        folders[:] = sorted(visible(folders), key=natural)
        paths += [os.path.join(parent, name) for name in sorted(visible(names), key=natural)]
    return paths
