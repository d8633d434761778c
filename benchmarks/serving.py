"""Measure serve.py: its rate with many clients, what one waits, its memory, and clients that drip.

    python benchmarks/serving.py [--mini] [--rounds 5] [--requests 10000]

ResNet-50 at 224 pixels with 10 classes and random weights, with --mini the small one at 64 pixels, on drawn
pictures of 320 pixels. What is compared runs in turns; medians of the rounds, and ratios of one run.
"""

import argparse
import asyncio
import contextlib
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [ROOT, os.path.join(ROOT, "data")]
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import draw_demo
import random_model

from suite.model.classifier import Classifier

CLIENTS = 32
DRIPPING, DEADLINE = 100, 30  # clients, and the server's seconds
SECONDS = 5  # of a turn
PICTURES = 64
HEAD = "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mini", action="store_true", help="the small network")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=10000, help="after which the memory is compared")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        model = os.path.join(folder, "model")
        network = {"layers": 50, "mini": options.mini, "shortcut": "zero_pad", "preactivation": False}
        random_model.make(model, network, 10, 64 if options.mini else 224)
        pictures = draw(os.path.join(folder, "pictures"))
        classify = stack.enter_context(Classifier(model))
        list(classify.batch(pictures))
        servers = {
            name: stack.enter_context(serving(model, *more))
            for name, more in (
                ("serve.py", []),
                ("--batch_size 1", ["--batch_size", "1"]),
                ("--sandbox", ["--sandbox"]),
            )
        }
        measure_rates(classify, servers, pictures, options.rounds)
        measure_one_client(classify, servers["serve.py"], pictures, options.rounds)
        measure_memory(servers["serve.py"], pictures, options.requests)
        measure_dripping(servers["serve.py"], pictures)


def draw(folder):
    """The bytes of so many JPEGs."""
    rng, fruits = random.Random(0), sorted(draw_demo.FRUITS)
    os.makedirs(folder)
    found = []
    for i in range(PICTURES):
        path = os.path.join(folder, "%d.jpg" % i)
        draw_demo.picture(fruits[i % len(fruits)], 320, rng).save(path, quality=90)
        with open(path, "rb") as file:
            found.append(file.read())
    return found


@contextlib.contextmanager
def serving(model, *more):
    """(port, process) of a serve.py."""
    command = [sys.executable, os.path.join(ROOT, "serve.py"), "--model", model, "--port", "0", *more]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8")
    for line in process.stderr:
        found = re.match(r"serving .*:(\d+)/$", line)
        if found:
            yield int(found.group(1)), process
            break
    process.terminate()
    if process.wait() != 0:
        sys.exit("serving.py: error: serve.py ended with status %d" % process.returncode)


# --- clients ----------------------------------------


async def ask(reader, writer, picture):
    """Post a picture and read the answer."""
    writer.write((HEAD % ("/classify", len(picture))).encode("ascii") + picture)
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        sys.exit("serving.py: error: %s" % head.decode())
    await reader.readexactly(int(re.search(rb"Content-Length: (\d+)", head).group(1)))


async def client(port, pictures, until):
    """Ask one after the other until a time, or a number of times; the seconds that each took."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    taken = []
    while not until(len(taken)):
        began = time.perf_counter()
        await ask(reader, writer, pictures[len(taken) % len(pictures)])
        taken.append(time.perf_counter() - began)
    writer.close()
    return taken


async def several(port, pictures, count, until):
    """What so many clients measure at once."""
    return await asyncio.gather(*(client(port, pictures, until) for _ in range(count)))


def ask_plainly(port, pictures):
    """The seconds that each of the pictures takes a client without a loop of its own."""
    taken = []
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for picture in pictures:
            began = time.perf_counter()
            connection.sendall((HEAD % ("/classify", len(picture))).encode("ascii") + picture)
            if not connection.recv(1 << 16).startswith(b"HTTP/1.1 200 "):
                sys.exit("serving.py: error: no answer")
            taken.append(time.perf_counter() - began)
    return taken


def for_seconds(seconds):
    end = time.perf_counter() + seconds
    return lambda asked: time.perf_counter() > end


# --- what is measured ----------------------------------------


def measure_rates(classify, servers, pictures, rounds):
    rates = {name: [] for name in ("Classifier.batch", *servers)}
    for _ in range(rounds):
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < SECONDS:
            count += len(list(classify.batch(pictures)))
        rates["Classifier.batch"].append(count / (time.perf_counter() - began))
        for name, (port, _) in servers.items():
            began = time.perf_counter()
            taken = asyncio.run(several(port, pictures, CLIENTS, for_seconds(SECONDS)))
            rates[name].append(sum(map(len, taken)) / (time.perf_counter() - began))
    medians = {name: statistics.median(each) for name, each in rates.items()}
    print("%-40s %10s" % ("%d clients, medians of %d rounds" % (CLIENTS, rounds), "pictures/s"))
    for name, median in medians.items():
        print("%-40s %10.1f" % (name, median))
    for one, other in (
        ("serve.py", "Classifier.batch"),
        ("serve.py", "--batch_size 1"),
        ("--sandbox", "serve.py"),
    ):
        print("%-40s %10.2f" % ("%s / %s" % (one, other), medians[one] / medians[other]))


def measure_one_client(classify, server, pictures, rounds):
    bare, served = [], []
    for _ in range(rounds):
        for picture in pictures:
            began = time.perf_counter()
            classify(picture)
            bare.append(time.perf_counter() - began)
        served += ask_plainly(server[0], pictures)
    bare, served = (1000 * statistics.median(each) for each in (bare, served))
    print("%-40s %10.2f ms" % ("one answer of Classifier", bare))
    print("%-40s %10.2f ms, %.2f more" % ("one client", served, served - bare))


def measure_memory(server, pictures, requests):
    found = []
    for count in (requests // 10, requests):
        each = count // CLIENTS
        asyncio.run(several(server[0], pictures, CLIENTS, lambda asked, each=each: asked == each))
        with open("/proc/%d/status" % server[1].pid) as file:
            found.append(next(int(line.split()[1]) >> 10 for line in file if line.startswith("VmRSS")))
    growth = 100 * (found[1] / found[0] - 1)
    print("memory: %d MB, after %d requests more %d MB: %+.1f%%" % (found[0], requests, found[1], growth))


async def drip(port):
    """Seconds until a client is cut off that sends a byte every half second."""
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write((HEAD % ("/classify", 1000)).encode("ascii"))
    said = asyncio.ensure_future(reader.read())
    while not said.done():
        writer.write(b"x")
        await asyncio.wait([said], timeout=0.5)
    writer.close()
    return time.perf_counter() - began


def measure_dripping(server, pictures):
    async def both():
        dripping = [asyncio.ensure_future(drip(server[0])) for _ in range(DRIPPING)]
        normal = await client(server[0], pictures, for_seconds(DEADLINE - 1))
        return await asyncio.gather(*dripping), normal

    cut, normal = asyncio.run(both())
    late = sum(seconds > DEADLINE + 1 for seconds in cut)
    print("%d clients that drip: cut off after %.1f s at most, %d too late" % (len(cut), max(cut), late))
    p99 = sorted(normal)[int(0.99 * len(normal))]
    print("beside them one client's 99th percentile: %.0f ms" % (1000 * p99))


if __name__ == "__main__":
    main()
