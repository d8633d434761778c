"""classifier.py: a model in somebody else's program, which goes on as if it were not there."""

import io
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import MINUTES, ROOT, draw_dataset, file_bytes, finding, gradient, plain, run
from PIL import Image, ImageOps

from predict import BadPicture, Classifier
from suite.files import jsonfile
from suite.model import inference_graph, modelfolder
from suite.pictures import imagefile
from suite.process import device
from suite.process.errors import UsageError, UserError


@pytest.fixture(scope="module")
def classify(workspace):
    with Classifier(workspace.model) as classify:
        yield classify


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Paths of pictures of several kinds, of which the network sees 32 pixels."""
    folder = tmp_path_factory.mktemp("files")
    draw_dataset(folder, 3, seed=5)
    exif = Image.Exif()
    exif[0x0112] = 6
    gradient((90, 60)).save(str(folder / "turned.jpg"), exif=exif)
    gradient((300, 40)).convert("L").save(str(folder / "grey.png"))
    gradient((500, 400)).quantize(16).save(str(folder / "palette.gif"))
    image = gradient((80, 120))
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    image.save(str(folder / "transparent.png"))
    return imagefile.list_files(str(folder))


def spoken(answer):
    """An Answer as predict.py --json gives it."""
    return json.loads(json.dumps(answer.predictions))


# --- answers ----------------------------------------


def test_one_call_is_predict_py_to_the_bit(workspace, classify, files):
    """Of one picture at a time, for which predict.py takes a batch of one."""
    out, _ = run("predict.py", *files, "--batch_size", 1, "--json", "--model", workspace.model)
    expected = [json.loads(line)["predictions"] for line in out.splitlines()]
    assert [spoken(classify(path)) for path in files] == expected
    with open(files[0], "rb") as file:
        assert spoken(classify(file.read())) == expected[0]
    answer = classify(files[0], top=1, threshold=1)
    assert answer.label == "unknown" and spoken(answer) == expected[0][:1]
    assert answer.probabilities.dtype == np.float32 and answer.probabilities.shape == (3,)
    assert answer.predictions[0]["label"] == classify.classes[answer.probabilities.argmax()]


def test_a_batch_answers_in_order_and_goes_on(classify, files):
    one = [classify(path).probabilities for path in files]
    pictures = [files[0], b"no picture", *files[1:], "none.jpg", b""]
    answers = list(classify.batch(iter(pictures), batch_size=4))
    bad = [str(each) for each in answers if isinstance(each, BadPicture)]
    assert [i for i, each in enumerate(answers) if isinstance(each, BadPicture)] == [
        1,
        len(files) + 1,
        len(files) + 2,
    ]
    assert "not a picture" in bad[0] and "No such file" in bad[1] and bad[2] == "empty file"
    found = [each.probabilities for each in answers if not isinstance(each, BadPicture)]
    np.testing.assert_allclose(found, one, atol=1e-5)
    assert list(classify.batch([])) == []
    with pytest.raises(BadPicture, match="not a picture"):
        classify(b"no picture")


def test_what_a_picture_may_be(classify, files):
    for path in files:
        with Image.open(path) as image:
            answer = classify(image)
            seen, seen_of_file = (classify.prepare(each).pixels for each in (image, path))
            # Of a deviation of 1. How far the answers are apart is the network's affair.
            assert np.abs(seen - seen_of_file).mean() < 0.1, path
            upright = ImageOps.exif_transpose(image).convert("RGBA")
        white = Image.new("RGBA", upright.size, "white")
        colours = np.asarray(Image.alpha_composite(white, upright).convert("RGB"))
        np.testing.assert_array_equal(classify(colours).probabilities, answer.probabilities)
    assert (
        classify(plain()).remark
        == classify(file_bytes(plain(), "PNG")).remark
        == imagefile.HARDLY_ANY_CONTRAST
    )
    for kind, picture in (
        (ValueError, np.zeros([4, 4], np.uint8)),
        (ValueError, np.zeros([4, 4, 3], np.float32)),
        (ValueError, np.zeros([0, 4, 3], np.uint8)),
        (TypeError, 7),
        (TypeError, None),
    ):
        with pytest.raises(kind, match="uint8"):
            classify(picture)
        with pytest.raises(kind, match="uint8"):
            list(classify.batch([picture]))
    for arguments in ({"top": 0}, {"threshold": 2}):
        with pytest.raises(ValueError, match="top must be"):
            classify(files[0], **arguments)


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_an_image_goes_the_way_of_its_file_but_for_the_jpeg(copy, fit):
    """What reaches the network: as many pixels, of the same places. Of what needs no change, the same."""
    path = os.path.join(copy, "model.json")
    jsonfile.write(path, dict(jsonfile.read(path), fit=fit))
    image = gradient((150, 100))
    with Classifier(copy) as classify:
        of_file, of_image = (classify.prepare(each).pixels for each in (file_bytes(image, "PNG"), image))
        assert of_file.shape == of_image.shape == (32, 32, 3)
        assert np.abs(of_file - of_image).mean() < 0.02  # of a deviation of 1; a JPEG is not exact
        jpeg = file_bytes(gradient((32, 32)), "JPEG", quality=95, subsampling=0)
        with Image.open(io.BytesIO(jpeg)) as small:
            np.testing.assert_array_equal(classify.prepare(small).pixels, classify.prepare(jpeg).pixels)


def test_an_image_stays_as_it_is(classify):
    several = {"save_all": True, "append_images": [gradient((40, 30))]}
    for data in (file_bytes(gradient((640, 480)), "JPEG"), file_bytes(plain("P"), "GIF", **several)):
        with Image.open(io.BytesIO(data)) as image:
            expected = np.asarray(image.copy())
            classify(image)
            assert np.array_equal(np.asarray(image), expected) and image.tell() == 0
    array = np.asarray(gradient()).copy()
    before = array.copy()
    classify(array)
    np.testing.assert_array_equal(array, before)


def test_mirror_and_limits_are_arguments(workspace, classify):
    picture = gradient((50, 40))
    with Classifier(workspace.model, mirror=True, max_pixels=2000, formats=["TIFF"]) as other:
        both = (classify(picture).probabilities + classify(ImageOps.mirror(picture)).probabilities) / 2
        np.testing.assert_allclose(other(picture).probabilities, both, atol=1e-5)
        other(file_bytes(gradient((50, 40)), "TIFF"))
        for each in (
            gradient((50, 41)),
            file_bytes(gradient((50, 41)), "PNG"),
            np.asarray(gradient((50, 41))),
        ):
            with pytest.raises(BadPicture, match="50 x 41 pixels are too many, 2000 is the limit"):
                other(each)
    with pytest.raises(BadPicture, match="TIFF"):
        classify(file_bytes(gradient(), "TIFF"))


def test_with_a_gpu_it_takes_the_graph_for_one(copy, monkeypatch):
    """As far as can be seen without one: what is read, and where it should lie, which TensorFlow lets be."""
    monkeypatch.setattr(device, "gpus", lambda: ["a GPU"])
    model = modelfolder.load_model(copy)
    for _ in range(2):
        with Classifier(copy) as classify:
            assert os.path.exists(inference_graph.cache_path(model, "NCHW"))
            operations = classify._session.graph.get_operations()
            places = {each.device for each in operations if each.type == "Conv2D"}
            assert places == {"/device:GPU:0"}
            assert {each.device for each in operations if each.type == "DecodeAndCropJpeg"} == {
                "/device:CPU:0"
            }
            *layouts, _ = [each.get_attr("data_format") for each in operations if each.type == "Conv2D"]
            assert set(layouts) == {b"NCHW"}  # and that of the maps
    with pytest.raises(UsageError, match="device gpu:1: TensorFlow sees 1 GPU"):
        Classifier(copy, device="gpu:1")


def test_reasons_are_given_to_who_asks(workspace, classify, files):
    prepared = [classify.prepare(path) for path in files[:3]]
    plain, explained = classify.answers(prepared), classify.answers(prepared, explain=True)
    pixels = np.stack([each.pixels for each in prepared])
    there, turned = classify.explained(list(pixels)), classify.explained(list(pixels[:, :, ::-1]))
    for i, (one, other) in enumerate(zip(plain, explained)):
        assert one.features is one.map is None and one.predictions == other.predictions
        np.testing.assert_array_equal(other.features, there[1][i])
        at = there[0][i].argmax()
        others = np.delete(there[2][i], at, 2).max(2)
        np.testing.assert_array_equal(other.map, there[2][i, :, :, at] - others)
    with Classifier(workspace.model, mirror=True) as classify_both:
        found = classify_both.explained(list(pixels))
    for both, one, other in zip(found[:2], there, turned):
        np.testing.assert_allclose(both, (one + other) / 2, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[2], there[2], rtol=1e-4, atol=1e-5)
    assert classify.answers([BadPicture("none")], explain=True)[0].args == ("none",)


def test_what_is_wrong_is_said_at_once(copy):
    for arguments, says in (
        ({"device": "tpu"}, "none of auto, cpu"),
        ({"formats": ["PDF"]}, "'PDF' is neither WEBP nor TIFF"),
    ):
        with pytest.raises(UsageError, match=says):
            Classifier(copy, **arguments)
    name = modelfolder.load_model(copy).checkpoint
    with open(os.path.join(os.path.dirname(name), "checkpoint"), "w"):
        pass
    with pytest.warns(UserWarning, match="missing or damaged; taking"), Classifier(copy) as classify:
        assert classify.classes == sorted(classify.classes)
        for one in ("photo.jpg", b"GIF89a", Path("photo.jpg")):  # whose letters are no pictures
            with pytest.raises(TypeError, match=r"not one of them: \[picture\]"):
                classify.batch(one)


# --- threads, processes ----------------------------------------


def hammer(classify, pictures, threads, calls):
    """The answers, [threads, calls, classes], of so many threads that call at once."""
    found = [[] for _ in range(threads)]

    def work(mine):
        mine += [classify(pictures[i % len(pictures)]).probabilities for i in range(calls)]

    workers = [threading.Thread(target=work, args=[mine]) for mine in found]
    for each in workers:
        each.start()
    for each in workers:
        each.join()
    return np.array(found)


@pytest.mark.parametrize("calls", [12, pytest.param(100, marks=pytest.mark.slow)])
def test_threads_share_it(classify, files, calls):
    expected = [classify(files[i % len(files)]).probabilities for i in range(calls)]
    found = hammer(classify, files, 8, calls)
    assert found.shape == (8, calls, 3) and (found == expected).all()


def resident():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))


@pytest.mark.slow
def test_memory_does_not_grow(classify, files):
    hammer(classify, files, 4, 100)
    before = resident()
    hammer(classify, files, 4, 200)
    assert resident() < 1.05 * before


def left():
    """Of this process: threads but TensorFlow's own, which stay in it, file descriptors, child processes."""
    with open("/proc/self/task/%d/children" % os.getpid()) as file:
        return threading.active_count(), len(os.listdir("/proc/self/fd")), file.read()


