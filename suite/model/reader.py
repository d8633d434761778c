"""Pictures made small for a model, on any thread, and its cache read meanwhile; all without TensorFlow."""

from __future__ import annotations

import contextlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from PIL import Image

from suite.model import inference_graph
from suite.pictures import imagefile
from suite.pictures.sandbox import Sandbox
from suite.pictures.sandbox import check as check_sandbox
from suite.process import device
from suite.process.errors import UsageError


class Encoded(NamedTuple):
    """A picture made small."""

    content: bytes | np.ndarray  # JPEG bytes, or uint8 [height, width, 3]
    remark: str


class Reader:
    """A pool that makes pictures small, and the model's cache read in it."""

    def __init__(self, model, data_format, sandbox=False, formats=(), max_pixels=None):
        """See classifier.Classifier.

        Args:
            model: a modelfolder.Model.
            data_format: the layout in which its cache will be wanted, most likely.
        """
        formats = [formats] if isinstance(formats, str) else formats
        wrong = sorted(set(formats) - set(imagefile.MORE_FORMATS))
        if wrong:
            known = " nor ".join(imagefile.MORE_FORMATS)
            raise UsageError("formats: %r is neither %s" % (wrong[0], known))
        if sandbox:
            check_sandbox()
        self.model = model
        self.formats = (*imagefile.FORMATS, *formats)
        self.max_pixels = imagefile.MAX_PIXELS if max_pixels is None else max_pixels
        count = device.cores()
        self.sandbox = Sandbox(self.formats, count) if sandbox else None
        self.pool = ThreadPoolExecutor(count)
        self.places = threading.BoundedSemaphore(count)  # of those that decode at a time, in whichever thread
        self._data_format = data_format
        self._cached = self.pool.submit(inference_graph.read_cache, model, data_format)

    def cached(self, data_format):
        """What inference_graph.read_cache returns."""
        if data_format == self._data_format:
            return self._cached.result()
        return inference_graph.read_cache(self.model, data_format)

    def small(self, data, image_size, fit="crop"):
        """JPEG bytes of a picture file's bytes, and one of imagefile.REMARKS; raises BadPicture."""
        if self.sandbox:
            return self.sandbox.encode_and_hash(data, image_size, fit, self.max_pixels)[2:]
        return imagefile.load_and_encode(data, image_size, self.formats, fit, self.max_pixels)[1:]

    def encode(self, picture):
        """An Encoded, made as FlowIO.py made those that the model was trained on.

        Raises:
            BadPicture, TypeError, ValueError: see classifier.Classifier.
        """
        with self.places:
            return self._encode(picture, None if self.model.keep_size else self.model.image_size)

    def _encode(self, picture, image_size):
        if isinstance(picture, np.ndarray):
            picture = image_of(picture)
        if isinstance(picture, Image.Image):
            args = picture, image_size, self.model.fit, self.max_pixels
            image, remark = imagefile.without_encoding(*args)
            return Encoded(np.asarray(image), remark)
        if isinstance(picture, (str, os.PathLike)):
            picture = imagefile.read_file(os.fspath(picture))
        if not isinstance(picture, bytes):
            kinds = "a path, bytes, a PIL image or a uint8 array [height, width, 3]"
            raise TypeError("a picture is %s, not %s" % (kinds, type(picture).__name__))
        imagefile.check_bytes(len(picture))
        return Encoded(*self.small(picture, image_size, self.model.fit))

    def close(self):
        """End the threads and processes."""
        with contextlib.suppress(RuntimeError):  # one of its own threads has let go of the last reference
            self.pool.shutdown()
        if self.sandbox:
            self.sandbox.close()


def image_of(array):
    """The PIL image of a uint8 array [height, width, 3], RGB; raises ValueError."""
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        message = "an array must be uint8 [height, width, 3], RGB of 0 to 255, not %s %s"
        raise ValueError(message % (array.dtype, list(array.shape)))
    return Image.fromarray(array)
