"""imagefile.encode once more, as a graph: a SavedModel takes files where there is no Python.

Both come to the same pixels, by Pillow's arithmetic in integers: a network's answer can hang on a last bit.
"""

import math

import numpy as np

from suite.pictures.imagefile import JPEG_QUALITY, MARGIN, PNG
from suite.process.tf_versions import tf

REDUCING_GAP = 2  # averages leave at least this many times the pixels that there shall be, a filter ends it
WEIGHT_BITS = 22  # of Pillow's weights, which are integers
MEAN, SWING = (float(np.float32(each)) for each in (0.54, 0.46))  # of Hamming's window; `f` numbers in C


def encode(data, image_size):
    """The JPEG bytes that imagefile.encode makes of a JPEG or PNG file, scalar string tensors both.

    What a graph cannot see is left out: EXIF orientation and colour profiles.

    Args:
        image_size: as there; None keeps any size.
    Raises:
        tf.errors.OpError: when it runs, where the bytes are no such file. Of a damaged JPEG that needs no
            change they are passed on.
    """
    shorter = round(image_size * MARGIN) if image_size else None
    is_png = tf.equal(tf.strings.substr(data, 0, len(PNG)), PNG)
    return tf.cond(is_png, lambda: to_jpeg(decode_png(data), shorter), lambda: encode_jpeg(data, shorter))


def encode_jpeg(data, shorter):
    """As `encode`, of a JPEG file; `shorter` is the side to reduce to, or None."""
    shape = tf.image.extract_jpeg_shape(data)
    fits = tf.reduce_min(shape[:2]) <= shorter if shorter else True
    unchanged = tf.logical_and(fits, tf.equal(shape[2], 3))
    return tf.cond(unchanged, lambda: data, lambda: to_jpeg(decode_jpeg(data, shape[:2], shorter), shorter))


def decode_jpeg(data, shape, shorter):
    """uint8 [height, width, 3]; halved by the decoder as far as it may be, like PIL's `draft`."""

    def divided(ratio):
        return lambda: tf.image.decode_jpeg(data, 3, ratio, dct_method="INTEGER_ACCURATE")

    if not shorter:
        return divided(1)()
    wanted = tf.maximum(tf.cast(tf.cast(shape, tf.float64) * scale(shape, shorter), tf.int32), 1)
    room = tf.reduce_min(shape // wanted)
    return tf.case([(room >= ratio, divided(ratio)) for ratio in (8, 4, 2)], divided(1))


def decode_png(data):
    """uint8 [height, width, 3], transparency laid on white, 16 bits scaled to 8, as by imagefile.to_rgb."""
    header = tf.io.decode_raw(tf.strings.substr(data, 0, 26), tf.uint8)
    depth, is_grey = header[24], tf.equal(header[25], 0)

    def grey_of_16_bits():
        values, opacity = tf.split(tf.cast(tf.image.decode_png(data, 4, tf.uint16), tf.int32), [3, 1], 2)
        return (tf.where_v2(tf.equal(opacity, 0), 65535, values) + 128) // 257

    def colours_on_white():
        colours, opacity = tf.split(tf.cast(tf.image.decode_png(data, 4), tf.int32), [3, 1], 2)
        # Pictures of fewer bits without transparency get an opacity of as few bits; Pillow sees none in grey.
        filler = 2 ** tf.cast(depth, tf.int32) - 1
        is_opaque = tf.logical_or(is_grey, tf.reduce_all(tf.equal(opacity, filler)))
        opacity = tf.where_v2(tf.logical_and(depth < 8, is_opaque), 255, opacity)
        return (colours * opacity + 255 * (255 - opacity) + 127) // 255

    pixels = tf.cond(tf.logical_and(is_grey, tf.equal(depth, 16)), grey_of_16_bits, colours_on_white)
    return tf.cast(pixels, tf.uint8)


def to_jpeg(pixels, shorter):
    """JPEG bytes of uint8 [height, width, 3], reduced as imagefile.load_and_encode does."""
    if shorter:
        is_larger = tf.reduce_min(tf.shape(pixels)[:2]) > shorter
        pixels = tf.cond(is_larger, lambda: reduce(pixels, shorter), lambda: pixels)
    return tf.image.encode_jpeg(pixels, "rgb", quality=JPEG_QUALITY, chroma_downsampling=False)


# --- imagefile.reduce ----------------------------------------


def scale(shape, shorter):
    """What makes the shorter side of int32 [height, width] `shorter`, at most 1; float64."""
    return tf.minimum(shorter / tf.cast(tf.reduce_min(shape), tf.float64), 1)


def reduce(pixels, shorter):
    """uint8 [height, width, 3] made smaller, by averages of whole pixels first and then Hamming's filter."""
    shape = tf.shape(pixels)[:2]
    size = tf.cast(tf.round(tf.cast(shape, tf.float64) * scale(shape, shorter)), tf.int32)
    size = tf.maximum(size, shorter)
    factors = tf.maximum(shape // size // REDUCING_GAP, 1)
    pixels = tf.cast(averages(pixels, factors), tf.float64)
    extent = tf.cast(tf.cast(shape / factors, tf.float32), tf.float64)  # Pillow hands it on as float32
    for axis in (1, 0):  # each time the second axis becomes the first
        weights = hamming(tf.shape(pixels)[1], extent[axis], size[axis])
        pixels = tf.tensordot(weights, pixels, [[1], [1]])
        pixels = tf.clip_by_value(tf.floor(pixels / 2**WEIGHT_BITS + 0.5), 0, 255)
    return tf.cast(pixels, tf.uint8)


def averages(pixels, factors):
    """int64 [ceil(height / factors[0]), ceil(width / factors[1]), 3], of uint8 [height, width, 3]."""
    shape = tf.shape(pixels)[:2]
    blocks = -(-shape // factors)
    rest = blocks * factors - shape
    pixels = tf.pad(tf.cast(pixels, tf.int32), [[0, rest[0]], [0, rest[1]], [0, 0]])
    sums = tf.reduce_sum(tf.reshape(pixels, [blocks[0], factors[0], blocks[1], factors[1], 3]), [1, 3])
    rows, columns = (tf.minimum(factors[i], shape[i] - factors[i] * tf.range(blocks[i])) for i in (0, 1))
    count = tf.cast(rows[:, tf.newaxis, tf.newaxis] * columns[:, tf.newaxis], tf.int64)
    return (tf.cast(sums, tf.int64) + count // 2) * (2**24 // count) // 2**24


def hamming(length, extent, size):
    """Weights that make `size` pixels of `length`, in units of 2**-WEIGHT_BITS; float64 [size, length].

    Args:
        extent: how many of the `length` pixels the picture covers, float64; it may end within the last one.
    """
    step = extent / tf.cast(size, tf.float64)
    centres = (tf.range(tf.cast(size, tf.float64)) + 0.5) * step
    offsets = (tf.range(tf.cast(length, tf.float64)) + 0.5 - centres[:, tf.newaxis]) / step
    angles = offsets * math.pi
    weights = tf.sin(angles) / angles * (MEAN + SWING * tf.cos(angles))
    weights = tf.where_v2(tf.equal(offsets, 0), tf.ones_like(weights), weights)
    weights = tf.where_v2(tf.abs(offsets) < 1, weights, tf.zeros_like(weights))
    return tf.floor(weights / tf.reduce_sum(weights, 1, keepdims=True) * 2**WEIGHT_BITS + 0.5)