def leaves(before):
    """Whether there is no more of it than before, or soon is not: a thread that was ended may end later."""
    for _ in range(1000):
        if left() == before:
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("sandbox", [False, True])
def test_it_leaves_nothing(workspace, classify, files, sandbox):
    before = left()
    for _ in range(2):
        with Classifier(workspace.model, sandbox=sandbox) as other:
            batch = other.batch(files * 3, batch_size=1)
            next(batch)
            assert left()[0] > before[0]
        for call, *arguments in ((other, files[0]), (next, batch), (next, other.batch(files))):
            with pytest.raises(RuntimeError, match="this Classifier is closed"):
                call(*arguments)
        other.close()
        assert leaves(before)
    forgotten = Classifier(workspace.model, sandbox=sandbox)
    forgotten(files[0])
    del forgotten
    assert leaves(before)
    with pytest.raises(UserError, match="no such model"):
        Classifier(os.path.join(workspace.folder, "none"))
    assert leaves(before)


def test_closing_waits_for_the_calls_of_others(workspace, files):
    other = Classifier(workspace.model)
    failed = []

    def work():
        try:
            while True:
                other(files[0])
        except RuntimeError as error:
            failed.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for each in threads:
        each.start()
    time.sleep(0.2)
    other.close()
    for each in threads:
        each.join(60)
    assert failed == ["this Classifier is closed"] * 4


