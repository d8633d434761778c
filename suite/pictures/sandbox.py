"""Pictures from strangers, decoded in a process that can do nothing else: --sandbox.

The last Pillow and TensorFlow for Python 3.7 get no more security fixes (docs/SECURITY.md). A picture that
takes over the decoder finds itself in a process without files, network, other programs, environment or much
memory, which is killed when a picture takes too long. What it answers is read as lengths and bytes, never
unpickled. Linux only, on x86-64 and 64-bit ARM.

    python -m suite.pictures.sandbox [FORMAT ...]     # what `start_decoder` starts: requests in, answers out
"""

import ctypes
import os
import platform
import signal
import struct
import subprocess
import sys
import threading

from suite.files.schemas import FITS
from suite.pictures import imagefile
from suite.pictures.imagefile import REMARKS, BadPicture
from suite.pictures.perceptual_hash import perceptual_hash

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DECODER = ("-m", "suite.pictures.sandbox")  # what Python runs there; it finds `suite` below its folder, ROOT

# For one picture; the largest take under a fifth of it on an idle machine (tests/faults/largest.py).
SECONDS = 20
MEMORY = 2 << 30  # bytes of address space

# Bytes of the file that follow; the network's pixels, 0 to keep the picture's size; which of FITS.
REQUEST = struct.Struct("<IIB")
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

_here = threading.local()  # each thread has a process of its own


def encode_and_hash(data, image_size, formats, fit="crop"):
    """As imagefile.load_and_encode, and always encoded anew, so that no byte of the file itself comes back.

    Returns:
        The perceptual hash or None, (width, height) before it is padded, JPEG bytes and one of REMARKS.
    Raises:
        BadPicture: also where the picture ended the process, or had to be stopped.
    """
    process = getattr(_here, "process", None) or start_decoder(formats)
    _here.process = None  # unless all goes well, the next picture gets a new one
    late = threading.Timer(SECONDS, process.kill)
    late.start()
    try:
        process.stdin.write(REQUEST.pack(len(data), image_size or 0, FITS.index(fit)) + data)
        process.stdin.flush()
        usable, *size, remark, hashed, length = ANSWER.unpack(receive(process, ANSWER.size))
        hashed, content = receive(process, hashed), receive(process, length)
    except OSError as error:
        process.kill()
        status = process.wait()
        if late.finished.is_set():
            raise BadPicture("takes more than %d seconds to decode" % SECONDS) from error
        raise BadPicture("ended the process that decodes it (exit status %d)" % status) from error
    finally:
        late.cancel()
    _here.process = process
    if not usable:
        raise BadPicture(content.decode("utf-8", "backslashreplace"))
    return hashed or None, tuple(size), content, REMARKS[remark % len(REMARKS)]


def start_decoder(formats):
    """A process that decodes. It inherits nothing but what a Python needs to run."""
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "SYSTEMROOT") if name in os.environ}
    return subprocess.Popen(
        [sys.executable, *DECODER, *formats],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=dict(kept, OPENBLAS_NUM_THREADS="1"),
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
    if options.sandbox and (sys.platform != "linux" or platform.machine() not in ALLOWED):
        parser.error("--sandbox: works on Linux only, on x86-64 and 64-bit ARM")


# --- the other side ----------------------------------------


def main(formats):
    """Answer requests until standard input ends."""
    imagefile.warm_up(formats)
    answer(b"", 32, formats, "crop")
    limit()
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    while True:
        request = requests.read(REQUEST.size)
        if len(request) < REQUEST.size:  # nobody asks any more
            return
        length, image_size, fit = REQUEST.unpack(request)
        answers.write(answer(requests.read(length), image_size or None, formats, FITS[fit]))
        answers.flush()


def answer(data, image_size, formats, fit):
    """The bytes that `encode_and_hash` reads."""
    try:
        image, jpeg, remark = imagefile.load_and_encode(data, image_size, formats, fit)
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
