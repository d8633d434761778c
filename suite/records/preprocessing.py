"""The one preprocessing: JPEG bytes, as imagefile.encode made them, to the network's input.

train.py, evaluate.py, predict.py and export.py all look at pictures through `decode`.
"""

import math

from suite.pictures.imagefile import MARGIN
from suite.process.tf_versions import tf


def decode(jpeg, image_size, normalize_as):
    """The network's view of a picture when it is not training: the centre, undistorted.

    Args:
        jpeg: scalar string tensor, what imagefile.encode returned.
        image_size: the centre square of this many pixels is taken; of a picture that is larger than
            `encode` makes them, the same share; a smaller picture is taken whole and enlarged.
        normalize_as: see `normalize`.
    Returns:
        float32 [image_size, image_size, 3].
    Raises:
        tf.errors.InvalidArgumentError: when it runs, where the bytes are no JPEG.
    """
    shape = tf.image.extract_jpeg_shape(jpeg)[:2]
    side = crop_side(shape, image_size)
    return normalize(
        crop_and_resize(jpeg, (shape - side) // 2, tf.stack([side, side]), image_size), normalize_as
    )


def decode_augmented(jpeg, image_size, normalize_as, augment, seed, mirrored=None):
    """A random view of a picture, for training. As `decode`, and:

    Args:
        augment: "none": as `decode`. "flip": a random position, as far as the picture is larger than
            the network's view, mirrored half of the time. "standard": a random quarter to whole of the
            picture, or less where that does not fit, 3:4 to 4:3 and squeezed into a square (Szegedy et al.
            2014, who go down to 8%), mirrored half of the time, up to 32 of 255 lighter or darker, with
            0.8 to 1.25 times the contrast and the saturation.
        seed: int64 [2]; the same seed gives the same view.
        mirrored: a bool tensor that decides this in place of the seed.
    """
    if augment == "none":
        return decode(jpeg, image_size, normalize_as)
    shape = tf.cast(tf.image.extract_jpeg_shape(jpeg)[:2], tf.float32)
    random = tf.unstack(tf.random.stateless_uniform([8], seed))

    def between(low, high):
        return low + random.pop() * (high - low)

    if augment == "flip":
        side = tf.cast(crop_side(tf.cast(shape, tf.int32), image_size), tf.float32)
        size = tf.stack([side, side])
    else:
        area = tf.reduce_prod(shape) * between(0.25, 1)
        aspect = tf.exp(between(math.log(3 / 4), math.log(4 / 3)))
        size = tf.sqrt(tf.stack([area / aspect, area * aspect]))
        size = tf.maximum(1.0, tf.floor(size * tf.minimum(1.0, tf.reduce_min(shape / size))))
    offset = tf.floor((shape - size + 1) * tf.stack([between(0, 1), between(0, 1)]))
    pixels = crop_and_resize(jpeg, tf.cast(offset, tf.int32), tf.cast(size, tf.int32), image_size)
    by_seed = between(0, 1) < 0.5
    mirrored = by_seed if mirrored is None else mirrored
    pixels = tf.cond(mirrored, lambda: tf.reverse(pixels, [1]), lambda: pixels)
    if augment == "standard":
        pixels += between(-32, 32)
        pixels = tf.image.adjust_contrast(pixels, between(0.8, 1.25))
        pixels = tf.image.adjust_saturation(pixels, between(0.8, 1.25))
        pixels = tf.clip_by_value(pixels, 0, 255)
    return normalize(pixels, normalize_as)


def crop_side(shape, image_size):
    """The side of the square that `decode` takes, of a picture's shape, int32 [height, width]; int32."""
    shorter = tf.reduce_min(shape)
    share = tf.cast(tf.round(tf.cast(shorter, tf.float32) / MARGIN), tf.int32)
    return tf.minimum(shorter, tf.maximum(image_size, share))


def crop_and_resize(jpeg, offset, size, image_size):
    """Decode only the window at `offset` of `size`, int32 [2] each, down and across; see `resize`."""
    window = tf.concat([offset, size], 0)
    pixels = tf.image.decode_and_crop_jpeg(jpeg, window, channels=3, dct_method="INTEGER_ACCURATE")
    return resize(pixels, image_size)


def resize(pixels, image_size):
    """Pixels [height, width, 3] of 0..255 to float32 [image_size, image_size, 3] of the same range."""
    pixels, target = pixels[tf.newaxis], [image_size, image_size]
    # Bilinear sampling passes over pixels from half the size on: the records were made for larger ones.
    pixels = tf.cond(
        tf.reduce_max(tf.shape(pixels)[1:3]) > 2 * image_size,
        lambda: tf.image.resize_area(pixels, target),
        lambda: tf.image.resize_bilinear(pixels, target, half_pixel_centers=True),
    )
    return pixels[0]


def normalize(pixels, normalize_as):
    """Scale pixels of 0..255, float32 [..., height, width, 3]; the shape stays.

    Args:
        normalize_as: "per_image": each picture to mean 0 and deviation 1, as in the article; "minus1_1": all
            to -1..1, as in TF-Slim.
    """
    if normalize_as == "minus1_1":
        return pixels / 127.5 - 1
    return tf.image.per_image_standardization(pixels)
