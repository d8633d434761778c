"""recognition.py, and what imagefile.py refuses or remarks: no picture loses its content without a word."""

import struct
import zlib

import numpy as np
import pytest
from helpers import drawing, file_bytes, gradient, pixels, plain, swapped_profile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from suite.pictures import imagefile, opening, recognition, sandbox
from suite.pictures.imagefile import BadPicture

ALL = (*imagefile.FORMATS, *imagefile.MORE_FORMATS)
TIFF_ON = (*imagefile.FORMATS, "TIFF")


def reason(data, formats=TIFF_ON):
    with pytest.raises(BadPicture) as refused:
        imagefile.encode(data, 32, formats)
    return str(refused.value)


def remark(data, formats=TIFF_ON):
    return imagefile.load_and_encode(data, 32, formats)[2]


# --- how bright white is ----------------------------------------


def ramp(high, dtype):
    return np.linspace(0, high, 40 * 30).reshape(30, 40).astype(dtype)


@pytest.mark.parametrize(
    "values",
    [ramp(1, np.float32), ramp(65535, np.float32), ramp(255, np.int32), ramp(65535, np.int32)],
    ids=lambda values: "%s to %g" % (values.dtype, values.max()),
)
def test_numbers_of_unknown_range_are_refused_with_a_cure(values):
    assert "convert it to 8 bits" in reason(file_bytes(Image.fromarray(values), "TIFF"))


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
@given(bits=st.integers(3, 16))
def test_16_bits_are_scaled_where_more_than_12_are_used(format, bits):
    values = ramp(2**bits - 1, np.uint16)
    data = file_bytes(Image.fromarray(values), format)
    if bits <= 12:
        assert "lowest 12" in reason(data)
    else:
        assert np.abs(pixels(imagefile.encode(data, None, TIFF_ON)) - values[..., None] / 257).max() <= 4


def deep_png(values, alpha=None):
    """A PNG of 16 bits a colour, RGB or RGBA, which Pillow reads and does not write."""
    rgb = np.repeat(values[..., None], 3, 2)
    colour_type = 2 if alpha is None else 6
    rgb = rgb if alpha is None else np.concatenate([rgb, alpha[..., None]], 2)
    height, width = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rgb)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    return opening.PNG + b"".join(
        chunk(*each) for each in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    )


def chunk(kind, content, checksum=None):
    checksum = zlib.crc32(kind + content) if checksum is None else checksum
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def test_colours_of_16_bits_likewise():
    assert "lowest 12" in reason(deep_png(ramp(4095, np.uint16)))
    values = ramp(65535, np.uint16)
    assert np.abs(pixels(imagefile.encode(deep_png(values), None)) - values[..., None] / 257).max() <= 4


def test_a_black_drawing_on_nothing_is_no_dark_picture():
    alpha = np.zeros([30, 40], np.uint16)
    alpha[10:20] = 65535
    result = pixels(imagefile.encode(deep_png(np.zeros_like(alpha), alpha), None))
    assert result[15].max() <= 4 and result[5].min() >= 251


def test_12_bits_that_say_so_are_scaled():
    values = np.array([[0, 1365, 2730, 4095]] * 4)
    packed = b"".join(bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in values.reshape(-1, 2))
    data = tiff({**GREY, 258: 12, 279: len(packed)}, packed)
    assert np.abs(pixels(imagefile.encode(data, None, TIFF_ON))[0, :, 0] - [0, 85, 170, 255]).max() <= 4


# --- TIFF: pages, thumbnails, camera raw ----------------------------------------


def tiff(tags, strip=b"", more=()):
    """A little-endian TIFF of pictures whose tags are whole numbers; `more`: the tags of further pictures.

    Tag 330, if it is there, is a list of the tags of the pictures within the first.
    """
    data = bytearray(b"II*\0\0\0\0\0" + strip)
    tags = dict(tags)
    inner = [directory(data, each, 0) for each in tags.pop(330, ())]
    if inner:
        assert len(inner) == 1
        tags[330] = inner[0]
    if 273 in tags:
        tags[273] = 8
    follows = 0
    for each in reversed(more):
        follows = directory(data, each, follows)
    struct.pack_into("<I", data, 4, directory(data, tags, follows))
    return bytes(data)


def directory(data, tags, follows):
    """Append a directory of tags to a TIFF; where it lies."""
    at = len(data)
    data += struct.pack("<H", len(tags))
    for tag in sorted(tags):
        data += struct.pack("<HHII", tag, 4, 1, tags[tag])
    data += struct.pack("<I", follows)
    return at


GREY = {256: 4, 257: 4, 258: 8, 259: 1, 262: 1, 273: 0, 277: 1, 278: 4, 279: 16}
STRIP = bytes(range(0, 256, 16))


