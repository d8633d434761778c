"""Pictures from strangers, decoded in a process that can do nothing else: --sandbox.

The last Pillow and TensorFlow for Python 3.7 get no more security fixes (docs/SECURITY.md). A picture that
takes over the decoder finds itself in a process without files, network, other programs, environment or much
memory, which is killed when a picture takes too long. What it answers is read as lengths and bytes, never
unpickled. Linux only, on x86-64 and 64-bit ARM.

    python -m suite.pictures.sandbox [FORMAT ...]     # what `start_decoder` starts: requests in, answers out
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
import queue
import signal
import struct
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Sequence

from suite.files.schemas import FITS
from suite.pictures import imagefile
from suite.pictures.imagefile import REMARKS, BadPicture
from suite.pictures.perceptual_hash import perceptual_hash
from suite.process.errors import UsageError

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DECODER = ("-m", "suite.pictures.sandbox")  # what Python runs there; it finds `suite` below its folder, ROOT

# For one picture; the largest take under a fifth of it on an idle machine (tests/faults/largest.py).
SECONDS = 20
MEMORY = 2 << 30  # bytes of address space

# Bytes of the file that follow; the network's pixels, 0 to keep the picture's size; which of FITS; the most
# pixels that a JPEG may have, and a picture of another format.
REQUEST = struct.Struct("<IIBII")
# Whether it can be used; width, height; which of REMARKS; bytes that follow, of the perceptual hash and of
# the JPEG or why not.
ANSWER = struct.Struct("<?IIBBI")

# What is left of the system, for each machine: its name in the kernel, and the numbers of read, write, close,
# fstat, lseek, mmap, mprotect, munmap, brk, rt_sigaction, rt_sigprocmask, rt_sigreturn, sched_yield, mremap,
# madvise, exit, gettimeofday, sigaltstack, futex, clock_gettime and exit_group.
ALLOWED = {
    "x86_64": (
        0xC000003E,
        (0, 1, 3, 5, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 28, 60, 96, 131, 202, 228, 231),
    ),
    "aarch64": (
        0xC00000B7,
        (63, 64, 57, 80, 62, 222, 226, 215, 214, 134, 135, 139, 124, 216, 233, 93, 169, 132, 98, 113, 94),
    ),
}


# --- the suite's side ----------------------------------------


class Sandbox:
    """A fixed number of processes that decode, for any thread; each starts when it is first needed."""

    def __init__(self, formats: Sequence[str], count: int = 1):
        """Args: the formats that are opened; how many processes."""
        self.formats = formats
        # A process ends with the thread that started it: this one stays until `close`.
        self.starter = ThreadPoolExecutor(1)
        self.idle: queue.LifoQueue[subprocess.Popen | None] = queue.LifoQueue()
        for _ in range(count):
            self.idle.put(None)  # in the place of a process that is not there, or not any more
        self.count = count

    def encode_and_hash(self, data, image_size, fit="crop", max_pixels=imagefile.MAX_PIXELS):
        """As imagefile.load_and_encode, and always encoded anew: no byte of the file itself comes back.

        Returns:
            The perceptual hash or None, (width, height) before it is padded, JPEG bytes and one of REMARKS.
        Raises:
            BadPicture: also where the picture ended the process, or had to be stopped.
        """
        limits = [min(each, (1 << 32) - 1) for each in imagefile.both(max_pixels)]  # as REQUEST has room for
        process = self.idle.get()
        usable = None
        try:
            if process is None or process.poll() is not None:  # it may have been killed while it waited
                process = self.starter.submit(start_decoder, self.formats).result()
            request = REQUEST.pack(len(data), image_size or 0, FITS.index(fit), *limits) + data
            usable, hashed, size, content, remark = ask(process, request)
        finally:
            if usable is None and process is not None:
                end(process)
            self.idle.put(process)
        if not usable:
            raise BadPicture(content.decode("utf-8", "backslashreplace"))
        return hashed or None, size, content, remark

    def close(self):
        """End the processes, when they have answered."""
        for process in [self.idle.get() for _ in range(self.count)]:
            if process:
                end(process)
        self.starter.shutdown()


@functools.lru_cache(None)
def own(formats):
    """The one Sandbox of a process that decodes for itself alone; `formats`: a tuple."""
    return Sandbox(formats)


def encode_and_hash(data, image_size, formats, fit="crop"):
    """See Sandbox.encode_and_hash; by a process of this one's own."""
    return own(tuple(formats)).encode_and_hash(data, image_size, fit)


