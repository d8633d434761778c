"""Gradients of convolutions that are quick on the CPU; the numbers are the same.

TensorFlow 1.15's own CPU kernels for these gradients go picture by picture and copy much. Its kernels for
a convolution and for a matrix product come close to what the processor can do, and the gradients can be
written as those. benchmarks/README.md says what it gains.
"""

from suite.process.tf_versions import tf

NAME = "QuickOnCPU"


def instead():
    """A context in which the default graph's convolutions, in NHWC, get these gradients."""
    return tf.get_default_graph().gradient_override_map({"Conv2D": NAME})


@tf.RegisterGradient(NAME)
def gradients(convolution, upstream):
    """With respect to the input and to the kernel of a tf.nn.conv2d in NHWC, as tf.gradients asks for.

    Args:
        convolution: an operation of type Conv2D, its padding "SAME" or "VALID", the former with stride 1
            and a kernel of odd size only.
        upstream: float32 [batch, height, width, outputs], the gradient with respect to its result.
    Returns:
        float32 tensors of the input's and of the kernel's shape.
    """
    data, kernel = convolution.inputs
    stride, padding = convolution.get_attr("strides")[1], convolution.get_attr("padding").decode()
    size, _, depth, _ = kernel.shape.as_list()
    if stride > 1:
        strides = [1, stride, stride, 1]
        by_data = tf.nn.conv2d_backprop_input(tf.shape(data), kernel, upstream, strides, padding)
        if depth > 3:  # of the convolutions with a stride only the stem gains by another one
            return by_data, tf.nn.conv2d_backprop_filter(data, kernel.shape, upstream, strides, padding)
        return by_data, by_kernel(data, upstream, size, stride)
    if size == 1:
        return by_product(data, kernel, upstream)
    turned = tf.transpose(tf.reverse(kernel, [0, 1]), [0, 1, 3, 2])
    before, after = (size - 1) // 2, size // 2
    padded = tf.pad(data, [[0, 0], [before, after], [before, after], [0, 0]])
    return tf.nn.conv2d(upstream, turned, 1, "SAME"), by_kernel(padded, upstream, size, 1)


def by_kernel(padded, upstream, size, stride):
    """With respect to the kernel: convolve each input channel by the gradient of each output channel.

    The batch takes the place of the channels, which a convolution sums over.

    Args:
        padded: float32 [batch, height, width, channels], what the kernel went over.
        upstream: float32 [batch, height, width, outputs].
        size, stride: the convolution's.
    Returns:
        float32 [size, size, channels, outputs].
    """
    channels_first = tf.transpose(padded, [3, 1, 2, 0])
    windows = tf.transpose(upstream, [1, 2, 0, 3])
    found = tf.nn.conv2d(channels_first, windows, 1, "VALID", dilations=stride)
    return tf.transpose(found[:, :size, :size], [1, 2, 0, 3])


def by_product(data, kernel, upstream):
    """Both of a 1x1 convolution with stride 1: matrix products over all positions of all pictures.

    Args:
        data: float32 [batch, height, width, channels].
        kernel: float32 [1, 1, channels, outputs].
        upstream: float32 [batch, height, width, outputs].
    Returns:
        Those of the shapes of `data` and of `kernel`.
    """
    depth, outputs = kernel.shape.as_list()[2:]
    rows, upstream_rows = tf.reshape(data, [-1, depth]), tf.reshape(upstream, [-1, outputs])
    by_data = tf.matmul(upstream_rows, kernel[0, 0], transpose_b=True)
    by_kernel = tf.matmul(rows, upstream_rows, transpose_a=True)
    return tf.reshape(by_data, tf.shape(data)), tf.reshape(by_kernel, kernel.shape)
