"""Draw the pictures of walkthrough.md from the graph that resnet.py builds.

    python docs/draw_network.py

Writes network.svg, bottlenecks.svg and pieces.svg beside this file. Every shape, count and value in them is
read from the graph or computed by it; tests/test_papers.py compares them with what is drawn anew.
"""

import collections
import os
import sys

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # has to be there when TensorFlow is imported

import tensorflow.compat.v1 as tf

import resnet

SIZE, CLASSES = 224, 1000
INK, FAINT, LINE, PAPER = "#1c1d1f", "#6a6d72", "#b9bbb7", "#fdfdfc"
BLUE, GREEN, GREY = "#dbe6f7", "#d9efe3", "#ecece8"

# One tensor of the network. name: in the graph; made_by: what makes it of the one before; shape: [height,
# width, channels] or [classes]; parameters, multiply_adds: of what makes it.
Stage = collections.namedtuple("Stage", "name made_by shape parameters multiply_adds")


def main():
    tf.logging.set_verbosity(tf.logging.FATAL)
    for name, text in draw().items():
        with open(os.path.join(HERE, name), "w", encoding="utf-8") as file:
            file.write(text)
        print(os.path.join(HERE, name))


def draw():
    """{file name: SVG text}"""
    return {
        "network.svg": draw_network(stages(50)),
        "bottlenecks.svg": draw_bottlenecks(
            [
                ("shortcut: depthFilling", bottleneck_paths("zero_pad", "resnet/group_1/bottleneck_1")),
                ("shortcut: sampling", bottleneck_paths("zero_pad", "resnet/group_1/bottleneck_3")),
                (
                    "--shortcut projection",
                    bottleneck_paths("projection", "resnet/group_1/bottleneck_1"),
                ),
            ]
        ),
        "pieces.svg": draw_pieces(*pieces()),
    }


# --- what the graph says ----------------------------------------


def build(layers, shortcut="zero_pad"):
    """The graph of a network for SIZE pixels and CLASSES classes."""
    with tf.Graph().as_default() as graph:
        images = tf.placeholder(tf.float32, [None, SIZE, SIZE, 3], "images")
        demos = resnet.ResNet_demo["layer_%d" % layers]
        resnet.inference(images, demos, CLASSES, is_train=False, shortcut=shortcut)
    return graph


def stages(layers):
    """The Stages of a network, from the pictures to the logits."""
    graph = build(layers)
    with graph.as_default():
        variables = tf.trainable_variables()
    found = [Stage("images", "", shape_of(graph.get_tensor_by_name("images:0")), 0, 0)]
    names = ["conv_1_out", "pool_1", *("resnet/group_%d" % number for number in (1, 2, 3, 4))]
    for name in [*names, "resnet/features", "logits_out"]:
        shape = shape_of(graph.get_tensor_by_name(name + ":0"))
        prefix = {"conv_1_out": "conv_1/", "resnet/features": "resnet/batch_norm/", "logits_out": "logits/"}
        scope = prefix.get(name, name + "/")
        parameters = sum(v.shape.num_elements() for v in variables if v.name.startswith(scope))
        convolutions = [op for op in graph.get_operations() if op.name.startswith(scope)]
        downsamples = shape[0] < found[-1].shape[0]
        made_by = describe(graph, name, scope, downsamples)
        found.append(Stage(name, made_by, shape, parameters, sum(map(multiply_adds, convolutions))))
    return found


def describe(graph, name, scope, downsamples):
    """What makes a stage, in words that every language of the field shares."""
    operations = [op for op in graph.get_operations() if op.name.startswith(scope)]
    kernels = [op.inputs[1].shape.as_list() for op in operations if op.type == "Conv2D"]
    if name == "pool_1":
        pool = graph.get_operation_by_name("MaxPool")
        window, stride = (pool.get_attr(name)[1] for name in ("ksize", "strides"))
        return "sampling %d×%d, /%d" % (window, window, stride)
    if name == "resnet/features":
        return "BN, ReLU, global average pool"
    if "group" in name:
        blocks = {op.name.split("/")[2] for op in operations if "/bottleneck_" in op.name}
        return "%d × bottleneck, depth %d%s" % (len(blocks), kernels[-1][3], ", the last /2" * downsamples)
    size, _, _, channels = kernels[0]
    return "conv %d×%d, %d%s, bias" % (size, size, channels, ", /2" * (name == "conv_1_out" and downsamples))