def ask(process, request):
    """Whether a picture can be used; hash, (width, height), JPEG bytes or why not, one of REMARKS.

    Raises:
        BadPicture: there was no answer.
    """
    late: list = []
    timer = threading.Timer(SECONDS, lambda: (late.append(True), process.kill()))
    timer.start()
    try:
        process.stdin.write(request)
        process.stdin.flush()
        usable, *size, remark, hashed, length = ANSWER.unpack(receive(process, ANSWER.size))
        hashed, content = receive(process, hashed), receive(process, length)
    except OSError as error:
        process.kill()
        status = process.wait()
        if late:
            raise BadPicture("takes more than %d seconds to decode" % SECONDS) from error
        raise BadPicture("ended the process that decodes it (exit status %d)" % status) from error
    finally:
        timer.cancel()
    return usable, hashed, tuple(size), content, REMARKS[remark % len(REMARKS)]


def end(process):
    """Kill a process and leave nothing of it."""
    process.kill()
    process.wait()
    process.stdout.close()
    with contextlib.suppress(OSError):  # what was written last did not arrive
        process.stdin.close()


def start_decoder(formats):
    """A process that decodes. It inherits nothing but what a Python needs to run."""
    needed = ("LD_LIBRARY_PATH", "PYTHONPATH", "SYSTEMROOT")
    kept = {name: os.environ[name] for name in needed if name in os.environ}
    return subprocess.Popen(
        [sys.executable, *DECODER, *formats],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=dict(kept, OPENBLAS_NUM_THREADS="1"),
        start_new_session=True,  # so that a terminal's signals do not reach it before it can ignore them
    )


def receive(process, count):
    """So many bytes of an answer; raises OSError where they do not come, or are too many."""
    data = process.stdout.read(count) if count <= imagefile.MAX_BYTES else b""
    if len(data) < count:
        raise OSError("no answer")
    return data


def add_option(parser):
    """--sandbox: whether pictures are decoded here."""
    parser.add_argument(
        "--sandbox",
        action="store_true",
        help="decode in processes that can do nothing else, for pictures from strangers",
    )


def check_option(options, parser):
    """End with a message where --sandbox is asked for and cannot be had."""
    if options.sandbox:
        try:
            check()
        except UsageError as error:
            parser.error("--%s" % error)


def check():
    """Raises UsageError where there is no sandbox."""
    if sys.platform != "linux" or platform.machine() not in ALLOWED:
        raise UsageError("sandbox: works on Linux only, on x86-64 and 64-bit ARM")


# --- the other side ----------------------------------------


def main(formats):
    """Answer requests until standard input ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # are for who asks
        signal.signal(number, signal.SIG_IGN)
    imagefile.warm_up(formats)
    answer(b"", 32, formats, "crop", imagefile.MAX_PIXELS)
    limit()
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    while True:
        request = requests.read(REQUEST.size)
        if len(request) < REQUEST.size:  # nobody asks any more
            return
        length, image_size, fit, *max_pixels = REQUEST.unpack(request)
        answers.write(answer(requests.read(length), image_size or None, formats, FITS[fit], max_pixels))
        answers.flush()


def answer(data, image_size, formats, fit, max_pixels):
    """The bytes that `ask` reads."""
    try:
        image, jpeg, remark = imagefile.load_and_encode(data, image_size, formats, fit, max_pixels)
        hashed = perceptual_hash(image) or b""
        if jpeg is data:
            # A copy, because of a file that was opened a newer Pillow asks in which folder it lies.
            jpeg = imagefile.to_jpeg(image.copy())
        return ANSWER.pack(True, *image.size, REMARKS.index(remark), len(hashed), len(jpeg)) + hashed + jpeg
    except (BadPicture, MemoryError) as error:
        reason = (str(error) or "needs too much memory").encode("utf-8", "backslashreplace")
        return ANSWER.pack(False, 0, 0, 0, 0, len(reason)) + reason


def limit():
    """Give up all rights but to compute, read requests and write answers; end the process if that fails."""
    import resource  # not on Windows

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    architecture, allowed = ALLOWED[platform.machine()]
    # BPF: load the architecture, compare, load the call's number, compare with each; the last two
    # instructions refuse (EPERM) and allow.
    load, jump, give = 0x20, 0x15, 0x06
    program = [(load, 0, 0, 4), (jump, 0, len(allowed) + 1, architecture), (load, 0, 0, 0)]
    program += [(jump, len(allowed) - i, 0, number) for i, number in enumerate(allowed)]
    program += [(give, 0, 0, 0x00050000 | 1), (give, 0, 0, 0x7FFF0000)]
    code = b"".join(struct.pack("<HBBI", *each) for each in program)
    instructions = ctypes.create_string_buffer(code, len(code))
    filter = ctypes.create_string_buffer(struct.pack("HL", len(program), ctypes.addressof(instructions)))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    # End with the thread that asks; no new rights; this filter.
    for request in ((1, signal.SIGKILL, 0, 0, 0), (38, 1, 0, 0, 0), (22, 2, ctypes.addressof(filter), 0, 0)):
        if prctl(*map(ctypes.c_ulong, request)):
            sys.exit("no sandbox here: %s" % os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    main(sys.argv[1:])
