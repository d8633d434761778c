"""imagefile.encode once more, as a graph: a SavedModel takes files where there is no Python.

Both come to the same pixels, by Pillow's arithmetic in integers: a network's answer can hang on a last bit.
"""

import math

import numpy as np

from suite.pictures.conversion import GREY, MARGIN, MAX_SQUARE
from suite.pictures.imagefile import JPEG_QUALITY
from suite.pictures.opening import PNG
from suite.process.tf_versions import tf

REDUCING_GAP = 2  # averages leave at least this many times the pixels that there shall be, a filter ends it
WEIGHT_BITS = 22  # of Pillow's weights, which are integers
MEAN, SWING = (float(np.float32(each)) for each in (0.54, 0.46))  # of Hamming's window; `f` numbers in C


def encode(data, image_size, fit):
    """The JPEG bytes that imagefile.encode makes of a JPEG or PNG file, scalar string tensors both.

    What a graph cannot see is left out: EXIF orientation and colour profiles.

    Args:
        image_size, fit: as there.
    Raises:
        tf.errors.OpError: when it runs, where the bytes are no such file. Of a damaged JPEG that needs no
            change they are passed on.
    """
    is_png = tf.equal(tf.strings.substr(data, 0, len(PNG)), PNG)

    def from_png():
        return to_jpeg(decode_png(data), image_size, fit)

    return tf.cond(is_png, from_png, lambda: encode_jpeg(data, image_size, fit))


def encode_jpeg(data, image_size, fit):
    """As `encode`, of a JPEG file."""
    *shape, channels = tf.unstack(tf.image.extract_jpeg_shape(data))
    shape = tf.stack(shape)
    wanted = target_size(shape, image_size, fit)
    unchanged = tf.equal(channels, 3) & tf.reduce_all(tf.equal(wanted, tf.cast(shape, tf.float64)))
    if fit != "crop":
        unchanged &= tf.equal(shape[0], shape[1])
    return tf.cond(
        unchanged, lambda: data, lambda: to_jpeg(decode_jpeg(data, shape, wanted), image_size, fit)
    )


def decode_jpeg(data, shape, wanted):
    """uint8 [height, width, 3]; halved by the decoder as far as it may be, like PIL's `draft`."""

    def divided(ratio):
        return lambda: tf.image.decode_jpeg(data, 3, ratio, dct_method="INTEGER_ACCURATE")

    room = tf.reduce_min(shape // tf.maximum(tf.cast(wanted, tf.int32), 1))
    return tf.case([(room >= ratio, divided(ratio)) for ratio in (8, 4, 2)], divided(1))


def decode_png(data):
    """uint8 [height, width, 3], transparency laid on white, 16 bits scaled to 8, as by conversion.to_rgb."""
    header = tf.io.decode_raw(tf.strings.substr(data, 0, 26), tf.uint8)
    depth, is_grey = header[24], tf.equal(header[25], 0)

    def grey_of_16_bits():
        values, opacity = tf.split(tf.cast(tf.image.decode_png(data, 4, tf.uint16), tf.int32), [3, 1], 2)
        values = of_known_white(values, 4096)
        return (tf.where_v2(tf.equal(opacity, 0), 65535, values) + 128) // 257

    def colours_on_white():
        colours, opacity = tf.split(tf.cast(tf.image.decode_png(data, 4), tf.int32), [3, 1], 2)
        colours = of_known_white(colours, tf.where_v2(tf.equal(depth, 16), 16, 0))  # of which 8 are left
        # Pictures of fewer bits without transparency get an opacity of as few bits; in grey Pillow sees that
        # of black alone.
        filler = 2 ** tf.cast(depth, tf.int32) - 1
        is_opaque = tf.reduce_all(tf.equal(opacity, filler))
        opacity = tf.where_v2(tf.logical_and(depth < 8, is_opaque), 255, opacity)
        is_seen = tf.logical_or(opacity > 0, colours[:, :, :1] > 0)
        opacity = tf.where_v2(tf.logical_and(is_grey, depth < 8), 255 * tf.cast(is_seen, tf.int32), opacity)
        return (colours * opacity + 255 * (255 - opacity) + 127) // 255

    pixels = tf.cond(tf.logical_and(is_grey, tf.equal(depth, 16)), grey_of_16_bits, colours_on_white)
    return tf.cast(pixels, tf.uint8)


def of_known_white(values, black):
    """The values, int32; fails where conversion.check_depth would refuse them.

    Args:
        black: all values are below it, unless there are others than 0 from it on.
    """
    brightest = tf.reduce_max(values)
    is_known = tf.logical_or(tf.equal(brightest, 0), brightest >= black)
    with tf.control_dependencies([tf.debugging.Assert(is_known, [brightest])]):
        return tf.identity(values)


def to_jpeg(pixels, image_size, fit):
    """JPEG bytes of uint8 [height, width, 3], of the size that imagefile.load_and_encode gives them."""
    shape = tf.shape(pixels)[:2]
    size = tf.maximum(tf.cast(tf.round(target_size(shape, image_size, fit)), tf.int32), 1)
    is_done = tf.reduce_all(tf.equal(size, shape))
    pixels = tf.cond(is_done, lambda: pixels, lambda: resize(pixels, size))
    if fit == "pad":
        pixels = pad(pixels)
    return tf.image.encode_jpeg(pixels, "rgb", quality=JPEG_QUALITY, chroma_downsampling=False)


# --- conversion's functions of these names ----------------------------------------


def target_size(shape, image_size, fit):
    """float64 [2] of int32 [height, width]."""
    shape = tf.cast(shape, tf.float64)
    if fit == "crop":
        shorter = round(image_size * MARGIN) if image_size else np.inf
        return shape * tf.minimum(shorter / tf.reduce_min(shape), 1)
    longer = tf.reduce_max(shape)
    side = tf.minimum(longer, image_size or MAX_SQUARE)
    return tf.stack([side, side]) if fit == "squash" else shape * (side / longer)


def pad(pixels):
    """uint8 [side, side, 3] of uint8 [height, width, 3]."""
    shape = tf.shape(pixels)[:2]
    room = tf.reduce_max(shape) - shape
    margins = tf.stack([room // 2, room - room // 2], 1)
    return tf.pad(pixels, tf.concat([margins, [[0, 0]]], 0), constant_values=GREY)


def resize(pixels, size):
    """uint8 [*size, 3] of uint8 [height, width, 3], by averages of whole pixels and then Hamming's filter."""
    shape = tf.shape(pixels)[:2]
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
    offsets = (tf.range(tf.cast(length, tf.float64)) + 0.5 - centres[:, tf.newaxis]) / tf.maximum(step, 1)
    angles = offsets * math.pi
    weights = tf.sin(angles) / angles * (MEAN + SWING * tf.cos(angles))
    weights = tf.where_v2(tf.equal(offsets, 0), tf.ones_like(weights), weights)
    weights = tf.where_v2(tf.abs(offsets) < 1, weights, tf.zeros_like(weights))
    return tf.floor(weights / tf.reduce_sum(weights, 1, keepdims=True) * 2**WEIGHT_BITS + 0.5)
