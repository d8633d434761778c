"""Model folders with random weights, for the benchmarks."""

import os

from suite.files import jsonfile
from suite.model.network import build_logits
from suite.process import device
from suite.process.tf_versions import tf


def make(folder, network, classes, image_size):
    """Write a checkpoint and model.json into a folder. `classes` is their number."""
    names = ["class %d" % i for i in range(classes)]
    os.makedirs(folder, exist_ok=True)
    with tf.Graph().as_default(), tf.Session(config=device.session_config()) as session:
        images = tf.placeholder(tf.float32, [None, image_size, image_size, 3])
        build_logits(images, network, names, is_train=False)
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, os.path.join(folder, "model.ckpt"), global_step=1)
    config = {"network": network, "classes": names, "image_size": image_size}
    config.update(normalize="per_image", options={})
    jsonfile.write(os.path.join(folder, "model.json"), config)
