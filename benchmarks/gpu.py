"""What a GPU gives: steps, records, inference, start-up, memory; against PyTorch and what the card can do.

    python benchmarks/gpu.py [--pytorch PYTHON] [--parts NAME ...] [--seconds 570] [--output gpu.jsonl]
    python benchmarks/gpu.py --quick --device cpu     # tries all of it, with the mini network

Runs PARTS, each in a process with a limit of its own, and prints the table of gpu_report.py. Each result is a
line of --output as soon as it is measured, so what is stopped loses nothing; the same command again goes on
with the parts that have not ended. What fails is a row that says why.

Steps on pictures in memory are taken in turns by processes that stand ready together, see turns.py; the first
step of each, in which XLA compiles, is taken alone.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from multiprocessing.pool import ThreadPool

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
sys.path[:0] = [ROOT, os.path.join(ROOT, "data")]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import gpu_report
from turns import Contender, Ended

LIMIT = 115  # seconds of a part
ROUNDS, TURN = 4, 0.6  # turns of each contender, and the seconds of one
PRODUCT, CHAIN = 8192, 8  # side of the matrices, and how many products a run takes
PICTURES, SECONDS = 4096, 4  # in the records, and that reading them is timed for
XLA = {choice: ["--xla", choice] for choice in ("no", "yes", "auto")}
NAMED = {"no": "", "yes": ", XLA", "auto": ", XLA auto"}
FEW = 8  # pictures that predict.py is started for
TORCH_FREE = ("PYTHONHOME", "PYTHONPATH", "LD_LIBRARY_PATH")  # of TensorFlow's Python, not for PyTorch's


def main():
    options = parse_options()
    if options.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    if options.part:
        from suite.process import tf_versions

        tf_versions.as_version_1()  # as train.py, whose variables XLA takes otherwise
        PARTS[options.part](options)
        return
    began = time.perf_counter()
    done = {part for part, rows in gpu_report.load(options.output).items() if "done" in rows}
    for part in options.parts or [part for part in PARTS if part not in done]:
        left = options.seconds - (time.perf_counter() - began)
        if left > 30:
            run_part(part, min(LIMIT, left), options)
        else:
            print("%s: not begun, no time is left; the same command goes on" % part, file=sys.stderr)
    gpu_report.show(options.output)


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), help="only these, in this order")
    parser.add_argument("--pytorch", metavar="PYTHON", help="a Python with PyTorch, to compare with")
    parser.add_argument("--output", default="gpu.jsonl", help="file that the results are added to")
    parser.add_argument("--seconds", type=float, default=570, help="that all parts may take together")
    parser.add_argument("--device", choices=["auto", "cpu"], default="auto")
    parser.add_argument(
        "--quick", action="store_true", help="mini, 32 px, batch 4: tries the benchmark itself"
    )
    parser.add_argument("--part", help=argparse.SUPPRESS)  # run that here
    return parser.parse_args()


def run_part(part, limit, options):
    """Run a part in a process, and end it, with all that it started, when the limit is over."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, *sys.argv, "--part", part], start_new_session=True)
    try:
        status = process.wait(limit)
        if status == 0:
            emit(options, part, "done", took=round(time.perf_counter() - began))
        else:
            emit(options, part, "the rest", error="ended with status %d" % status)
    except subprocess.TimeoutExpired:
        emit(options, part, "the rest", error="stopped after %.0f s" % limit)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def emit(options, part, row, **facts):
    """Add a line to --output: what is known of a row, or more of it."""
    with open(options.output, "a") as file:
        file.write(json.dumps(dict(facts, part=part, row=row)) + "\n")
    if "seconds" not in facts:
        print(part, row, facts, file=sys.stderr, flush=True)


@contextlib.contextmanager
def trying(options, row):
    """What fails in it is a row that says why."""
    try:
        yield
    except Exception as error:
        emit(options, options.part, row, error=gpu_report.reason(str(error) or repr(error)))


def scaled(options, width, size, batch):
    """Width, side and batch, or those of --quick."""
    return ("mini", 32, 4) if options.quick else (width, size, batch)


# --- what the card can do ----------------------------------------


