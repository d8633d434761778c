"""suite/model/encoding.py: what Pillow makes of a file, made by TensorFlow."""

import io
import struct
import types
import zlib

import numpy as np
import pytest
from helpers import file_bytes, gradient, pixels
from PIL import Image

from suite.files.schemas import FITS
from suite.model import encoding, formats
from suite.pictures import imagefile
from suite.process.tf_versions import tf
from suite.records import preprocessing

# Smaller than 64 pixels and their margin, as large, and larger by so much that each way to reduce is taken.
SIZES = [(50, 40), (64, 64), (73, 90), (74, 80), (200, 151), (297, 300), (301, 640), (105, 400), (900, 601)]
SIZES += [(640, 3)]


def picture(size):
    """Colours that change slowly, and noise."""
    noise = np.random.RandomState(0).randint(-40, 40, (size[1], size[0], 3))
    return Image.fromarray((np.asarray(gradient(size)).astype(int) + noise).clip(0, 255).astype(np.uint8))


def transparent(image):
    image = image.convert("RGBA")
    image.putalpha(Image.radial_gradient("L").resize(image.size))
    return image


def grey_of_16_bits(image):
    values = np.asarray(image.convert("L")).astype(np.uint16) * 251
    return Image.fromarray(values)


def one_transparent(image):
    """Of a middle grey, which Pillow does not write: the tRNS chunk comes before the pixels."""
    data = file_bytes(grey_of_16_bits(image), "PNG")
    content = b"tRNS" + struct.pack(">H", int(np.median(grey_of_16_bits(image))))
    assert data[33:].startswith((b"IDAT", data[33:37] + b"IDAT"))
    return data[:33] + struct.pack(">I", 2) + content + struct.pack(">I", zlib.crc32(content)) + data[33:]