@pytest.mark.parametrize(
    "tags",
    [
        {50706: 0x00000401},  # DNGVersion
        {262: 32803},  # a sensor's cells
        {254: 1},  # a reduced picture comes first
        {330: [{**GREY, 256: 4000}]},  # a larger one lies within
    ],
    ids=["DNG", "cells", "thumbnail", "larger within"],
)
@pytest.mark.parametrize("formats", [imagefile.FORMATS, TIFF_ON, ALL], ids=["off", "on", "all"])
def test_camera_raw_is_named_and_its_thumbnail_never_taken(tags, formats):
    assert "a camera's raw file" in reason(tiff({**GREY, **tags}, STRIP), formats)


def test_a_plain_TIFF_with_a_smaller_picture_within_is_taken():
    assert remark(tiff({**GREY, 330: [{**GREY, 256: 2}]}, STRIP)) == ""


def test_pages_are_counted_but_not_smaller_copies_and_masks():
    assert remark(tiff(GREY, STRIP, [GREY])) == imagefile.SEVERAL_PAGES
    assert remark(tiff(GREY, STRIP, [{**GREY, 254: 1}, {**GREY, 254: 4}])) == ""


def test_16_bits_with_white_as_0_are_refused():
    strip = ramp(65535, np.uint16).tobytes()
    tags = {256: 40, 257: 30, 258: 16, 259: 1, 262: 0, 273: 0, 277: 1, 278: 30, 279: len(strip)}
    assert "white as 0" in reason(tiff(tags, strip))
    ramp_back = imagefile.encode(tiff({**tags, 262: 1}, strip), None, TIFF_ON)
    assert np.abs(pixels(ramp_back) - ramp(65535, np.uint16)[..., None] / 257).max() <= 4


@pytest.mark.parametrize(
    "tags, says",
    [
        ({258: 32, 339: 3, 277: 3, 262: 2}, "TIFF of fractions of 32 bits, 3 a pixel, which is not opened"),
        ({258: 16, 339: 2, 277: 3, 262: 2}, "TIFF of integers with a sign of 16 bits, 3 a pixel"),
        ({258: 64, 339: 3}, "TIFF of fractions of 64 bits, 1 a pixel"),
        ({258: 7}, "TIFF of integers of 7 bits, 1 a pixel"),
    ],
)
def test_pixels_of_a_kind_that_is_not_opened_are_described(tags, says):
    assert says in reason(tiff({**GREY, **tags}, bytes(600)))


def test_pixels_that_a_damaged_tiff_does_not_describe():
    assert recognition.describe_pixels(b"II*\0") == "of pixels that it does not describe"


def test_a_directory_of_very_many_tags_is_not_read():
    """40,000 tags that each point at the whole file would fill the memory."""
    entries = struct.pack("<HHII", 65000, 1, 480000, 8) * 40000
    data = b"II*\0\x08\0\0\0" + struct.pack("<H", 40000) + entries + bytes(4)
    assert recognition.read_ifds(data) == ([], [])
    assert "TIFF, which is off" in reason(data, imagefile.FORMATS)


def test_directories_in_a_circle_end():
    data = bytearray(tiff(GREY, STRIP))
    struct.pack_into("<I", data, len(data) - 4, struct.unpack_from("<I", data, 4)[0])
    assert recognition.count_pages(bytes(data)) == recognition.MOST_IFDS


# --- what is named ----------------------------------------