def limits(options):
    """Products and a copy, and what computes them."""
    from suite.process import device, tf_versions
    from suite.process.tf_versions import tf

    cards = tf_versions.gpu_details(device.session_config()) if device.gpus() else [("CPU", None)]
    build = tf.sysconfig.get_build_info() if tf_versions.is_2() else {}
    versions = {"TensorFlow": tf.__version__, "driver": device.driver(), "cores": os.cpu_count()}
    versions.update({name: build.get(name.lower() + "_version") for name in ("CUDA", "cuDNN")})
    with contextlib.suppress(OSError):
        command = ["git", "-C", ROOT, "rev-parse", "--short", "HEAD"]
        versions["commit"] = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    emit(options, "limits", "machine", card=cards[0][0], **versions)
    side = 256 if options.quick else PRODUCT
    for row, kind in (("float32", "float32"), ("TF32", "float32"), ("fp16", "float16")):
        with trying(options, row), tf.Graph().as_default():
            if tf_versions.is_2():
                tf.config.experimental.enable_tensor_float_32_execution(row == "TF32")
            factor = tf.cast(tf.Variable(tf.random.normal([side, side], stddev=side**-0.5)), kind)
            product = factor
            for _ in range(CHAIN):
                product = tf.matmul(factor, product)
            per_second = timed(product.op)
            emit(options, "limits", "product, " + row, **{"TFLOP/s": per_second * CHAIN * 2 * side**3 / 1e12})
    with trying(options, "copy"), tf.Graph().as_default():
        values = tf.Variable(tf.zeros([side, side, 4]))  # 1 GB
        emit(options, "limits", "copy", **{"GB/s": timed((-values).op) * 2 * 16 * side**2 / 1e9})


def timed(operation, warm_up=5, seconds=1.5):
    """How often in a second it runs, in a session of its own."""
    from suite.process import device
    from suite.process.tf_versions import tf

    with tf.Session(config=device.session_config()) as session:
        session.run(tf.global_variables_initializer())
        return rate(session, operation, warm_up, seconds)


def rate(session, fetches, warm_up, seconds):
    """How often in a second a session runs them."""
    for _ in range(warm_up):
        session.run(fetches)
    began, runs = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        session.run(fetches)
        runs += 1
    return runs / (time.perf_counter() - began)


# --- steps in turns ----------------------------------------


def in_turns(options, commands):
    """Measure contenders against each other; commands: {row: (pictures of a step, command)}."""
    environment = dict(os.environ, GPU_SHARE=str(0.9 / len(commands)))
    clean = {name: value for name, value in environment.items() if name not in TORCH_FREE}
    contenders, batches = [], {}
    for row, (batch, command) in commands.items():
        batches[row] = batch
        contenders.append(Contender(row, command, clean if command[0] == options.pytorch else environment))

    def begin(contender):
        contender.wait()
        contender.pace(0 if options.quick else TURN)
        contender.facts.update(batch=batches[contender.name], first=contender.first)
        emit(options, options.part, contender.name, **contender.facts)
        take(contender)  # at once, as another one may take too long

    def take(contender):
        contender.take(contender.steps)
        emit(options, options.part, contender.name, seconds=contender.rounds[-1])

    def end(contender):
        contender.close()
        emit(options, options.part, contender.name, **contender.facts)

    for act in [begin] + [take] * (ROUNDS - 1) + [end]:
        for contender in list(contenders):
            try:
                act(contender)
            except Ended as error:
                emit(options, options.part, contender.name, error=gpu_report.reason(error.said))
                contenders.remove(contender)


def ours(*words, work="train"):
    """The command of a contender; see tensorflow_steps.py."""
    return [sys.executable, os.path.join(HERE, "tensorflow_steps.py"), "ours", work, *map(str, words)]


def train(layers, width, size, batch, mixed=False, choices=("no", "yes"), layout=None, torch=()):
    """A part: steps of one batch and precision, by the choice of XLA, in another layout, and PyTorch's."""

    def measure(options):
        *shape, number = scaled(options, width, size, batch)
        name, switches = ("mixed", ["--mixed_precision"]) if mixed else ("float32", [])
        rows = {name + NAMED[choice]: XLA[choice] for choice in choices}
        if layout:
            rows["%s, %s" % (name, layout)] = [layout, *XLA["no"]]
        commands = {row: ours(layers, *shape, number, *more, *switches) for row, more in rows.items()}
        for how in torch if options.pytorch else ():
            command = [options.pytorch, os.path.join(HERE, "pytorch_steps.py"), "train"]
            command += [str(layers), str(shape[1]), str(number), *how.split()]
            commands["PyTorch " + (how or "TF32")] = command
        in_turns(options, {row: (number, command) for row, command in commands.items()})

    return measure


# --- from records ----------------------------------------


