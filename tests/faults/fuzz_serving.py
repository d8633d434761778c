"""Send serve.py requests that are damaged in every way: no answer may be a 500, and none may be missing.

    python tests/faults/fuzz_serving.py [--model models/demo] [--requests 20000] [--seed 0]

Heads, bodies, JSON and pictures, to a server on this machine that this script starts. Exit status 1 where
something was wrong, which is printed with the bytes that were sent.
"""

import argparse
import asyncio
import base64
import collections
import io
import json
import os
import random
import re
import subprocess
import sys

from PIL import Image

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
AT_ONCE = 16
SECONDS = 40  # in which the server has answered, or closed
JSON_PARTS = [
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "null",
    "1e999",
    "-",
    '"',
    "\\u0000",
    '"instances"',
    '"b64"',
    "NaN",
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default=os.path.join(ROOT, "models", "demo"))
    parser.add_argument("--requests", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    command = [sys.executable, os.path.join(ROOT, "serve.py"), "--model", options.model, "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    port = None
    while port is None:
        line = process.stderr.readline().decode()
        if not line:
            sys.exit("fuzz_serving.py: error: serve.py did not start")
        found = re.match(r"serving (\S+) at http://.*:(\d+)/$", line)
        if found:
            name, port = found.group(1), int(found.group(2))
    statuses, wrong = asyncio.run(fuzz(options, name, port))
    process.terminate()
    said = process.communicate()[1].decode()
    for status, count in sorted(statuses.items()):
        print("%-20s %6d" % (status, count))
    for sent in wrong[:5]:
        print("wrong: %r" % sent[:2000])
    if wrong or "Traceback" in said or process.returncode:
        print(said[-2000:])
        sys.exit("%d wrong answers; exit status %d" % (len(wrong), process.returncode))


async def fuzz(options, name, port):
    """How often each status came, and what was sent where that was wrong."""
    rng = random.Random(options.seed)
    seeds, statuses, wrong = valid_requests(name), collections.Counter(), []
    room = asyncio.Semaphore(AT_ONCE)

    async def one(sent):
        async with room:
            status = await ask(port, sent)
            statuses[status] += 1
            if status == "no end" or status[:1] == "5" and status != "503":
                wrong.append(sent)

    work = [one(damage(rng, *rng.choice(seeds))) for _ in range(options.requests)]
    await asyncio.gather(*work)
    for head, body in seeds:  # after all that it still answers
        if await ask(port, head + body) != "200":
            wrong.append(head + body)
    return statuses, wrong


def valid_requests(name):
    """[(head, body)], each of which is answered by 200."""
    file, image = io.BytesIO(), Image.radial_gradient("L").resize((60, 40)).convert("RGB")
    image.save(file, "JPEG")
    jpeg, file = file.getvalue(), io.BytesIO()
    image.save(file, "PNG")
    instance = {"image_bytes": {"b64": base64.b64encode(jpeg).decode()}}
    predict = json.dumps({"instances": [instance], "signature_name": "serving_default"}).encode()
    found = [
        (b"GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % path, b"")
        for path in (b"/", b"/healthz")
    ]
    for path, body in (
        ("/classify?top=2&threshold=0.5&image=a.jpg", jpeg),
        ("/classify", file.getvalue()),
        ("/v1/models/%s:predict" % name, predict),
    ):
        head = "POST %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
        found.append(((head % (path, len(body))).encode(), body))
    return found


def damage(rng, head, body):
    """A request with bytes changed, left out or added, in its head or its body, whose length mostly fits."""
    where = rng.random()
    if where < 0.4 or not body:
        return change(rng, head) + body
    body = splice(rng, body) if body[:1] == b"{" and where < 0.7 else change(rng, body)
    if rng.random() < 0.9:
        head = re.sub(rb"Content-Length: \d+", b"Content-Length: %d" % len(body), head)
    return head + body


def change(rng, data):
    """Some of the bytes are others, are gone or are there twice."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5, 50])):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(4)
        if kind == 0:
            data[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            del data[at : at + rng.choice([1, 3, 100])]
        elif kind == 2:
            data[at:at] = data[at : at + rng.choice([1, 10, 1000])]
        else:
            data[at:at] = rng.choice(
                [b"\r\n", b"\0", b"\xff\xd8", b"%", b" ", b"\r\n\r\n", b"9" * 30, b"\xc3"]
            )
    return bytes(data)


def splice(rng, text):
    """JSON with parts of JSON in wrong places."""
    for _ in range(rng.choice([1, 2, 10])):
        at = rng.randrange(len(text) + 1)
        part = rng.choice(JSON_PARTS).encode() * rng.choice([1, 1, 1, 3000])
        text = text[:at] + part + text[at + rng.choice([0, 0, 1, 10]) :]
    return text


async def ask(port, sent):
    """The status that a client gets who sends this and nothing more."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(sent)
        writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), SECONDS)
    except asyncio.TimeoutError:
        return "no end"
    except OSError:
        return "closed"
    finally:
        writer.close()
    found = re.match(rb"HTTP/1.1 (\d+) ", answer)
    return found.group(1).decode() if found else "closed"


if __name__ == "__main__":
    main()
