"""Turn Fashion-MNIST's files into class folders of pictures for FlowIO.py.

    sudo apt-get install dataset-fashion-mnist    # or the four .gz files from its authors, in one folder
    python data/fashion_mnist.py [--source /usr/share/datasets/fashion-mnist] [--output data/fashion_mnist]
    python FlowIO.py --dataset data/fashion_mnist --output data/fashion_mnist_records --image_size 32

70,000 grey pictures of 28 x 28 pixels in 10 classes, split into train and test by its authors (Xiao et
al. 2017). The last --val_count of the training pictures become the validation split; with 0, there is
none.
"""

import argparse
import gzip
import os
import shlex
import signal
import sys

import numpy as np
from PIL import Image
from tqdm import tqdm

CLASSES = (
    "T-shirt",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def main():
    options = parse_options()
    try:
        for prefix, split in (("train", "train"), ("t10k", "test")):
            pictures = read_idx(os.path.join(options.source, prefix + "-images-idx3-ubyte.gz"))
            labels = read_idx(os.path.join(options.source, prefix + "-labels-idx1-ubyte.gz"))
            pictures, labels = pictures[: options.count], labels[: options.count]
            trained = max(0, len(labels) - options.val_count) if split == "train" else len(labels)
            write_folder(options.output, split, pictures[:trained], labels[:trained])
            write_folder(options.output, "val", pictures[trained:], labels[trained:])
    except (OSError, EOFError, ValueError) as error:
        sys.exit("fashion_mnist.py: error: %s" % error)
    folders = shlex.quote(options.output), shlex.quote(options.output.rstrip("/") + "_records")
    print("next: python FlowIO.py --dataset %s --output %s --image_size 32" % folders)


def parse_options():
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--source", default="/usr/share/datasets/fashion-mnist", help="folder of .gz files")
    parser.add_argument("--output", default="data/fashion_mnist", help="folder to write to")
    parser.add_argument("--count", type=int, help="take only the first so many of train and of test")
    parser.add_argument("--val_count", type=int, default=0, help="training pictures to validate on instead")
    return parser.parse_args()


def read_idx(path):
    """The array in a gzipped IDX file of bytes: uint8 [n] or [n, height, width].

    The format: two zero bytes, 8 for unsigned bytes, the number of dimensions, each dimension as a
    big-endian int32, the values.
    """
    with gzip.open(path) as file:
        content = file.read()
    if content[:3] != b"\0\0\x08":
        raise ValueError("%s: not an IDX file of bytes" % path)
    dimensions = content[3]
    shape = np.frombuffer(content, ">i4", dimensions, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def write_folder(output, split, pictures, labels):
    """Write OUTPUT/<split>/<class name>/<number>.png for uint8 [n, 28, 28] and [n]."""
    if not len(labels):
        return
    for name in CLASSES:
        os.makedirs(os.path.join(output, split, name), exist_ok=True)
    for number, label in enumerate(tqdm(labels, split, unit="img", disable=None)):
        path = os.path.join(output, split, CLASSES[label], "%05d.png" % number)
        Image.fromarray(pictures[number]).save(path)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C without a traceback
    main()