def multiply_adds(operation):
    """Of one picture; 0 for what is no convolution."""
    if operation.type != "Conv2D":
        return 0
    size, _, depth, _ = operation.inputs[1].shape.as_list()
    return int(np.prod(shape_of(operation.outputs[0]))) * size * size * depth


def shape_of(tensor):
    """Without the batch."""
    return tensor.shape.as_list()[1:]


def bottleneck_paths(shortcut, scope):
    """The residual and the shortcut of one bottleneck.

    Returns:
        The shape that comes in; and for both paths [(scope or "", [what is done], shape afterwards)].
    """
    graph = build(50, shortcut)
    start = graph.get_operation_by_name(scope + "/conv_1/Conv2D").inputs[0]
    residual, identity = graph.get_operation_by_name(scope + "/add").inputs
    return shape_of(start), path(residual, start, scope), path(identity, start, scope)


def path(end, start, scope):
    """The steps from the tensor `start` to the tensor `end`, joined where they lie in one variable scope."""
    operations = []
    while end is not start:
        operations.insert(0, end.op)
        end = end.op.inputs[0]
    steps = []
    for operation in operations:
        inner = operation.name[len(scope) + 1 :].rpartition("/")[0].split("/")[0]
        text = explain(operation)
        if steps and inner and steps[-1][0] == inner:
            steps[-1][1].append(text)
            steps[-1][2] = shape_of(operation.outputs[0])
        else:
            steps.append([inner, [text], shape_of(operation.outputs[0])])
    return steps


def explain(operation):
    kind, before, after = operation.type, *(shape_of(t) for t in (operation.inputs[0], operation.outputs[0]))
    if kind == "Conv2D":
        size, _, depth, outputs = operation.inputs[1].shape.as_list()
        stride = operation.get_attr("strides")[1]
        return "conv %d×%d, %d → %d%s" % (size, size, depth, outputs, ", /%d" % stride * (stride > 1))
    if kind == "Pad":
        if before[2] != after[2]:
            return "depthFilling, %d → %d" % (before[2], after[2])
        return "pad %d → %d" % (before[0], after[0])
    if kind == "MaxPool":
        return "sampling, /%d" % operation.get_attr("strides")[1]
    if kind.startswith("FusedBatchNorm"):
        return "batch norm"
    return {"BiasAdd": "bias", "Relu": "ReLU"}[kind]


def pieces():
    """What sampling, depthFilling and conv2d_same do to a few numbers.

    Returns:
        int [5, 5], the values that sampling is given, and int [3, 3], those that it keeps; 4 channels and
        the 8 that depthFilling makes of them; {title: bool [outputs, 6]}, which of 6 pixels in a row an
        output reads.
    """
    with tf.Graph().as_default(), tf.Session() as session:
        given = np.arange(1, 26).reshape(5, 5)
        kept = session.run(resnet.sampling(tf.constant(given.reshape(1, 5, 5, 1), tf.float32)))
        channels = np.arange(1, 5)
        filled = session.run(resnet.depthFilling(tf.constant(channels.reshape(1, 1, 1, 4), tf.float32), 8))

        row = tf.constant(np.ones([1, 6, 6, 1]), tf.float32)
        conv = resnet.conv2d_same(row, 1, 3, 2, False, activation_fn=None, normalizer_fn=None)
        kernel, _ = tf.global_variables()
        session.run(kernel.assign(tf.ones(kernel.shape)))
        outputs = {
            "sampling": resnet.sampling(row),
            "conv2d_same": conv,
            "padding='SAME'": tf.nn.conv2d(row, tf.ones([3, 3, 1, 1]), 2, "SAME"),
        }
        reads = {}
        for title, output in outputs.items():
            seen = [tf.gradients(output[0, 1, i, 0], row)[0][0, 2] for i in range(3)]
            reads[title] = np.array(session.run(seen))[..., 0] != 0
    return given, kept[0, ..., 0].astype(int), channels, filled.ravel().astype(int), reads