def draw(folder, count, side):
    """Class folders of pictures whose files are about as large as photos': fruits, with noise."""
    import draw_demo
    import numpy as np
    from PIL import Image

    rng = random.Random(0)
    fruits = [
        (name, np.int16(draw_demo.picture(name, side, rng))) for name in draw_demo.FRUITS for _ in range(9)
    ]
    noise = np.random.RandomState(0).normal(0, 22, [2 * side, 2 * side, 3]).astype(np.int16)
    places = [(rng.randrange(side), rng.randrange(side)) for _ in range(count)]
    for name in draw_demo.FRUITS:
        os.makedirs(os.path.join(folder, name))

    def save(number):
        (name, fruit), (y, x) = fruits[number % len(fruits)], places[number]
        picture = np.clip(fruit + noise[y : y + side, x : x + side], 0, 255).astype(np.uint8)
        Image.fromarray(picture).save(os.path.join(folder, name, "%d.jpg" % number), quality=90)

    with ThreadPool() as pool:
        pool.map(save, range(count))


def records(options):
    """Reading alone; the bare step; both together."""
    feed(options, ["none", "flip", "standard"], bare=True)


def prefetched(options):
    """Both together, with prefetch_to_device, to compare with `records`."""
    feed(options, [], to_device=True)


def feed(options, alone, bare=False, to_device=False):
    """Steps from records with flip and standard.

    Args:
        alone: the augmentations with which reading is measured by itself, too.
        bare: whether the step on pictures in memory is.
        to_device: whether batches wait on the GPU.
    """
    import numpy as np
    from tensorflow_steps import held, settings

    from suite.process import device
    from suite.process.tf_versions import tf
    from suite.records.preprocessing import finish_views
    from suite.records.reading import load_records, read_for_training
    from suite.training.step import SHOWN, training_step

    tf.logging.set_verbosity(tf.logging.FATAL)
    width, size, batch = scaled(options, "full", 224, 128)
    count, seconds = (64, 0.5) if options.quick else (PICTURES, SECONDS)
    warm_up = 2 * count // batch  # all pictures have been read
    config, session_config = settings(50, width == "mini", size, batch, 1000, *XLA["yes"])
    gpu = "/gpu:0" if device.gpus() else "/cpu:0"

    def dataset(augment):
        batches = read_for_training(loaded, "train", batch, augment, seed=0)
        # One kind of batch for all, so that one graph is compiled; names cannot go to a GPU.
        asked = {"mirrored": tf.zeros([batch], tf.bool), "colours": tf.constant([[0.0, 1.0, 1.0]] * batch)}
        return batches.map(lambda each: dict(asked, **{k: v for k, v in each.items() if k != "filename"}))

    def measure(features, sources):
        """sources: {row: what makes the row's pictures the next ones}."""
        tf.train.create_global_step()
        fetches = [training_step(features, config).train_op, list(SHOWN.values())]
        with tf.Session(config=session_config) as session:
            session.run(tf.global_variables_initializer())
            for row, source in sources.items():
                session.run(source)
                emit(options, options.part, row, rate=batch * rate(session, fetches, warm_up, seconds))

    with tempfile.TemporaryDirectory() as folder:
        draw(os.path.join(folder, "dataset"), count, size * 8 // 7)
        flowio = ["FlowIO.py", "--dataset", "dataset", "--output", "records", "--image_size", str(size)]
        flowio += ["--train_ratio", "1", "--val_ratio", "0"]
        subprocess.run([sys.executable, os.path.join(ROOT, flowio[0]), *flowio[1:]], check=True, cwd=folder)
        loaded = load_records(os.path.join(folder, "records"))
        for augment in alone:
            row = "reading alone, " + augment
            with trying(options, row), tf.Graph().as_default(), tf.Session(config=session_config) as session:
                image = tf.data.make_one_shot_iterator(dataset(augment)).get_next()["image"].op
                emit(options, options.part, row, rate=batch * rate(session, image, warm_up, seconds / 2))
        if bare:
            with trying(options, "bare step"), tf.Graph().as_default():
                pictures = np.random.RandomState(0).normal(0, 1, [batch, size, size, 3]).astype("f")
                features = dict(zip(("image", "label"), held(pictures, np.zeros(batch))))
                measure(features, {"bare step": []})
        with trying(options, "flip"), tf.Graph().as_default():
            read = {augment: dataset(augment) for augment in ("flip", "standard")}
            if to_device:
                ahead = tf.data.experimental.prefetch_to_device(gpu, 2)
                read = {augment: each.apply(ahead) for augment, each in read.items()}
            with tf.device(gpu if to_device else "/cpu:0"):
                shapes = tf.data.get_output_shapes(read["flip"])
                types = tf.data.get_output_types(read["flip"])
                iterator = tf.data.Iterator.from_structure(types, shapes)
                begin = {augment: iterator.make_initializer(each) for augment, each in read.items()}
                features = iterator.get_next()
            measure(dict(features, image=finish_views(features, "per_image")), begin)


# --- inference ----------------------------------------


def model_and_pictures(options, folder, count):
    """A model folder with random weights, and a folder of so many pictures."""
    width, size, _ = scaled(options, "full", 224, 0)
    network = {"layers": 50, "mini": width == "mini", "shortcut": "zero_pad", "preactivation": False}
    model, pictures = os.path.join(folder, "model"), os.path.join(folder, "pictures")
    code = "import sys; sys.path[:0] = %r; import random_model; random_model.make(%r, %r, 1000, %d)"
    code %= [HERE, ROOT], model, network, size
    environment = dict(os.environ, CUDA_VISIBLE_DEVICES="-1")
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    draw(pictures, count, size * 8 // 7)
    return model, pictures


def predict(model, pictures, *more):
    """predict.py from start to end: [(seconds since its start, answer)] of all pictures, and its seconds."""
    script = os.path.join(ROOT, "predict.py")
    command = [sys.executable, "-u", script, *pictures, "--model", model, "--json", *more]
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True)
        answers = [(time.perf_counter() - began, json.loads(line)) for line in process.stdout]
        if process.wait():
            said.seek(0)
            raise RuntimeError(said.read())
    return answers, time.perf_counter() - began


def inference(options):
    """The frozen graph alone, and predict.py over a folder, from its first answer on."""
    *shape, _ = scaled(options, "full", 224, 0)
    batches = (1, 4) if options.quick else (1, 32, 256)
    in_turns(options, {"batch %d" % n: (n, ours(50, *shape, n, work="infer")) for n in batches})
    row, count = "predict.py over a folder", 64 if options.quick else 2048
    with tempfile.TemporaryDirectory() as folder, trying(options, row):
        model, pictures = model_and_pictures(options, folder, count)
        answers, _ = predict(model, [pictures] * 4, "--device", options.device)
        times = [
            seconds for seconds, _ in answers if seconds > answers[0][0] + 0.1
        ]  # without the first batch
        emit(options, "inference", row, rate=(len(times) - 1) / (times[-1] - times[0]))


def startup(options):
    """predict.py for some pictures on both devices, in turns; how far their probabilities are apart."""
    said = {}
    with tempfile.TemporaryDirectory() as folder:
        model, pictures = model_and_pictures(options, folder, FEW)
        for place in (options.device, "cpu"):  # which make a cache each
            with trying(options, "cache, " + place):
                predict(model, [pictures], "--device", place)
        for row in ("GPU", "CPU", "GPU", "CPU", "GPU without TF32"):
            with trying(options, row):
                more = ["--device", "cpu" if row == "CPU" else options.device, "--top", "1000"]
                more += ["--tf32", "no"] if "without" in row else []
                answers, seconds = predict(model, [pictures], *more)
                said[row] = {
                    (each["image"], p["label"]): p["probability"]
                    for _, each in answers
                    for p in each["predictions"]
                }
                emit(options, "startup", row, start=[seconds])
    for row in set(said) - {"CPU"} if "CPU" in said else ():
        far = max(abs(p - said["CPU"][which]) for which, p in said[row].items())
        emit(options, "startup", row, **{"greatest difference to the CPU": far})


# The most telling first: a run may end before all are done.
PARTS = {
    "limits": limits,
    "50-256-mixed": train(50, "full", 224, 256, mixed=True, torch=("fp16", "fp16 compile")),
    "50-128-float32": train(50, "full", 224, 128, torch=("", "compile")),
    "50-128-more": train(50, "full", 224, 128, choices=("auto",), layout="NHWC"),
    "records": records,
    "prefetched": prefetched,
    "inference": inference,
    "startup": startup,
    "mini-128-float32": train(50, "mini", 32, 128),
    "50-128-mixed": train(50, "full", 224, 128, mixed=True, layout="NCHW", torch=("fp16",)),
    "50-32-float32": train(50, "full", 224, 32, torch=("",)),
    "50-32-mixed": train(50, "full", 224, 32, mixed=True, torch=("fp16",)),
    "50-256-float32": train(50, "full", 224, 256),
    "mini-256-mixed": train(50, "mini", 32, 256, mixed=True),
    "152-128-mixed": train(152, "full", 224, 128, mixed=True, torch=("fp16",)),
}


if __name__ == "__main__":
    main()
