"""How the cost of converting and training grows, and whether --dry_run foresees the memory.

    python benchmarks/growth.py [--parts convert,share,speed,loader,workers,data,memory] [--largest 100000]

convert  FlowIO.py, against the number of pictures of 32 pixels, up to --largest: time, memory, and what the
         files that it writes hold at most
share    FlowIO.py where each file takes a while to be opened and read, against --workers

speed    pictures/s against batch size, picture size and depth, in turns (see turns.py)
loader   of train.py, which reads records, against the bare step on pictures that are in memory
workers  against the number of processes, one thread each, with TF_CONFIG on this machine
data     reading, against the number of records, synthetic ones of 32 pixels
memory   the largest resident size of train.py against what --dry_run says

An exponent is the slope of a line through the logarithms: of the time per picture, for workers of
pictures/s, for convert of the whole time.
"""

import argparse
import contextlib
import csv
import glob
import json
import os
import re
import socket
import stat
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np
from flowio import make_small
from PIL import Image
from turns import take_turns

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
sys.path.insert(0, ROOT)
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

from suite.files import jsonfile
from suite.files.schemas import SPLITS
from suite.process.tf_versions import tf
from suite.records import reading

# Along each line one number grows: layers, width, side, batch.
SPEED = {
    "batch size, mini, 32 px": [(50, "mini", 32, batch) for batch in (8, 16, 32, 64, 128)],
    "side of the pictures, batch 8": [(50, "full", side, 8) for side in (32, 64, 128, 224)],
    "layers, 64 px, batch 32": [(layers, "full", 64, 32) for layers in (50, 101, 152)],
}
RECORDS = (1000, 10000, 100000, 1000000)
DELAYS = (0, 0.04)  # s that a file takes to be opened and read
SHARED = 2000  # pictures on a slow share
SLOW = """
import sys, time
from suite.pictures import imagefile
from suite.process import lifetime
import FlowIO
read_file = imagefile.read_file
imagefile.read_file = lambda path: time.sleep(%g) or read_file(path)
lifetime.run(FlowIO.main)
"""
MEMORY = [(50, 224, 8), (50, 224, 32), (101, 224, 8), (152, 224, 8), (50, 64, 32), (50, 64, 128)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--parts", default="convert,share,speed,loader,workers,data,memory")
    parser.add_argument("--largest", type=int, default=100000, help="pictures to convert at most")
    options = parser.parse_args()
    tf.logging.set_verbosity(tf.logging.FATAL)
    for part in options.parts.split(","):
        globals()["measure_" + part](options)


def exponent(sizes, values):
    return np.polyfit(np.log(sizes), np.log(values), 1)[0]


def table(*names):
    print("\n| %s |\n|%s" % (" | ".join(names), " ---: |" * len(names)), flush=True)


def row(*cells):
    print("| %s |" % " | ".join(map(str, cells)), flush=True)


# --- FlowIO.py ----------------------------------------


def measure_convert(options):
    counts = [count for count in (1000, 10000, 100000, 1000000) if count < options.largest] + [
        options.largest
    ]
    table("pictures of 32 pixels", "s", "ms a picture", "peak memory, MB", "disk at most / records")
    seconds, peaks = [], []
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            dataset, records = os.path.join(folder, "pictures"), os.path.join(folder, "out", "records")
            os.makedirs(os.path.dirname(records))
            make_small(dataset, count)
            held = DiskUse(os.path.dirname(records))
            began = time.perf_counter()
            peaks.append(1000 * peak_memory([*conversion(dataset, records), "--image_size", "32"]))
            seconds.append(time.perf_counter() - began)
            size = sum(os.path.getsize(os.path.join(records, name)) for name in os.listdir(records))
            each = "%.2f" % (1000 * seconds[-1] / count)
            row(count, "%.1f" % seconds[-1], each, "%.0f" % peaks[-1], "%.2f" % (held.most() / size))
    if len(counts) > 1:
        print(
            "time ~ pictures^%.2f, of the two largest ^%.2f"
            % (exponent(counts, seconds), exponent(counts[-2:], seconds[-2:]))
        )
        grown = 1e6 * (peaks[-1] - peaks[-2]) / (counts[-1] - counts[-2])
        print("memory: %.0f bytes for each further picture" % grown)


def conversion(dataset, records):
    return [sys.executable, os.path.join(ROOT, "FlowIO.py"), "--dataset", dataset, "--output", records]


class DiskUse:
    """The most bytes that the files in a folder held, also those without a name; asked for all the time."""

    def __init__(self, folder):
        self.held, self.ended = [], threading.Event()
        self.thread = threading.Thread(target=self._watch, args=(folder,), daemon=True)
        self.thread.start()

    def _watch(self, folder):
        while not self.ended.wait(0.2):
            named = glob.glob(os.path.join(glob.escape(folder), "**", "*"), recursive=True)
            sizes = {}
            for path in [*named, *glob.glob("/proc/[0-9]*/fd/*")]:
                with contextlib.suppress(OSError):
                    status = os.stat(path)
                    if stat.S_ISREG(status.st_mode) and os.path.realpath(path).startswith(folder):
                        sizes[status.st_ino] = status.st_size
            self.held.append(sum(sizes.values()))

    def most(self):
        self.ended.set()
        self.thread.join()
        return max(self.held)


def measure_share(_):
    table("`--workers`", *("pictures/s, %g ms a file" % (1000 * delay) for delay in DELAYS), "ratio")
    with tempfile.TemporaryDirectory() as folder:
        dataset, records = os.path.join(folder, "pictures"), os.path.join(folder, "records")
        make_small(dataset, SHARED)
        for workers in (os.cpu_count(), 16, 64):
            rates = []
            for delay in DELAYS:
                command = [sys.executable, "-c", SLOW % delay, *conversion(dataset, records)[2:]]
                command += ["--image_size", "32", "--workers", str(workers)]
                began = time.perf_counter()
                subprocess.run(
                    command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
                rates.append(SHARED / (time.perf_counter() - began))
            row(workers, *("%.0f" % rate for rate in rates), "%.2f" % (rates[1] / rates[0]))


# --- speed ----------------------------------------


def measure_speed(_):
    script = os.path.join(HERE, "tensorflow_steps.py")
    for name, cases in SPEED.items():
        axis = next(i for i in range(4) if cases[0][i] != cases[-1][i])
        commands = {
            str(case[axis]): [sys.executable, script, "ours", "train", *map(str, case)] for case in cases
        }
        seconds = []
        table(name, "pictures/s")
        for contender, case in zip(take_turns(commands, 2, 5), cases):
            step = statistics.median(each for turn in contender.rounds for each in turn)
            seconds.append(step / case[3])
            row(contender.name, "%.1f" % (1 / seconds[-1]))
        print("time per picture ~ x^%.2f" % exponent([case[axis] for case in cases], seconds))


# --- train.py as it is run ----------------------------------------


def measure_loader(_):
    table("mini, 32 px, batch 32", "pictures/s")
    with tempfile.TemporaryDirectory() as folder:
        records = write_records(os.path.join(folder, "records"), 4096)
        bare, whole = [], []
        script = os.path.join(HERE, "tensorflow_steps.py")
        step = [sys.executable, script, "ours", "train", "50", "mini", "32", "32"]
        for turn in range(3):
            (contender,) = take_turns({"bare": step}, 2, 5)
            bare.append(32 / statistics.median(each for round in contender.rounds for each in round))
            output = os.path.join(folder, "model-%d" % turn)
            whole.append(training_rate([start_training(records, output)], output))
    row("bare step", "%.1f" % statistics.median(bare))
    row("train.py", "%.1f" % statistics.median(whole))
    print("train.py / bare step: %.2f" % statistics.median(a / b for a, b in zip(whole, bare)))


def start_training(records, output, *options, environment=None):
    command = [sys.executable, os.path.join(ROOT, "train.py"), "--data", records, "--output", output]
    command += ["--mini", "--step", "200", "--save_num", "200", "--log_num", "20", *options]
    return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)


def training_rate(processes, output):
    """Pictures/s, the median of the log, when all processes have ended."""
    for process in processes:
        if process.wait():
            sys.exit("train.py ended with %d" % process.returncode)
    with open(os.path.join(output, "log.csv"), encoding="utf-8", newline="") as file:
        speeds = [float(line["images_per_second"]) for line in csv.DictReader(file) if line["loss"]]
    return statistics.median(speeds[1:])


def measure_workers(_):
    with tempfile.TemporaryDirectory() as folder:
        records = write_records(os.path.join(folder, "records"), 4096)
        table("processes, mini, 32 px, 32 pictures each", "pictures/s")
        rates = []
        for count in (1, 2):
            ports = free_ports(count)
            output = os.path.join(folder, "model-%d" % count)
            processes = [start_worker(records, output, ports, i) for i in range(count)]
            rates.append(training_rate(processes, output))
            row(count, "%.1f" % rates[-1])
        print("pictures/s ~ processes^%.2f" % exponent([1, 2], rates))


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def start_worker(records, output, ports, index):
    addresses = ["127.0.0.1:%d" % port for port in ports]
    config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
    environment = dict(os.environ, TF_CONFIG=json.dumps(config))
    batch = str(32 * len(ports))
    return start_training(records, output, "--workers", "1", "--batch_size", batch, environment=environment)


# --- data ----------------------------------------


def measure_data(_):
    table("records of 32 pixels", "pictures/s, `--augment flip`")
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        for count in RECORDS:
            records = reading.load_records(write_records(os.path.join(folder, str(count)), count))
            seconds.append(1 / reading_rate(records))
            row("%d" % count, "%.0f" % (1 / seconds[-1]))
    print("time per picture ~ records^%.2f" % exponent(RECORDS, seconds))


def write_records(folder, count, image_size=32):
    """Records of two classes as FlowIO.py writes them, all of one picture; all to train on."""
    os.makedirs(folder)
    rng = np.random.RandomState(0)
    path = os.path.join(folder, "picture.jpg")
    Image.fromarray(rng.randint(0, 256, [37, 37, 3]).astype(np.uint8)).save(path, quality=95)
    with open(path, "rb") as file:
        jpeg = file.read()
    names = reading.shard_names("train", count)
    examples = [example(jpeg, label) for label in (0, 1)]
    for shard, name in enumerate(names):
        with tf.python_io.TFRecordWriter(os.path.join(folder, name)) as writer:
            for i in range(min(reading.PICTURES_PER_SHARD, count - shard * reading.PICTURES_PER_SHARD)):
                writer.write(examples[i % 2])
    shards = {name: os.path.getsize(os.path.join(folder, name)) for name in names}
    counts = {split: {"0": 0, "1": 0} for split in SPLITS}
    counts["train"] = {"0": count - count // 2, "1": count // 2}
    content = {"classes": ["0", "1"], "image_size": image_size, "skipped": 0, "options": {}}
    content.update(counts=counts, shards=shards)
    jsonfile.write(os.path.join(folder, "dataset.json"), content)
    return folder


def example(jpeg, label):
    def feature(value):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    number = tf.train.Feature(int64_list=tf.train.Int64List(value=[label]))
    fields = {"image/encoded": feature(jpeg), "image/class/label": number, "image/filename": feature(b"x")}
    return tf.train.Example(features=tf.train.Features(feature=fields)).SerializeToString()


def reading_rate(records, batch=128, batches=150):
    with tf.Graph().as_default(), tf.Session() as session:
        dataset = reading.read_for_training(records, "train", batch, "flip", 0)
        images = tf.data.make_one_shot_iterator(dataset).get_next()["image"].op
        for _ in range(50):  # the buffer of the shuffling fills
            session.run(images)
        began = time.perf_counter()
        for _ in range(batches):
            session.run(images)
        return batch * batches / (time.perf_counter() - began)


# --- memory ----------------------------------------


def measure_memory(_):
    table("layers", "side", "batch", "foreseen, GB", "peak, GB", "foreseen / peak")
    with tempfile.TemporaryDirectory() as folder:
        for layers, side, batch in MEMORY:
            records = os.path.join(folder, "records-%d" % side)
            if not os.path.exists(records):
                write_records(records, 256, side)
            output = os.path.join(folder, "model-%d-%d-%d" % (layers, side, batch))
            command = [sys.executable, os.path.join(ROOT, "train.py"), "--data", records, "--output", output]
            command += ["--layers", str(layers), "--batch_size", str(batch), "--step", "3"]
            command += ["--bn_batches", "0"]
            said = subprocess.run(
                [*command, "--dry_run"],
                check=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            ).stdout
            foreseen = float(re.search(r"memory: about ([\d.]+) GB", said).group(1))
            peak = peak_memory(command)
            row(layers, side, batch, foreseen, "%.2f" % peak, "%.2f" % (foreseen / peak))


def peak_memory(command):
    """The largest resident size of a command, in GB."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit("%s failed" % " ".join(command))
    return usage.ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    main()