def test_the_sandbox_serves_all_threads(workspace, files):
    with Classifier(workspace.model, sandbox=True, max_pixels=250000) as classify:
        expected = classify(files[0]).probabilities
        assert (hammer(classify, files[:1], 8, 3) == expected).all()
        decoders = [each for each in classify._reader.sandbox.idle.queue if each]
        assert 0 < len(decoders) <= os.cpu_count()
        for each in decoders:  # as the system does when memory runs out
            each.kill()
            each.wait()
        assert (hammer(classify, files[:1], 2, 2) == expected).all()
        with pytest.raises(BadPicture, match="600 x 500 pixels are too many"):
            classify(file_bytes(gradient((600, 500)), "PNG"))


@pytest.mark.parametrize("sandbox", [False, True])
def test_jpegs_may_be_larger_than_what_is_decoded_whole(workspace, sandbox):
    with Classifier(workspace.model, sandbox=sandbox, max_pixels=(10**6, 250000)) as classify:
        classify(file_bytes(gradient((600, 500)), "JPEG"))
        with pytest.raises(BadPicture, match="600 x 500 pixels are too many, 250000 is the limit"):
            classify(file_bytes(gradient((600, 500)), "PNG"))
        with pytest.raises(BadPicture, match="1100 x 1000 pixels are too many, 1000000 is the limit"):
            classify(file_bytes(gradient((1100, 1000)), "JPEG"))


