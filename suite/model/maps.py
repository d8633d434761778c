"""Where the network looked: the map of each class, what an answer's is ahead by, and how that is drawn."""

import itertools

import numpy as np

from suite.model.network import complete
from suite.process import device
from suite.process.tf_versions import tf

# By stem, in pixels of the input: where the first position of a map lies, and how far it is to the next,
# so 2, 34, 66, ... or 0, 8, 16, ...
PLACES = {"article": (2, 32), "small": (0, 8)}
POINTS = 32  # down and across, of what is drawn of a map
FINE = 4  # fewer positions of a map, down and across, are too coarse to say where


def features_and_maps(data_format=None):
    """What the network that `build_logits` built on the default graph goes by, and where it looked.

    Args:
        data_format: the one that `build_logits` was given.
    Returns:
        float32 features [batch, channels], the means of the last activations; and float32 maps [batch, h, w,
        classes]: the classifier at each of their positions. Mean, then a linear classifier, is the same as a
        linear classifier, then the mean: over h and w a map's mean is the logit (Zhou et al. 2015, "Learning
        Deep Features for Discriminative Localization").
    """
    activations = tf.get_default_graph().get_tensor_by_name("resnet/activations:0")
    if (data_format or device.data_format()) == "NCHW":
        activations = tf.transpose(activations, [0, 2, 3, 1])
    kernel, bias = tf.trainable_variables("logits/")
    kernel = tf.reshape(kernel, [1, 1, *kernel.shape[-2:]])
    maps = tf.nn.bias_add(tf.nn.conv2d(activations, kernel, 1, "SAME"), bias)
    return tf.reduce_mean(activations, [1, 2]), maps


def lead(maps, answers):
    """What speaks for an answer at each place: what its map is ahead of all other classes' by there.

    What a map holds for all classes alike says nothing; benchmarks/understanding.md has what that changes.

    Args:
        maps: float [n, h, w, classes], see `features_and_maps`; of two classes or more.
        answers: int64 [n].
    Returns:
        Float [n, h, w].
    """
    answers = np.reshape(answers, [-1, 1, 1, 1])
    own = np.take_along_axis(maps, answers, 3)[..., 0]
    return own - np.where(np.arange(maps.shape[3]) == answers, -np.inf, maps).max(3)


def spread(values, model):
    """A map of a model's, linearly between its positions, all over what was seen.

    Args:
        values: float [h, h].
    Returns:
        float [POINTS, POINTS].
    """
    first, distance = PLACES[complete(model.network)["stem"]]
    positions = first + distance * np.arange(len(values))
    points = (np.arange(POINTS) + 0.5) * model.image_size / POINTS
    weights = np.stack([np.interp(points, positions, row) for row in np.eye(len(values))], 1)
    return weights @ values @ weights.T


def finer_from(model):
    """The --image_size from which on a model's maps have FINE x FINE positions; None where they have."""

    def positions(size):
        if complete(model.network)["stem"] == "article":
            size = -(-size // 2)  # the first convolution's
            size = -(-size // 2) if model.network.get("preactivation") else (size - 1) // 2  # and its pool's
        return -(-size // 8)

    if positions(model.image_size) >= FINE:
        return None
    return next(size for size in itertools.count(model.image_size) if positions(size) >= FINE)
