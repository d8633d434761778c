"""Any PIL image as a small upright one of RGB pixels, in the colours of sRGB."""

from __future__ import annotations

import contextlib
import io
import re
from typing import Iterator, Sequence

import numpy as np
from PIL import Image, ImageCms

from suite.pictures.opening import BadPicture

MARGIN = 256 / 224  # pictures to crop keep this much more than the network sees, room for random crops
MAX_SQUARE = 10000  # side of a square of opening.MAX_PIXELS, which a padded or squashed picture is at most
# What pads: the same around every picture, so that it tells none from another, and of -1..1 nearly the 0 that
# convolutions pad with.
GREY = 128

TURNS = {  # what EXIF's orientations ask for
    2: Image.FLIP_LEFT_RIGHT,
    3: Image.ROTATE_180,
    4: Image.FLIP_TOP_BOTTOM,
    5: Image.TRANSPOSE,
    6: Image.ROTATE_270,
    7: Image.TRANSVERSE,
    8: Image.ROTATE_90,
}
EIGHT_BITS = ((np.arange(1 << 16) + 128) // 257).astype(np.uint8)  # of a value of 16
SRGB = ImageCms.createProfile("sRGB")


def shrink(image: Image.Image, image_size: int | None, fit: str) -> Image.Image:
    """Any PIL image as a small upright RGB one; padding is left to do. Raises BadPicture."""
    with damage_as_bad_picture():
        white, profile = largest_value(image), colour_profile(image)
        if image.format == "TIFF":
            image.info.pop("xmp", None)  # by which Pillow 13 would turn it, too
        image.load()
        turn = None if image.format == "TIFF" else how_to_turn(image)  # Pillow turns a TIFF as it loads it
        check_depth(image, white)
        image = to_rgb(image if turn is None else image.transpose(turn), profile, white)
        size = tuple(max(1, round(side)) for side in target_size(image.size, image_size, fit))
        return resize(image, size) if size != image.size else image


def target_size(size: tuple[int, int], image_size: int | None, fit: str) -> tuple[float, float]:
    """Width and height that a picture of this size is resized to, not rounded yet; see imagefile.encode."""
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


def colour_profile(image: Image.Image) -> ImageCms.ImageCmsProfile | None:
    """The embedded ICC profile; None where there is none, a damaged one, or sRGB anyway."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        return None if "sRGB" in ImageCms.getProfileDescription(profile) else profile
    except (KeyError, OSError, TypeError, ImageCms.PyCMSError):
        return None


def how_to_turn(image: Image.Image) -> int | None:
    """What EXIF asks Image.transpose for; None for nothing, as also where it is damaged.

    Not by ImageOps.exif_transpose, which writes all of EXIF anew and fails at what it cannot write; and goes
    by XMP, too, which browsers pass over, Pillow 9.5 in PNG alone and Pillow 13 in all formats.
    """
    exif = Image.Exif()
    try:
        exif.load(image.info["exif"])
        return TURNS.get(exif.get(0x0112))
    except Exception:  # see `damage_as_bad_picture`
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


@contextlib.contextmanager
def damage_as_bad_picture() -> Iterator[None]:
    """What Pillow's decoders raise on a damaged file, which is nearly anything, as a BadPicture."""
    try:
        yield
    except BadPicture:
        raise
    except MemoryError as error:
        raise BadPicture("needs too much memory") from error
    except Exception as error:
        said = re.search("[A-Za-z].*", str(error))  # libtiff's are numbers alone
        raise BadPicture("damaged: %s" % (said.group() if said else type(error).__name__)) from error
