"""Any picture file to a small upright RGB JPEG.

Pillow and numpy alone: nothing here waits for TensorFlow. suite/records/preprocessing.py turns the JPEG bytes
into the network's input. Pillow's own limits and Python's warnings are the whole program's, which may be
somebody else's, and stay as they are.
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
import zlib
from typing import Iterator, Sequence

import numpy as np
from PIL import Image, ImageCms, ImageOps, MpoImagePlugin  # noqa: F401  (MPO: see warm_up)

from suite.files.litter import visible
from suite.pictures import recognition
from suite.process import commandline

FORMATS = ("JPEG", "PNG", "BMP", "GIF")  # what a picture is tried as, whatever its name says
MORE_FORMATS = ("WEBP", "TIFF")  # opened only when asked for
MAX_BYTES = 256 * 1000 * 1000  # larger files and pictures are refused before memory is spent on them
MAX_PIXELS = 100 * 1000 * 1000
MAX_SIDE = 65500  # what libjpeg writes
MOST_SCANS = 10  # of MAX_PIXELS: a progressive JPEG goes over its pixels several times, a bad one for hours
START_OF_SCAN = b"\xff\xda"
START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # the second byte of these markers
END_OF_IMAGE = b"\xd9"
PNG = b"\x89PNG\r\n\x1a\n"  # how such a file begins
MOST_CHUNKS = 100 * 1000  # of a PNG; the largest files have fewer, and each takes time
PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
PNG_PROFILE = b"iCCP"
MAX_PROFILE = 16 << 20  # bytes of a colour profile; printers' are larger than Pillow's limit in a PNG
JPEG_QUALITY = 95
MARGIN = 256 / 224  # pictures to crop keep this much more than the network sees, room for random crops
MAX_SQUARE = 10000  # the side of a square of MAX_PIXELS, which a padded or squashed picture is at most
# What pads: the same around every picture, so that it tells none from another, and of -1..1 nearly the 0 that
# convolutions pad with.
GREY = 128

EIGHT_BITS = ((np.arange(1 << 16) + 128) // 257).astype(np.uint8)  # of a value of 16
PLAIN = 2.0  # levels of 255; a picture whose colours all deviate by less shows hardly anything

# What there is to remark about a picture that was taken.
HARDLY_ANY_CONTRAST = "hardly any contrast is left in it"
BLANK_FRAME = "its first frame is blank, and no other is looked at"
SEVERAL_PAGES = "only the first of its pages is looked at"
REMARKS = ("", HARDLY_ANY_CONTRAST, BLANK_FRAME, SEVERAL_PAGES)
SRGB = ImageCms.createProfile("sRGB")


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


class BadPicture(Exception):
    """A file that cannot be used; the message says why."""


# --- from a file to JPEG bytes ----------------------------------------


def read_file(path: str) -> bytes:
    """The bytes of a file. Raises BadPicture."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # reading a pipe could wait for ever
            what = "a folder, not entered" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise BadPicture("cannot be read: %s" % what)
        check_bytes(status.st_size)
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        hint = commandline.meant(path, may_be_picture) if isinstance(error, FileNotFoundError) else ""
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


def shrink(image: Image.Image, image_size: int | None, fit: str) -> Image.Image:
    """Any PIL image as a small upright RGB one; padding is left to do. Raises BadPicture."""
    with damage_as_bad_picture():
        white, profile = largest_value(image), colour_profile(image)
        image.load()
        turned = image.format != "TIFF" and has_orientation(image)  # Pillow turns a TIFF as it loads it
        check_depth(image, white)
        image = to_rgb(ImageOps.exif_transpose(image) if turned else image, profile, white)
        size = tuple(max(1, round(side)) for side in target_size(image.size, image_size, fit))
        return resize(image, size) if size != image.size else image


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


@contextlib.contextmanager
def damage_as_bad_picture() -> Iterator[None]:
    """What Pillow's decoders raise on a damaged file, which is nearly anything, as a BadPicture."""
    try:
        yield
    except BadPicture:
        raise
    except Exception as error:
        said = re.search("[A-Za-z].*", str(error))  # libtiff's are numbers alone
        raise BadPicture("damaged: %s" % (said.group() if said else type(error).__name__)) from error


def target_size(size: tuple[int, int], image_size: int | None, fit: str) -> tuple[float, float]:
    """Width and height that a picture of this size is resized to, before they are rounded; see `encode`."""
    shorter, longer = min(size), max(size)
    if fit == "crop":
        scale = min(1, round(image_size * MARGIN) / shorter) if image_size else 1
    else:
        side = min(longer, image_size or MAX_SQUARE)
        if fit == "squash":
            return side, side
        scale = side / longer
    return size[0] * scale, size[1] * scale