# --- SVG ----------------------------------------


class Canvas:
    """Elements of an SVG file, from the top left corner on."""

    def __init__(self, width, height):
        self.width, self.height, self.elements = width, height, []

    def text(self, x, y, text, size=13, colour=INK, anchor="start", weight="normal"):
        text = text.replace("&", "&amp;").replace("<", "&lt;")
        self.elements.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{colour}" text-anchor="{anchor}" '
            f'font-weight="{weight}">{text}</text>'
        )

    def box(self, x, y, width, height, fill=PAPER, stroke=LINE, round=4):
        self.elements.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{round}" '
            f'fill="{fill}" stroke="{stroke}"/>'
        )

    def line(self, *points, arrow=True):
        way = " ".join(f"{x:g},{y:g}" for x, y in points)
        end = ' marker-end="url(#arrow)"' if arrow else ""
        self.elements.append(f'<polyline points="{way}" fill="none" stroke="{FAINT}"{end}/>')

    def circle(self, x, y, radius, fill=PAPER):
        self.elements.append(f'<circle cx="{x:g}" cy="{y:g}" r="{radius}" fill="{fill}" stroke="{FAINT}"/>')

    def svg(self):
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width:g} {self.height:g}" '
            f'width="{self.width:g}" height="{self.height:g}" font-family="sans-serif">\n'
            '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" '
            f'orient="auto"><path d="M0 0L8 4L0 8z" fill="{FAINT}"/></marker></defs>\n'
            f'<rect width="100%" height="100%" fill="{PAPER}"/>\n' + "\n".join(self.elements) + "\n</svg>\n"
        )


def times(shape):
    return " × ".join(map(str, shape))


def draw_network(rows):
    """A row for each stage: its tensor to scale (height: pixels, width: channels), and what it costs."""
    middle, columns, y = 330, (500, 640, 790), 46
    heights = [max(46, row.shape[0] / 4 + 12) if len(row.shape) > 1 else 46 for row in rows]
    canvas = Canvas(810, y + sum(heights) + 44)
    for x, title in zip(columns, ("shape", "parameters", "multiply-adds")):
        canvas.text(x, 28, title, 12, FAINT, "middle" if x == columns[0] else "end")
    centre_before = None
    for row, height in zip(rows, heights):
        centre = y + height / 2
        side, channels = (row.shape[0], row.shape[2]) if len(row.shape) > 1 else (1, row.shape[0])
        width, tall = max(1.5, channels / 16), max(2, side / 4)
        if centre_before:
            canvas.line((middle, centre_before[1]), (middle, centre - tall / 2 - 3))
        canvas.text(20, centre - 1 if row.made_by else centre + 5, row.name, 13, weight="bold")
        canvas.text(20, centre + 15, row.made_by, 12, FAINT)
        canvas.box(middle - width / 2, centre - tall / 2, width, tall, BLUE, "#2a5db0", 0)
        canvas.text(columns[0], centre + 5, times(row.shape), 13, anchor="middle")
        for x, value in zip(columns[1:], (row.parameters, row.multiply_adds)):
            canvas.text(x, centre + 5, f"{value:,}" if value else "", 13, anchor="end")
        centre_before = centre, centre + tall / 2 + 2
        y += height
    canvas.line((20, y + 6), (columns[2], y + 6), arrow=False)
    canvas.text(20, y + 27, 'ResNet_demo["layer_50"]', 13, weight="bold")
    for x, key in zip(columns[1:], ("parameters", "multiply_adds")):
        total = sum(getattr(row, key) for row in rows)
        canvas.text(x, y + 27, f"{total:,}", 13, anchor="end", weight="bold")
    return canvas.svg()