@pytest.mark.parametrize(
    "beginning, name",
    [
        (b"II*\0\x10\0\0\0CR\x02\0", "raw file"),  # Canon CR2
        (b"\0\0\0\x18ftypcrx \0\0\0\1", "raw file"),  # Canon CR3
        (b"II\x1a\0\0\0HEAPCCDR", "raw file"),  # Canon CRW
        (b"IIRO\x08\0\0\0", "raw file"),  # Olympus
        (b"IIU\0\x18\0\0\0", "raw file"),  # Panasonic
        (b"FUJIFILMCCD-RAW 0201", "raw file"),
        (b"FOVb\0\0\2\0", "raw file"),  # Sigma
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "AVIF"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf", "AVIF"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\xff\x4f\xff\x51\0\x2f", "JPEG 2000"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\xff\x0a\xfa\x1f", "JPEG XL"),
        (b"P5\n4 4\n255\n", "PGM"),
        (b"8BPS\0\1", "Photoshop"),
        (b"%PDF-1.4", "PDF"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg">', "SVG"),
        (b"\0\0\0\x18ftypisom\0\0\2\0", "a film"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"RIFF\x24\0\0\0WEBPVP8 ", "CVE-2023-4863"),
    ],
)
def test_what_is_not_opened_is_named(beginning, name):
    said = reason(beginning + bytes(200), imagefile.FORMATS)
    assert name in said and not said.startswith("not a picture")


@pytest.mark.parametrize("format", ALL)
def test_what_is_recognised_is_never_called_no_picture(format):
    """Cut off and with each of its first bytes changed, it is damaged, or still whole."""
    data = file_bytes(drawing(1), format)
    for damaged in [data[:cut] for cut in (20, 40, len(data) // 2)]:
        try:
            imagefile.encode(damaged, 32, ALL)
        except BadPicture as error:
            assert str(error).startswith(("damaged", "%s," % format)), error


# --- PNG as browsers read it ----------------------------------------


def png_with(*chunks, after=()):
    """A PNG with more chunks before its pixels, and after them."""
    data = file_bytes(gradient(), "PNG")
    pixels_at, end = data.index(b"IDAT") - 4, data.index(b"IEND") - 4
    return data[:pixels_at] + b"".join(chunks) + data[pixels_at:end] + b"".join(after) + data[end:]


BIG = zlib.compress(bytes(70 << 20))
CLUTTER = {
    "gAMA, wrong checksum": chunk(b"gAMA", struct.pack(">I", 45455), checksum=1),
    "tEXt, wrong checksum": chunk(b"tEXt", b"Author\0somebody", checksum=1),
    "eXIf, wrong checksum": chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\0", checksum=1),
    "large zTXt": chunk(b"zTXt", b"Comment\0\0" + BIG),
    "large iTXt": chunk(b"iTXt", b"Comment\0\1\0\0\0" + BIG),
    "many texts": b"".join(chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(1 << 20))) for _ in range(70)),
    "unknown, wrong checksum": chunk(b"abCd", b"x", checksum=1),
}


@pytest.mark.parametrize("clutter", CLUTTER.values(), ids=CLUTTER)
@pytest.mark.parametrize("where", ["before", "after"])
def test_a_PNG_is_read_whatever_it_has_beside_its_pixels(clutter, where):
    data = png_with(clutter) if where == "before" else png_with(after=[clutter])
    assert imagefile.encode(data, 32) == imagefile.encode(file_bytes(gradient(), "PNG"), 32)


def test_a_PNG_of_very_many_chunks_is_refused():
    assert reason(png_with(chunk(b"abCd", b"") * 100001)) == "a PNG of more than 100000 chunks"


def test_a_transparent_grey_of_16_bits_is_laid_on_white():
    values = ramp(65535, np.uint16)
    data = file_bytes(Image.fromarray(values), "PNG")
    for grey in values[0, 0], values[15, 20], values[29, 39]:
        clear = data[:33] + chunk(b"tRNS", struct.pack(">H", grey)) + data[33:]
        expected = np.where(values == grey, 65535, values)
        assert imagefile.encode(clear, None) == imagefile.encode(
            file_bytes(Image.fromarray(expected), "PNG"), None
        )


def test_a_large_colour_profile_is_applied():
    """3 MB of it, which Pillow by itself refuses: as the same profile without the filling."""
    profile = swapped_profile()
    large = struct.pack(">I", len(profile) + (3 << 20)) + profile[4:] + bytes(3 << 20)
    small, big = (
        imagefile.encode(png_with(chunk(b"iCCP", b"p\0\0" + zlib.compress(each))), 32)
        for each in (profile, large)
    )
    assert small == big != imagefile.encode(file_bytes(gradient(), "PNG"), 32)


def test_an_orderly_PNG_loses_its_texts_alone():
    info = PngImagePlugin.PngInfo()
    info.add_text("Author", "somebody")
    data = file_bytes(gradient(), "PNG", pnginfo=info, dpi=(72, 72))
    kept = opening.without_clutter(data)
    assert b"somebody" in data and b"somebody" not in kept and b"pHYs" in kept


# --- remarks ----------------------------------------


def icon():
    image = Image.new("RGBA", (48, 48), (255, 255, 255, 0))
    image.paste((255, 255, 255, 255), (10, 10, 30, 30))
    return image


def noise():
    return Image.fromarray(np.random.RandomState(0).randint(0, 256, [40, 40, 3]).astype(np.uint8))


@pytest.mark.parametrize(
    "data, expected",
    [
        (file_bytes(icon(), "PNG"), imagefile.HARDLY_ANY_CONTRAST),
        (file_bytes(plain(), "JPEG"), imagefile.HARDLY_ANY_CONTRAST),
        (file_bytes(gradient(), "JPEG"), ""),
        (file_bytes(noise(), "PNG"), ""),  # no contrast from afar
        (file_bytes(drawing(3), "GIF"), ""),
        (file_bytes(plain("P"), "GIF", save_all=True, append_images=[drawing(1)]), imagefile.BLANK_FRAME),
        (file_bytes(drawing(1), "GIF", save_all=True, append_images=[plain("P")]), ""),
        (file_bytes(plain("P"), "GIF"), imagefile.HARDLY_ANY_CONTRAST),
        (file_bytes(drawing(1), "TIFF", save_all=True, append_images=[plain()]), imagefile.SEVERAL_PAGES),
        (file_bytes(drawing(1), "TIFF"), ""),
    ],
)
def test_what_hardly_shows_anything_is_remarked(data, expected):
    assert remark(data) == expected
    assert sandbox.encode_and_hash(data, 32, TIFF_ON)[3] == expected


def test_colours_of_equal_brightness_are_contrast():
    image = plain(colour=(255, 0, 0))
    image.paste((0, 130, 0), (0, 0, 20, 30))
    assert remark(file_bytes(image, "PNG")) == ""
