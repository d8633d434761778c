"""A trained model within a program: loaded once, asked by any thread. predict.Classifier is this one.

    with Classifier("models/resnet") as classify:
        print(classify("photo.jpg").label)

A good guest: it prints nothing and changes nothing that is the whole program's.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import os
import threading
import warnings
from typing import NamedTuple

import numpy as np

from suite.files import classnames
from suite.model import inference_graph, modelfolder
from suite.model.maps import lead
from suite.model.reader import Encoded, Reader
from suite.pictures.imagefile import BadPicture
from suite.process import device as devices
from suite.process import tf_versions
from suite.process.tf_versions import tf
from suite.records import preprocessing

UNKNOWN = "unknown"  # the answer below the threshold


class Answer(NamedTuple):
    """What is on a picture."""

    label: str  # the most probable class; below the threshold `unknown`, in brackets if there is such a class
    predictions: list[dict]  # [{"label", "probability"}], the most probable first
    probabilities: np.ndarray  # float32 [classes], in the model's order
    remark: str = ""  # one of imagefile.REMARKS: why the answer may be worth little
    # Where they were asked for, see maps.features_and_maps:
    features: np.ndarray | None = None  # float32 [channels]
    map: np.ndarray | None = None  # float32 [h, w], of the most probable class; see maps.lead


class Prepared(NamedTuple):
    """A picture as the network sees it."""

    pixels: np.ndarray  # float32 [size, size, 3]
    remark: str


class Classifier:
    """A function from pictures to answers, which any number of threads may call at once.

    A picture is a path, the bytes of a file, a PIL image or a uint8 array [height, width, 3] of RGB. One call
    answers to the bit as predict.py does of one picture. Close it, or use it as a context.
    """

    def __init__(
        self, model, device="auto", mirror=False, sandbox=False, formats=(), max_pixels=None, reader=None
    ):
        """Load the model, and prepare it where that has not been done; imports TensorFlow.

        Args:
            model: the path of a model folder, or of one checkpoint in it.
            device: "auto", "cpu", "gpu:0", ...
            mirror: answer with the mean for a picture and its mirror image.
            sandbox: decode files, not PIL images, in processes that can do nothing else; see sandbox.py.
            formats: those of imagefile.MORE_FORMATS that are opened, too.
            max_pixels: larger pictures are refused, by default those of more than 100 million; one number for
                JPEGs and one for the rest, or one for all.
            reader: in place of these three, a Reader that is at work already; `model` is its Model.
        Raises:
            UserError: there is no such model, it is damaged, or an argument is wrong (a UsageError).
            OSError: it cannot be read.
        """
        place, data_format, config = devices.choose(device)
        if reader is None:
            model = modelfolder.load_model(os.fspath(model), warnings.warn)
            reader = Reader(model, data_format, sandbox, formats, max_pixels)
        self.classes = model.classes
        self.unknown = answer_below_threshold(model.classes)
        self._mirror, self._reader = mirror, reader
        self._process, self._calls, self._closed = os.getpid(), 0, False
        self._session, self._changed = None, threading.Condition()
        try:
            self._cached = reader.cached(data_format)  # and keep it: its file has to stay open
            self._build(inference_graph.load_graph(model, self._cached, data_format), place, config)
        except BaseException:
            reader.close()
            self._closed = True
            raise

    def _build(self, graph_def, place, config):
        """Make the steps from a small picture to probabilities; any thread may call them."""
        model = self._reader.model
        # TensorFlow's rewriting of the graph takes longer at the start than it saves afterwards.
        config.graph_options.rewrite_options.disable_meta_optimizer = True
        with tf.Graph().as_default(), tf_versions.without_advice():
            with tf.device("/cpu:0"):
                jpeg = tf.placeholder(tf.string, [])
                colours = tf.placeholder(tf.uint8, [None, None, 3])
                how = model.image_size, model.normalize, model.fit
                of_jpeg = preprocessing.preprocess_for_evaluation(jpeg, *how)
                of_colours = preprocess_colours(colours, *how)
            with tf.device(place):
                elements = ["images:0", *(name + ":0" for name in inference_graph.OUTPUTS)]
                images, *outputs = tf.import_graph_def(graph_def, return_elements=elements)
            self._session = tf.Session(config=config)
        self._of_jpeg = self._session.make_callable(of_jpeg, [jpeg])
        self._of_colours = self._session.make_callable(of_colours, [colours])
        self._compute = self._session.make_callable(outputs[0], [images])
        self._explain = self._session.make_callable(outputs, [images])

    def __call__(self, picture, top=3, threshold=0):
        """The Answer for one picture.

        Args:
            top: how many classes its `predictions` name.
            threshold: below this probability, of 0 to 1, its label is `unknown`.
        Raises:
            BadPicture: it cannot be used.
            TypeError, ValueError: it is no picture, or an array of another kind.
            RuntimeError: the Classifier is closed, or was made before this process was forked.
        """
        with self._in_use():
            prepared = self.prepare(picture)  # in this thread, which saves waiting for another
            if isinstance(prepared, BadPicture):
                raise prepared
            return self.answers([prepared], top, threshold)[0]

    def batch(self, pictures, top=3, threshold=0, batch_size=32):
        """An iterator of an Answer for each of the pictures, in order; a BadPicture where one cannot be used.

        Args:
            pictures: an iterable, of which up to twice `batch_size` are taken ahead.
            top, threshold: as in a call, and so is what is raised.
            batch_size: how many pictures are computed at a time.
        """
        if isinstance(pictures, (str, bytes, os.PathLike)):  # whose letters would be taken for pictures
            raise TypeError("pictures must be a list or another iterable, not one of them: [picture]")
        check_arguments(top, threshold)
        if batch_size < 1:
            raise ValueError("batch_size must be at least 1")
        return self._batch(pictures, top, threshold, batch_size)

    def _batch(self, pictures, top, threshold, batch_size):
        """What `batch` returns."""
        pending = collections.deque()

        def answer_some():
            with self._in_use():
                some = [pending.popleft().result() for _ in range(min(batch_size, len(pending)))]
                return self.answers(some, top, threshold)

        try:
            for picture in pictures:
                with self._in_use():
                    pending.append(self._reader.pool.submit(self.prepare, picture))
                if len(pending) == 2 * batch_size:
                    yield from answer_some()
            while pending:
                yield from answer_some()
        finally:
            for each in pending:  # which nobody waits for any more
                each.cancel()

    def prepare(self, picture):
        """A Prepared, or a BadPicture; `picture`: also what Reader.encode returned or raised."""
        try:
            if isinstance(picture, BadPicture):
                return picture
            content, remark = picture if isinstance(picture, Encoded) else self._reader.encode(picture)
            decode = self._of_jpeg if isinstance(content, bytes) else self._of_colours
            return Prepared(decode(content), remark)
        except BadPicture as error:
            return BadPicture(str(error))  # without the frames that the other holds, and the picture in them
        except tf.errors.InvalidArgumentError as error:
            return BadPicture("damaged: %s" % tf_versions.reason(error))

    def answers(self, prepared, top=3, threshold=0, explain=False):
        """A list of an Answer or a BadPicture for each of what `prepare` returned.

        Args:
            explain: have `features` and `map`, too.
        """
        check_arguments(top, threshold)
        usable = [each.pixels for each in prepared if not isinstance(each, BadPicture)]
        rows = zip(*(self.explained(usable) if explain else [self.probabilities(usable)]))
        found = []
        for each in prepared:
            if isinstance(each, Prepared):
                row, *reasons = next(rows)
                answer = best(row, self.classes, top, threshold, self.unknown)
                each = Answer(*answer, row.copy(), each.remark)
                if explain:
                    features, maps = reasons
                    (where,) = lead(maps[np.newaxis], [row.argmax()])
                    each = each._replace(features=features.copy(), map=where)
            found.append(each)
        return found

    def probabilities(self, pixels):
        """float32 [n, classes] for a list of n of what the network sees, float32 [size, size, 3]."""
        if not pixels:
            return np.zeros([0, len(self.classes)], np.float32)
        pixels = np.stack(pixels)
        if self._mirror:
            return (self._compute(pixels) + self._compute(pixels[:, :, ::-1])) / 2
        return self._compute(pixels)

    def explained(self, pixels):
        """What `probabilities` returns; features and maps (not mirrored), see maps.features_and_maps."""
        if not pixels:
            return [], [], []
        pixels = np.stack(pixels)
        probabilities, features, maps = self._explain(pixels)
        if self._mirror:
            turned = self._explain(pixels[:, :, ::-1])
            probabilities, features = (probabilities + turned[0]) / 2, (features + turned[1]) / 2
        return probabilities, features, maps

    @contextlib.contextmanager
    def _in_use(self):
        """Keep `close` waiting; raises RuntimeError where it is too late."""
        if os.getpid() != self._process:  # before the lock, which a thread of the parent may have held
            raise RuntimeError(
                "this Classifier was made before the process was forked; make one in the child"
            )
        with self._changed:
            if self._closed:
                raise RuntimeError("this Classifier is closed")
            self._calls += 1
        try:
            yield
        finally:
            with self._changed:
                self._calls -= 1
                self._changed.notify_all()

    def close(self):
        """End its threads, processes and sessions, when the calls of other threads have been answered."""
        if os.getpid() != self._process:
            # Without its threads, which are the parent's, a session hangs when it is freed: it never is.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._session))
            return
        with self._changed:
            closed, self._closed = self._closed, True
            while self._calls:
                self._changed.wait()
        if not closed:
            self._reader.close()
            self._session.close()
            if self._cached:
                self._cached.file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):
        if hasattr(self, "_changed"):
            self.close()


# --- the steps ----------------------------------------


def preprocess_colours(colours, image_size, normalize_as, fit):
    """As preprocessing.preprocess_for_evaluation, of pixels that are no JPEG, uint8 [height, width, 3]."""
    shape = tf.shape(colours)[:2]
    side = preprocessing.crop_side(shape, image_size, fit)
    begin = tf.concat([(shape - side) // 2, [0]], 0)
    window = tf.slice(colours, begin, tf.stack([side, side, 3]))
    return preprocessing.normalize(preprocessing.resize(window, image_size), normalize_as)


def check_arguments(top, threshold):
    """Raises ValueError where they are none of a call's."""
    if top < 1 or not 0 <= threshold <= 1:
        raise ValueError("top must be at least 1, and threshold from 0 to 1")


def answer_below_threshold(classes):
    """UNKNOWN, in as many brackets as it takes to be no class."""
    answer = UNKNOWN
    taken = {classnames.blurred(name) for name in classes}
    while answer in taken:
        answer = "(%s)" % answer
    return answer


def best(probabilities, classes, top, threshold, unknown=UNKNOWN):
    """What to say of a picture.

    Args:
        probabilities: float32 [classes].
        top: how many classes to name.
        threshold: from 0 to 1.
    Returns:
        The label, `unknown` below `threshold`; and [{"label", "probability"}], the most probable first.
    """
    order = (-probabilities).argsort(kind="stable")[:top]
    predictions = [{"label": classes[i], "probability": float(probabilities[i])} for i in order]
    label = predictions[0]["label"] if predictions[0]["probability"] >= threshold else unknown
    return label, predictions