def draw_bottlenecks(columns):
    """Bottlenecks side by side: the residual down the left of each, the shortcut down its right."""
    wide, line, gap, box = 400, 17, 34, 172
    canvas = Canvas(wide * len(columns), 560)
    for number, (title, (shape, residual, identity)) in enumerate(columns):
        left = wide * number + 20
        mid, side = left + box / 2, left + box + 20 + (box - 12) / 2
        canvas.text(left, 28, title, 15, weight="bold")
        canvas.text(mid + 12, 66, times(shape), 12, FAINT)
        canvas.text(mid, 52, "input", 12, FAINT, "middle")
        y = bottom = 76
        canvas.line((mid, 58), (mid, y + gap - 8), arrow=True)
        for inner, texts, after in residual:
            y += gap - 6
            height = line * len(texts) + 10
            canvas.box(left, y, box, height, BLUE if inner else GREY)
            for i, text in enumerate(texts):
                canvas.text(mid, y + 18 + line * i, text, 13, anchor="middle")
            y = bottom = y + height
            canvas.line((mid, y), (mid, y + gap - 6))
            canvas.text(mid + 12, y + 18, times(after), 12, FAINT)
        plus = bottom + gap + 6
        top, span = 96, plus - 96 - 40
        points = [(mid, 74), (side, 74)]
        for i, (inner, texts, after) in enumerate(identity):
            height = line * len(texts) + 10
            at = top + span * (i + 1) / (len(identity) + 1) - height / 2
            canvas.line(*points, (side, at))
            canvas.box(side - (box - 12) / 2, at, box - 12, height, GREEN if inner else GREY)
            for j, text in enumerate(texts):
                canvas.text(side, at + 18 + line * j, text, 13, anchor="middle")
            canvas.text(side + 8, at + height + 18, times(after), 12, FAINT)
            points = [(side, at + height)]
        canvas.line(*points, (side, plus), (mid + 11, plus))
        canvas.circle(mid, plus, 10)
        canvas.text(mid, plus + 5, "+", 15, anchor="middle")
        canvas.line((mid, plus + 10), (mid, plus + 28))
        canvas.box(mid - 40, plus + 28, 80, 26, BLUE)
        canvas.text(mid, plus + 45, "ReLU", 13, anchor="middle")
        canvas.line((mid, plus + 54), (mid, plus + 76))
        canvas.text(mid + 12, plus + 72, times(residual[-1][2]), 12, FAINT)
        canvas.height = max(canvas.height if number else 0, plus + 90)
    return canvas.svg()


def draw_pieces(given, kept, channels, filled, reads):
    """sampling and depthFilling by numbers, and what each output of a strided window reads."""
    cell = 26
    canvas = Canvas(860, 214)
    canvas.text(20, 28, "sampling(x)", 15, weight="bold")
    grid(canvas, 20, 44, given, cell, lambda value: value in kept)
    canvas.line((20 + 5 * cell + 8, 44 + 2.5 * cell), (20 + 5 * cell + 34, 44 + 2.5 * cell))
    grid(canvas, 20 + 5 * cell + 42, 44 + cell, kept, cell, lambda value: True)

    left = 320
    canvas.text(left, 28, "depthFilling(x, %d)" % len(filled), 15, weight="bold")
    before = int(np.flatnonzero(filled)[0])
    grid(canvas, left + before * cell, 60, channels[np.newaxis], cell, lambda value: True)
    canvas.line((left + 4 * cell, 60 + cell + 6), (left + 4 * cell, 60 + 2 * cell + 6))
    grid(canvas, left, 60 + 2 * cell + 14, filled[np.newaxis], cell, lambda value: value > 0)

    left, small = 580, 14
    for number, (title, rows) in enumerate(reads.items()):
        y = 60 + number * 52
        canvas.text(left, y + 24, title, 13)
        for i, row in enumerate(rows):
            for j, read in enumerate(row):
                fill = "#2a5db0" if read else PAPER
                canvas.box(left + 130 + j * (small + 2), y + i * (small + 1), small, small - 1, fill, LINE, 0)
    canvas.text(left, 28, "stride 2, 6 pixels", 15, weight="bold")
    return canvas.svg()


def grid(canvas, left, top, values, cell, marked):
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            canvas.box(left + j * cell, top + i * cell, cell, cell, BLUE if marked(value) else PAPER, LINE, 0)
            colour = INK if marked(value) else FAINT
            canvas.text(left + (j + 0.5) * cell, top + (i + 0.5) * cell + 4, str(value), 12, colour, "middle")


if __name__ == "__main__":
    main()
