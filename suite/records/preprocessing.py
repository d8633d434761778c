"""The one way from a picture to the network's input: JPEG bytes, as imagefile.encode made them, to pixels.

Two lists of steps. Everything but training sees `preprocess_for_evaluation`. Training sees a random view: the
CPU decodes that part of the picture (`decode_view`), and a GPU that trains does the rest for a whole batch
(`finish_views`), so that it is sent bytes, a quarter of the size of what the network sees. On a CPU nothing
travels, and each picture is finished by itself (`finish_view`), while it is in the processor's cache.
"""

import functools
import math

from suite.pictures.conversion import MARGIN
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


def decode_view(jpeg, image_size, augment, seed, fit="crop", keep_size=True):
    """The part of a picture that one training step sees, and what is to be done to it. Runs on the CPU.

    Args: as `preprocess_for_evaluation`, and:
        augment: "none": no other view than that. "flip": a random position, as far as the picture is larger
            than the network's view, mirrored half of the time. "standard": a random quarter to whole of the
            picture, or less where that does not fit, 3:4 to 4:3 and squeezed into a square (Szegedy et al.
            2014, who go down to 8%), mirrored half of the time, up to 32 of 255 lighter or darker, with
            0.8 to 1.25 times the contrast and the saturation.
        seed: int64 [2]; the same seed gives the same view.
        keep_size: whether pictures may be far larger than `image_size`, and are decoded more coarsely then.
    Returns:
        {"image": uint8 [image_size, image_size, 3]}, with "mirrored", bool [], where it is augmented, and
        with "colours" where it is so as "standard", see `recolour`.
    """
    shape = tf.image.extract_jpeg_shape(jpeg)[:2]
    side = crop_side(shape, image_size, fit)
    size = tf.stack([side, side])
    if augment == "none":
        return {"image": resize_bytes(decode_window(jpeg, (shape - side) // 2, size), image_size)}
    random = tf.unstack(tf.random.stateless_uniform([8], seed))

    def between(low, high):
        return low + random.pop() * (high - low)

    if augment == "standard":
        size = random_rectangle(shape, between)
    decode = functools.partial(decode_coarsely, image_size=image_size) if keep_size else decode_window
    window = decode(jpeg, random_offset(shape, size, between), size)
    view = {"image": resize_bytes(window, image_size), "mirrored": between(0, 1) < 0.5}
    if augment == "standard":
        view["colours"] = tf.stack([between(-32, 32), between(0.8, 1.25), between(0.8, 1.25)])
    return view


def finish_view(view, normalize_as):
    """What is left to do for what `decode_view` returned; float32 [image_size, image_size, 3]."""
    pixels = view["image"]
    if "mirrored" in view:
        pixels = tf.cond(view["mirrored"], lambda: tf.reverse(view["image"], [1]), lambda: view["image"])
    pixels = tf.cast(pixels, tf.float32)
    if "colours" in view:
        lighter, contrast, saturation = tf.unstack(view["colours"])
        pixels = tf.clip_by_value(tf.image.adjust_contrast(pixels + lighter, contrast), 0, 255)
        pixels = tf.image.adjust_saturation(pixels, saturation)
    return normalize(pixels, normalize_as)


def finish_views(views, normalize_as):
    """The same for a batch, in few operations, on a GPU.

    Args:
        views: a dict of what `decode_view` returned, each with one dimension more, [batch, ...], before it.
        normalize_as: see `normalize`.
    Returns:
        float32 [batch, image_size, image_size, 3].
    """
    pixels = tf.cast(views["image"], tf.float32)
    if "mirrored" in views:
        pixels = tf.where(views["mirrored"], tf.reverse(pixels, [2]), pixels)
    if "colours" in views:
        pixels = recolour(pixels, views["colours"])
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
    return 1 - cropped(width, height, image_size) ** 2 / (width * height)


def cropped(width, height, image_size):
    """What `crop_side` gives for "crop", before it is rounded; a float."""
    shorter = min(width, height)
    return min(shorter, max(image_size, shorter / MARGIN))


def seen(size, encoded, image_size, fit):
    """Where the network's view lies on a picture that was not encoded for it.

    Args:
        size, encoded: (width, height) of the picture, and of what `encode` makes of it.
    Returns:
        Left, top, right and bottom in the picture's pixels, floats; with "pad" these may lie outside.
    """
    width, height = size
    if fit == "squash":
        return 0, 0, width, height
    side = max(size) if fit == "pad" else cropped(*encoded, image_size) * min(size) / min(encoded)
    return (width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2


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


def decode_window(jpeg, offset, size, ratio=1):
    """uint8 [height, width, 3]: the window at `offset` of `size`, int32 [2] each, down and across.

    Args:
        ratio: 1, 2, 4 or 8: so many times smaller, which JPEG's transform gives for less than the whole.
    """
    window = tf.concat([offset, size], 0) // ratio
    return tf.image.decode_and_crop_jpeg(jpeg, window, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE")


def decode_coarsely(jpeg, offset, size, image_size):
    """`decode_window` at the smallest scale at which both sides still have `image_size` pixels."""
    enough = tf.reduce_min(size) // image_size

    def at(ratio):
        return enough >= ratio, lambda: decode_window(jpeg, offset, size, ratio)

    return tf.case([at(8), at(4), at(2)], lambda: decode_window(jpeg, offset, size))


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


def resize_bytes(pixels, image_size):
    """`resize`, rounded to uint8 [image_size, image_size, 3]; pixels that fit stay as they are."""
    fits = tf.reduce_all(tf.equal(tf.shape(pixels)[:2], image_size))
    pixels = tf.cond(fits, lambda: pixels, lambda: tf.cast(tf.round(resize(pixels, image_size)), tf.uint8))
    pixels.set_shape([image_size, image_size, 3])
    return pixels


def recolour(pixels, colours):
    """Other light and colours for each picture of a batch, float32 [batch, height, width, 3] of 0..255.

    As tf.image.adjust_contrast and adjust_saturation do in `finish_view`; they take one number for a batch.

    Args:
        colours: float32 [batch, 3]: how much lighter, of 255; times the contrast; times the saturation.
    """
    lighter, contrast, saturation = tf.unstack(colours[:, :, tf.newaxis, tf.newaxis, tf.newaxis], axis=1)
    pixels += lighter
    mean = tf.reduce_mean(pixels, [1, 2], keepdims=True)
    pixels = tf.clip_by_value((pixels - mean) * contrast + mean, 0, 255)
    # In HSV: the largest channel stays, the others come nearer to it or go away from it, down to 0 at most.
    largest, smallest = (reduce(pixels, -1, keepdims=True) for reduce in (tf.reduce_max, tf.reduce_min))
    farthest = largest / tf.maximum(largest - smallest, 1e-3)
    return tf.maximum(0.0, largest - (largest - pixels) * tf.minimum(saturation, farthest))


def normalize(pixels, normalize_as):
    """Scale pixels of 0..255, float32 [..., height, width, 3]; the shape stays.

    Args:
        normalize_as: "per_image": each picture to mean 0 and deviation 1, as in the article; "minus1_1": all
            to -1..1, as in TF-Slim.
    """
    if normalize_as == "minus1_1":
        return pixels / 127.5 - 1
    return tf.image.per_image_standardization(pixels)