def test_a_batch_that_nobody_waits_for(workspace, files):
    """Its pictures are not decoded any more, and whoever lets go of the last reference ends the rest."""
    for wrong in ({"batch_size": 0}, {"batch_size": -1}, {"top": 0}, {"threshold": 2}):
        with Classifier(workspace.model) as classify, pytest.raises(ValueError, match="must be"):
            classify.batch(files, **wrong)
    code = """if True:
        import sys
        from predict import Classifier
        classify = Classifier(sys.argv[1])
        answers = classify.batch(sys.argv[2:3] * 200, batch_size=50)
        next(answers)
        del answers, classify
    """
    command = [sys.executable, "-c", code, workspace.model, files[0]]
    done = subprocess.run(command, env=finding(ROOT), capture_output=True, timeout=MINUTES * 60)
    assert done.returncode == 0 and done.stderr == b""


# --- what a program gets at it by, and finds changed ----------------------------------------


def in_a_program(code, folder, *arguments, **environment):
    """Run it as a program of somebody else's, in a folder of its own; what it prints."""
    environment = finding(ROOT, TF_CPP_MIN_LOG_LEVEL="3", **environment)
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(
        command, cwd=str(folder), env=environment, capture_output=True, encoding="utf-8", timeout=MINUTES * 60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


GUEST = """if True:
    import io, logging, os, signal, sys, threading, warnings
    import numpy as np
    import tensorflow as tf
    from PIL import Image, ImageFile, PngImagePlugin

    Image.MAX_IMAGE_PIXELS = 1000
    def host():
        "What the program does with TensorFlow by itself: eagerly, where that is how it comes."
        if not tf.__version__.startswith("2."):
            with tf.Graph().as_default(), tf.Session() as session:
                return session.run(tf.add(1, 2))
        layer = tf.keras.layers.Dense(3)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(tf.ones([2, 4])))
        assert tf.executing_eagerly() and tape.gradient(loss, layer.kernel).shape == (4, 3)
        return int(tf.function(lambda a: tf.cond(a > 0, lambda: a + 2, lambda: a))(tf.constant(1)))
    def state():
        loggers = {name: logging.getLogger(name).level for name in (None, "tensorflow", "PIL", "absl")}
        signals = {number: signal.getsignal(number) for number in signal.Signals}
        limits = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, ImageFile.LOAD_TRUNCATED_IMAGES
        hooks = sys.excepthook, sys.stdout, sys.stderr, getattr(threading, "excepthook", None)
        return loggers, signals, limits, hooks, list(warnings.filters), dict(os.environ), os.getcwd()
    assert host() == 3
    before = state()
    from predict import Classifier, BadPicture
    found = []
    for turn in range(2):  # prepared at first, then from its cache
        with Classifier(sys.argv[1]) as classify:
            for path in sys.argv[2:]:
                classify(path)
            answers = list(classify.batch(sys.argv[2:]))
            found.append([each.probabilities.tobytes() for each in answers])
            assert classify(Image.new("RGB", (50, 40))).label
            assert host() == 3
    after = state()
    for one, other in zip(before, after):
        assert one == other, (one, other)
    assert host() == 3 and found[0] == found[1]
    print(answers[0].predictions)
"""


def test_it_is_a_good_guest(copy, workspace, files, tmp_path):
    """In a program whose limits are lower than ours, with a picture of which Pillow warns."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    damaged = str(tmp_path / "damaged exif.jpg")
    with open(damaged, "wb") as file:
        file.write(file_bytes(gradient((70, 50)), "JPEG", exif=exif.tobytes()[:-20]))
    out, err = in_a_program(GUEST, tmp_path, copy, *files, damaged)
    assert os.path.exists(inference_graph.cache_path(modelfolder.load_model(copy)))
    assert err == ""
    with Classifier(workspace.model) as classify:
        assert eval(out) == next(classify.batch([*files, damaged])).predictions


FORK = """if True:
    import os, sys
    import tensorflow as tf
    from predict import Classifier
    picture, model = sys.argv[2], sys.argv[1]
    def child(work):
        process = os.fork()
        if not process:
            try:
                work()
                os._exit(7)
            finally:
                os._exit(1)
        return os.WEXITSTATUS(os.waitpid(process, 0)[1])
    def loads():
        with Classifier(model) as classify:
            assert classify(picture).label
    assert child(loads) == 7
    classify = Classifier(model, sandbox=True)
    expected = classify(picture).probabilities
    def uses():
        for call in (lambda: classify(picture), lambda: next(classify.batch([picture]))):
            try:
                call()
            except RuntimeError as error:
                assert "make one in the child" in str(error)
            else:
                os._exit(2)
        classify.close()
    assert child(uses) == 7
    def ends():
        global classify
        del classify
        sys.exit(0)
    if not os.fork():
        ends()
    assert os.wait()[1] == 0
    assert (classify(picture).probabilities == expected).all()
    print("done")
"""


def test_after_a_fork(workspace, files, tmp_path):
    out, _ = in_a_program(FORK, tmp_path, workspace.model, files[0])
    assert out == "done\n"
