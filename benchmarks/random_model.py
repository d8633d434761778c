"""Model folders with random weights, for the benchmarks."""

import json
import os

import runtime
from runtime import tf


def make(folder, network, classes, image_size):
    """Write a checkpoint and model.json into a folder. `classes` is their number."""
    names = ["class %d" % i for i in range(classes)]
    os.makedirs(folder, exist_ok=True)
    with tf.Graph().as_default(), tf.Session() as session:
        images = tf.placeholder(tf.float32, [None, image_size, image_size, 3])
        runtime.logits(images, network, names, is_train=False)
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, os.path.join(folder, "model.ckpt"), global_step=1)
    description = {"format_version": runtime.MODEL_VERSION, "network": network, "classes": names}
    description.update(image_size=image_size, normalize="per_image")
    with open(os.path.join(folder, "model.json"), "w") as file:
        json.dump(description, file)
