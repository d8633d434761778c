"""The weights that Keras has for ImageNet: ResNet50V2, 101V2 and 152V2 of tf.keras.applications.

They were ported from TF-Slim's resnet_v2, so they are those of `--shortcut projection --preactivation`. Read
with h5py, which comes with TensorFlow: Keras of 1.15 cannot read them with the h5py of today.
"""

from __future__ import annotations

import os
import re
from typing import Iterable

import numpy as np

from suite.files import download
from suite.process.errors import UserError

ADDRESSES = (  # as TensorFlow 2.15's and 1.15's sources have them
    "https://storage.googleapis.com/tensorflow/keras-applications/resnet/",
    "https://github.com/keras-team/keras-applications/releases/download/resnet/",
)
FILE = "resnet%dv2_weights_tf_dim_ordering_tf_kernels_notop.h5"
MD5 = {  # likewise
    50: "fac2f116257151a9d068a22e544a4917",
    101: "c0ed64b8031c3730f411d2eb4eea35b5",
    152: "ed17cf2e0169df9d443503ef94b23b33",
}
KIND = 'it takes what save_weights("NAME.h5") writes, not .weights.h5 or .keras'
SIGNATURE = b"\x89HDF\r\n\x1a\n"
LAYERS = {6: 50, 23: 101, 36: 152}  # depth by the number of units in the third group

EPSILON = 1.001e-5 - 1e-5  # what Keras's batch norm adds to the variance more than resnet.py's
UNIT = re.compile(r"conv([2-5])_block(\d+)_(preact_bn|0_conv|1_conv|1_bn|2_conv|2_bn|3_conv)$")
OURS = {  # Keras's names of layers, and of parts of a unit
    "conv1_conv": "conv_1",
    "post_bn": "resnet/batch_norm",
    "preact_bn": "preactivation/batch_norm",
    "0_conv": "shortcut",
    "1_conv": "conv_1",
    "1_bn": "conv_1/batch_norm",
    "2_conv": "conv_2",
    "2_bn": "conv_2/batch_norm",
    "3_conv": "conv_3",
}
# The weights of a layer, in the order of the file.
CONVOLUTION, BATCH_NORM = ("kernel", "bias"), ("gamma", "beta", "moving_mean", "moving_variance")


def imagenet(layers: int) -> str:
    """The path of Keras's file for that depth, where Keras keeps it; downloaded, unless it is there.

    Raises:
        UserError: it cannot be downloaded.
    """
    home = os.environ.get("KERAS_HOME") or os.path.join(os.path.expanduser("~"), ".keras")
    path = os.path.join(home, "models", FILE % layers)
    try:
        download.fetch([address + FILE % layers for address in ADDRESSES], path, MD5[layers])
    except UserError as error:
        raise UserError("%s; download it by other means and name it: --model FILE.h5" % error) from error
    return path


def is_hdf5(path: str) -> bool:
    """Whether it is a file that says so of itself, or in its name."""
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return file.read(len(SIGNATURE)) == SIGNATURE or path.endswith((".h5", ".hdf5", ".keras"))


class KerasWeights:
    """A file of Keras's for one of the three networks, read as tf.train.load_checkpoint's are.

    Attributes:
        layers: 50, 101 or 152.
        names: {our name: name in the file} of all that is in it; what the network lacks keeps its own.
    Raises:
        UserError: it is none, or damaged.
    """

    def __init__(self, path: str):
        import h5py  # here, because little needs it

        for layers, md5 in MD5.items():
            if os.path.basename(path) == FILE % layers and not download.is_file(path, md5):
                raise UserError("%s: damaged, or another file: its MD5 is not %s" % (path, md5))
        try:
            root = h5py.File(path, "r")
            root = root.get("model_weights", root)
            self.arrays = {
                "%s/%s" % (layer, part): group[name]
                for layer, group in root.items()
                for part, name in parts(layer, group.attrs.get("weight_names", ())).items()
            }
        except (OSError, KeyError, AttributeError) as error:
            raise UserError(
                "%s: no weights of Keras's in HDF5, or damaged (%s); %s" % (path, error, KIND)
            ) from error
        self.names = {our_name(name): name for name in self.arrays}
        units = len([name for name in self.arrays if re.match(r"conv4_block\d+_preact_bn/gamma", name)])
        if units not in LAYERS:
            raise UserError(
                "%s: not the weights of ResNet50V2, ResNet101V2 or ResNet152V2; %s" % (path, KIND)
            )
        self.layers = LAYERS[units]

    def get_variable_to_shape_map(self) -> dict[str, list[int]]:
        """The shape of each array in the file."""
        return {name: list(array.shape) for name, array in self.arrays.items()}

    def get_tensor(self, name: str) -> np.ndarray:
        """An array, float32; of variances what resnet.py's batch norm makes the same of."""
        value = self.arrays[name][()].astype(np.float32)
        return value + np.float32(EPSILON) if name.endswith("moving_variance") else value


def parts(layer: str, names: Iterable[str | bytes]) -> dict[str, str]:
    """{kernel: conv1_conv/kernel:0} of a layer's names; by their order where they have other names."""
    texts = [name.decode() if isinstance(name, bytes) else name for name in names]
    found = {text.split("/")[-1].split(":")[0]: text for text in texts}
    usual = BATCH_NORM if layer.endswith("_bn") else CONVOLUTION[: len(texts)]
    return found if found.keys() == set(usual) else dict(zip(usual, texts))


def our_name(name: str) -> str:
    """resnet/group_1/bottleneck_2/conv_3/kernel for conv2_block2_3_conv/kernel."""
    layer, weight = name.split("/")
    unit = UNIT.match(layer)
    if unit:
        group, number, part = unit.groups()
        return "resnet/group_%d/bottleneck_%s/%s/%s" % (int(group) - 1, number, OURS[part], weight)
    return "%s/%s" % (OURS.get(layer, layer), weight)
