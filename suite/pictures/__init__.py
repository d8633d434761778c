"""A picture file, from anybody, to a small upright JPEG; and pictures of our own. Without TensorFlow."""