def png_of_16_bits(values, colour):
    """Of uint16 [height, width, channels], and PNG's number of that kind of colours."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
    )
    parts = [
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in (*chunks, (b"IEND", b""))
    ]
    return encoding.PNG + b"".join(parts)


def of_16_bits(colour, share=1.0):
    """Values up to this share of 65535, opaque."""

    def draw(image):
        values = (
            np.asarray(image.convert({0: "L", 4: "L", 2: "RGB", 6: "RGB"}[colour])).astype(float)
            * 257
            * share
        )
        values = np.atleast_3d(values).astype(np.uint16)
        if colour >= 4:
            values = np.concatenate([values, np.full_like(values[..., :1], 65535)], 2)
        return png_of_16_bits(values, colour)

    return draw


def few_colours(bits, **options):
    return lambda image: file_bytes(image.quantize(2**bits), "PNG", bits=bits, **options)


KINDS = {
    "JPEG": lambda image: file_bytes(image, "JPEG", quality=90),
    "JPEG of full colours": lambda image: file_bytes(image, "JPEG", quality=90, subsampling=0),
    "progressive JPEG": lambda image: file_bytes(image, "JPEG", progressive=True),
    "grey JPEG": lambda image: file_bytes(image.convert("L"), "JPEG"),
    "CMYK JPEG": lambda image: file_bytes(image.convert("CMYK"), "JPEG"),
    "PNG": lambda image: file_bytes(image, "PNG"),
    "transparent PNG": lambda image: file_bytes(transparent(image), "PNG"),
    "grey PNG": lambda image: file_bytes(image.convert("L"), "PNG"),
    "transparent grey PNG": lambda image: file_bytes(transparent(image).convert("LA"), "PNG"),
    "PNG of black and white": lambda image: file_bytes(image.convert("1"), "PNG"),
    "grey PNG of 16 bits": lambda image: file_bytes(grey_of_16_bits(image), "PNG"),
    "grey PNG of 16 bits, one transparent": one_transparent,
    "PNG of 16 bits": of_16_bits(2),
    "opaque PNG of 16 bits": of_16_bits(6),
    "opaque grey PNG of 16 bits": of_16_bits(4),
    "PNG of white on nothing": lambda image: file_bytes(image.convert("1"), "PNG", transparency=0),
    "PNG of 2 colours": few_colours(1),
    "PNG of 16 colours": few_colours(4),
    "PNG of 256 colours": few_colours(8),
    "PNG of 16 colours, one transparent": few_colours(4, transparency=3),
}


@pytest.fixture(scope="module")
def encode():
    """{(image size, fit): a function from the bytes of a file to those of a JPEG, by TensorFlow}."""
    with tf.Graph().as_default(), tf.Session() as session:
        data = tf.placeholder(tf.string, [])
        yield {
            (size, fit): session.make_callable(encoding.encode(data, size, fit), [data])
            for size in (64, None)
            for fit in FITS
        }


@pytest.mark.parametrize(
    "kind, fit",
    [
        pytest.param(kind, fit, marks=[] if fit == "crop" or kind in ("JPEG", "PNG") else pytest.mark.slow)
        for kind in KINDS
        for fit in FITS
    ],
)
def test_the_pixels_are_pillows(encode, kind, fit):
    for size, image_size in [(SIZES[0], None), *((size, 64) for size in SIZES)]:
        data = KINDS[kind](picture(size))
        found, expected = encode[image_size, fit](data), imagefile.encode(data, image_size, fit=fit)
        np.testing.assert_array_equal(pixels(found), pixels(expected), "%s, %s" % (size, image_size))


@pytest.mark.slow
@pytest.mark.parametrize("keep_size", [False, True])
@pytest.mark.parametrize("fit", FITS)
def test_a_saved_model_sees_what_predict_py_sees(graph, fit, keep_size):
    model = types.SimpleNamespace(image_size=64, keep_size=keep_size, fit=fit)
    data, jpeg = tf.placeholder(tf.string, []), tf.placeholder(tf.string, [])
    served, predicted = formats.decode_file(data, model), preprocessing.centre(jpeg, 64, fit)
    with tf.Session() as session:
        for size in ((50, 40), (200, 151), (105, 400)):
            for kind in ("JPEG", "transparent PNG"):
                file = KINDS[kind](picture(size))
                small = imagefile.encode(file, None if keep_size else 64, fit=fit)
                found, expected = session.run([served, predicted], {data: file, jpeg: small})
                np.testing.assert_array_equal(found, expected)


def test_a_small_jpeg_is_passed_on_as_it_is(encode):
    wide, square = (KINDS["JPEG"](picture(size)) for size in ((60, 50), (60, 60)))
    for (size, fit), function in encode.items():
        assert function(square) == square == imagefile.encode(square, size, fit=fit)
        assert (function(wide) == wide) == (imagefile.encode(wide, size, fit=fit) == wide) == (fit == "crop")


@pytest.mark.parametrize("format", ["GIF", "BMP", "WEBP", "TIFF"])
def test_other_formats_are_refused(encode, format):
    data = io.BytesIO()
    picture((80, 80)).save(data, format)
    with pytest.raises(tf.errors.OpError):
        encode[64, "crop"](data.getvalue())


@pytest.mark.parametrize("colour", [0, 2, 4, 6])
def test_16_bits_of_which_12_are_used_are_refused(encode, colour):
    """As by predict.py: nothing says how bright white is. All black is."""
    dark = of_16_bits(colour, 1 / 16.5)(picture((80, 80)))
    with pytest.raises(imagefile.BadPicture, match="only the lowest 12"):
        imagefile.encode(dark, 64)
    with pytest.raises(tf.errors.OpError):
        encode[64, "crop"](dark)
    assert not pixels(encode[64, "crop"](of_16_bits(colour, 0)(picture((80, 80))))).any()


@pytest.mark.parametrize(
    "data", [b"", b"x", encoding.PNG, b"\xff\xd8\xff", KINDS["PNG"](picture((80, 80)))[:-900]]
)
def test_what_is_no_picture_is_refused(encode, data):
    with pytest.raises(tf.errors.OpError):
        encode[64, "crop"](data)
