"""The one way from a picture to the network's input: JPEG bytes, as imagefile.encode made them, to pixels.

Two lists of steps: training sees a random view, everything else `preprocess_for_evaluation`.
"""

import math

from suite.pictures.imagefile import MARGIN
from suite.process.tf_versions import tf


def preprocess_for_evaluation(jpeg, image_size, normalize_as, fit="crop"):
    """The network's view of a picture when it is not training: the centre, or the whole.

    Args:
        jpeg: scalar string tensor, what imagefile.encode returned.
        image_size: the centre square of this many pixels is taken; of a picture that is larger than
            `encode` makes them, the same share; a smaller picture is taken whole and enlarged.
        normalize_as: see `normalize`.
        fit: what `encode` was given. But for "crop" its square is taken whole, whatever its size.
    Returns:
        float32 [image_size, image_size, 3].
    Raises:
        tf.errors.InvalidArgumentError: when it runs, where the bytes are no JPEG.
    """
    return normalize(centre(jpeg, image_size, fit), normalize_as)


def preprocess_for_training(jpeg, image_size, normalize_as, augment, seed, mirrored=None, fit="crop"):
    """A random view of a picture. As `preprocess_for_evaluation`, and:

    Args:
        augment: "none": no other view than that. "flip": a random position, as far as the picture is larger
            than the network's view, mirrored half of the time. "standard": a random quarter to whole of the
            picture, or less where that does not fit, 3:4 to 4:3 and squeezed into a square (Szegedy et al.
            2014, who go down to 8%), mirrored half of the time, up to 32 of 255 lighter or darker, with
            0.8 to 1.25 times the contrast and the saturation.
        seed: int64 [2]; the same seed gives the same view.
        mirrored: a bool tensor that decides this in place of the seed.
    """
    if augment == "none":
        return preprocess_for_evaluation(jpeg, image_size, normalize_as, fit)
    random = tf.unstack(tf.random.stateless_uniform([8], seed))

    def between(low, high):
        return low + random.pop() * (high - low)

    shape = tf.image.extract_jpeg_shape(jpeg)[:2]
    if augment == "flip":
        size = tf.stack([crop_side(shape, image_size, fit)] * 2)
    else:
        size = random_rectangle(shape, between)
    pixels = decode_window(jpeg, random_offset(shape, size, between), size)
    pixels = resize(pixels, image_size)
    pixels = mirror(pixels, between, mirrored)
    if augment == "standard":
        pixels = recolour(pixels, between)
    return normalize(pixels, normalize_as)


# --- the steps ----------------------------------------


def centre(jpeg, image_size, fit):
    """The square that `preprocess_for_evaluation` takes, float32 [image_size, image_size, 3] of 0..255."""
    shape = tf.image.extract_jpeg_shape(jpeg)[:2]
    side = crop_side(shape, image_size, fit)
    pixels = decode_window(jpeg, (shape - side) // 2, tf.stack([side, side]))
    return resize(pixels, image_size)


def crop_side(shape, image_size, fit):
    """The side of the square that is looked at, of a picture's shape, int32 [height, width]; int32."""
    shorter = tf.reduce_min(shape)
    if fit != "crop":
        return shorter
    share = tf.cast(tf.round(tf.cast(shorter, tf.float32) / MARGIN), tf.int32)
    return tf.minimum(shorter, tf.maximum(image_size, share))


def dropped_share(width, height, image_size):
    """The share of the area of an encoded picture, of so many pixels, that "crop" leaves out; a float."""
    shorter = min(width, height)
    side = min(shorter, max(image_size, shorter / MARGIN))  # that of `crop_side`
    return 1 - side**2 / (width * height)


def random_rectangle(shape, between):
    """A random quarter to whole of a picture, 3:4 to 4:3, as far as it fits; int32 [height, width]."""
    shape = tf.cast(shape, tf.float32)
    area = tf.reduce_prod(shape) * between(0.25, 1)
    aspect = tf.exp(between(math.log(3 / 4), math.log(4 / 3)))
    size = tf.sqrt(tf.stack([area / aspect, area * aspect]))
    size = tf.maximum(1.0, tf.floor(size * tf.minimum(1.0, tf.reduce_min(shape / size))))
    return tf.cast(size, tf.int32)


def random_offset(shape, size, between):
    """Where a window of `size` lies in a picture of `shape`, int32 [2] each, down and across; int32 [2]."""
    room = tf.cast(shape - size + 1, tf.float32)
    return tf.cast(tf.floor(room * tf.stack([between(0, 1), between(0, 1)])), tf.int32)


def decode_window(jpeg, offset, size):
    """uint8 [height, width, 3]: the window at `offset` of `size`, int32 [2] each, down and across."""
    window = tf.concat([offset, size], 0)
    return tf.image.decode_and_crop_jpeg(jpeg, window, channels=3, dct_method="INTEGER_ACCURATE")


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


def mirror(pixels, between, mirrored=None):
    """Left to right, half of the time, or where the bool tensor `mirrored` says so."""
    by_chance = between(0, 1) < 0.5
    return tf.cond(
        by_chance if mirrored is None else mirrored, lambda: tf.reverse(pixels, [1]), lambda: pixels
    )


def recolour(pixels, between):
    """Up to 32 of 255 lighter or darker, with 0.8 to 1.25 times the contrast and the saturation."""
    pixels += between(-32, 32)
    pixels = tf.image.adjust_contrast(pixels, between(0.8, 1.25))
    pixels = tf.image.adjust_saturation(pixels, between(0.8, 1.25))
    return tf.clip_by_value(pixels, 0, 255)


def normalize(pixels, normalize_as):
    """Scale pixels of 0..255, float32 [..., height, width, 3]; the shape stays.

    Args:
        normalize_as: "per_image": each picture to mean 0 and deviation 1, as in the article; "minus1_1": all
            to -1..1, as in TF-Slim.
    """
    if normalize_as == "minus1_1":
        return pixels / 127.5 - 1
    return tf.image.per_image_standardization(pixels)