def pad(image: Image.Image) -> Image.Image:
    """An RGB PIL image in the middle of a grey square, as large as its longer side."""
    side = max(image.size)
    square = Image.new("RGB", (side, side), (GREY, GREY, GREY))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def resize(image: Image.Image, size: Sequence[int]) -> Image.Image:
    """As `image.resize(size, Image.HAMMING, reducing_gap=2)` of Pillow 9.5, to the bit.

    Pillow 13 takes the two sides of some tall pictures in the other order, which gives other last bits.
    """
    width, height = size
    factors = max(1, image.width // width // 2), max(1, image.height // height // 2)
    right, bottom = image.width / factors[0], image.height / factors[1]
    image = image.reduce(factors)
    image = image.resize((width, image.height), Image.HAMMING, (0, 0, right, image.height))
    return image.resize((width, height), Image.HAMMING, (0, 0, width, bottom))


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


def without_clutter(data: bytes) -> bytes:
    """A PNG without its texts and profile, and without chunks that it can do without of a wrong checksum.

    With these browsers read it, and Pillow refuses it. Other formats stay as they are.

    Raises:
        BadPicture: they are so many that the file was made to keep us busy.
    """
    if not data.startswith(PNG):
        return data
    kept = [PNG]
    for count, chunk in enumerate(png_chunks(data), 1):
        kind = chunk[4:8]
        if kind[:1].isupper() or kind not in (*PNG_TEXTS, PNG_PROFILE) and is_whole_chunk(chunk):
            kept.append(chunk)
        if count > MOST_CHUNKS:
            raise BadPicture("a PNG of more than %d chunks" % MOST_CHUNKS)
    return b"".join(kept)


def png_profile(data: bytes) -> bytes | None:
    """The ICC profile of a PNG, which Pillow would read up to a limit of the whole program's; None without.

    Raises:
        BadPicture: it is larger than any that is in use.
    """
    for chunk in png_chunks(data) if data.startswith(PNG) else ():
        if chunk[4:8] == PNG_PROFILE and is_whole_chunk(chunk):
            unpacking = zlib.decompressobj()
            try:
                profile = unpacking.decompress(chunk[8:-4].partition(b"\0")[2][1:], MAX_PROFILE)
            except zlib.error:
                return None
            if unpacking.unconsumed_tail:
                raise BadPicture("a colour profile of more than %d bytes" % MAX_PROFILE)
            return profile
        if chunk[4:8] == b"IDAT":
            break
    return None


def png_chunks(data: bytes) -> Iterator[bytes]:
    """The parts of a PNG file: 4 bytes of length, 4 of kind, the content, 4 of its checksum."""
    at = len(PNG)
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        yield data[at:end]
        at = end


def is_whole_chunk(chunk: bytes) -> bool:
    """Whether the checksum is that of the kind and the content."""
    return zlib.crc32(chunk[4:-4]).to_bytes(4, "big") == chunk[-4:]


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


def open_picture(
    data: bytes, formats: Sequence[str], max_pixels: int | Sequence[int] = MAX_PIXELS
) -> Image.Image:
    """Bytes -> a PIL image whose pixels are not decoded yet. Raises BadPicture."""
    if not data:
        raise BadPicture("empty file")
    if recognition.is_tiff(data) and recognition.is_camera_raw(data):
        raise BadPicture(
            "%s, or begins with a thumbnail as those do; convert it to JPEG" % recognition.CAMERA_RAW
        )
    profile, data = png_profile(data), without_clutter(data)
    image = open_as(data, formats)
    if image is None:
        raise BadPicture(recognition.why_refused(data, formats))
    of_jpegs, of_others = both(max_pixels)
    check_size(image.size, of_jpegs if image.format in ("JPEG", "MPO") else of_others)
    scans = data.count(START_OF_SCAN) if data.startswith(b"\xff\xd8") else 0
    if scans * image.width * image.height > MOST_SCANS * of_jpegs:
        raise BadPicture("%d scans of %d x %d pixels are too much work" % (scans, *image.size))
    if profile:
        image.info["icc_profile"] = profile
    return image


def open_as(data: bytes, formats: Sequence[str]) -> Image.Image | None:
    """As Image.open, but for its limit of pixels; None where the data is of none of the formats."""
    Image.preinit()
    if not set(formats) <= set(Image.OPEN):
        Image.init()
    for factory, accepts in (Image.OPEN[name] for name in formats):
        if not accepts or accepts(data[:16]):
            with contextlib.suppress(Exception):  # see `damage_as_bad_picture`
                return factory(io.BytesIO(data), "")
    return None


def both(max_pixels: int | Sequence[int]) -> Sequence[int]:
    """The limit for JPEGs, which are decoded at the size that is needed, and the one for other formats."""
    return (max_pixels, max_pixels) if isinstance(max_pixels, int) else max_pixels


def check_size(size: tuple[int, int], max_pixels: int) -> None:
    """Raises BadPicture where a picture of this size is too large."""
    if size[0] * size[1] > max_pixels:
        raise BadPicture("%d x %d pixels are too many, %d is the limit" % (*size, max_pixels))
    if max(size) > MAX_SIDE:
        raise BadPicture("%d x %d pixels, a JPEG has at most %d on a side" % (*size, MAX_SIDE))


def is_plain(image: Image.Image, jpeg: bytes) -> bool:
    """Whether a JPEG shows the same to all that read it."""
    return is_orderly(jpeg) and not has_orientation(image) and not colour_profile(image)


def has_orientation(image: Image.Image) -> bool:
    """Whether EXIF asks to turn or mirror the picture; damaged EXIF asks for nothing."""
    try:
        return image.getexif().get(0x0112, 1) in range(2, 9)
    except Exception:  # see `damage_as_bad_picture`
        return False


def colour_profile(image: Image.Image) -> ImageCms.ImageCmsProfile | None:
    """The embedded ICC profile; None where there is none, a damaged one, or sRGB anyway."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        return None if "sRGB" in ImageCms.getProfileDescription(profile) else profile
    except (KeyError, OSError, TypeError, ImageCms.PyCMSError):
        return None


def largest_value(image: Image.Image) -> int:
    """The value of white in a picture: 255, 4095 or 65535. Only before it is loaded are 12 bits known.

    Raises:
        BadPicture: the format does not say it.
    """
    depth = str(getattr(image, "tile", ""))  # Pillow's names of what it reads, such as RGB;16B
    if image.mode == "F" or image.mode == "I" and image.format != "PNG":
        kind = "fractions" if image.mode == "F" else "integers of 32 bits or with a sign"
        raise BadPicture(
            "its pixels are %s, and nothing says how bright white is; convert it to 8 bits" % kind
        )
    if image.mode == "LAB":
        raise BadPicture("its colours are Lab, which are not converted here; convert it to RGB")
    if image.mode.startswith("I;16") and image.format == "TIFF" and image.tag_v2.get(262) == 0:
        raise BadPicture("its 16 bits have white as 0, which is not read here; convert it to 8 bits")
    if "I;12" in depth:
        return 4095
    return 65535 if image.mode.startswith("I") or ";16" in depth and image.format != "BMP" else 255


def check_depth(image: Image.Image, white: int) -> None:
    """Raises BadPicture where a loaded picture of 16 bits uses the lowest 12 alone: it would become black."""
    if white < 65535:
        return
    pixels = np.asarray(image)
    brightest = pixels[..., :-1].max() if image.mode.endswith("A") else pixels.max()
    black = 4096 if image.mode.startswith("I") else 16  # of colours Pillow keeps the upper 8 bits
    if 0 < brightest < black:
        raise BadPicture(
            "16 bits of which only the lowest 12 or fewer are used, so nothing says how bright white is; "
            "convert it to 8 bits"
        )


def remark(image: Image.Image, original: Image.Image) -> str:
    """One of REMARKS: whether anything is to be seen on an RGB image; `original`: what it was made from."""
    sample = image.resize((32, 32), Image.NEAREST)  # is enough for nearly all
    if contrast(sample) >= PLAIN or contrast(image) >= PLAIN:
        return ""
    with contextlib.suppress(Exception):  # a damaged frame after the first: see `damage_as_bad_picture`
        if getattr(original, "n_frames", 1) > 1:
            return BLANK_FRAME
    return HARDLY_ANY_CONTRAST


def contrast(image: Image.Image) -> float:
    """The standard deviation, in levels of 255, of the colour of an RGB image that varies most."""
    counts, levels = np.reshape(image.histogram(), [3, 256]), np.arange(256)
    counts = counts / counts[0].sum()
    return np.sqrt((counts @ levels**2 - (counts @ levels) ** 2).max().clip(0))


def to_rgb(
    image: Image.Image, profile: ImageCms.ImageCmsProfile | None = None, white: int = 65535
) -> Image.Image:
    """Any PIL mode to RGB in the colours of sRGB, transparency laid on white, 12 and 16 bits scaled to 8."""
    if image.mode.startswith("I"):
        values = np.asarray(image) * (65535 // white)
        transparent = values == image.info.get("transparency", -1)  # Pillow only knows this of 8 bits
        image = Image.fromarray(EIGHT_BITS[np.where(transparent, 65535, values)])
    elif image.mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode != "CMYK":
        image = image.convert("RGB")
    if profile and profile.profile.xcolor_space.strip() == image.mode:
        try:
            return ImageCms.profileToProfile(image, profile, SRGB, outputMode="RGB")
        except ImageCms.PyCMSError:
            pass  # an unusable profile: the colours are taken as they stand
    return image.convert("RGB")


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
