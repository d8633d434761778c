"""Pictures that want too much memory or time, and the sandbox that stays shut."""

import functools
import os
import struct
import subprocess
import sys
import zlib

import pytest
from helpers import ROOT, draw_dataset, file_bytes, gradient, pixels, plain, run
from PIL import Image

from suite.pictures import imagefile, sandbox
from suite.pictures.imagefile import FORMATS, BadPicture


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(*chunks):
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def header(side, depth=8, colour=2):
    return chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, 0))


@functools.lru_cache(None)
def bombs():
    """{name: bytes} of files that are small and claim or unpack to be huge."""
    zeros = zlib.compress(bytes(1 << 28), 9)
    pixel = chunk(b"IDAT", zlib.compress(b"\0\xff\0\0"))
    gif = file_bytes(gradient((8, 8)).quantize(4), "GIF")
    screen = gif[:6] + struct.pack("<HH", 65535, 65535) + gif[10:]
    frame_at = gif.rindex(b"\x2c", 0, gif.rindex(b"\x2c") + 1)
    frame = gif[: frame_at + 5] + struct.pack("<HH", 65535, 65535) + gif[frame_at + 9 :]
    jpeg = file_bytes(gradient((8, 8)), "JPEG")
    size_at = jpeg.index(b"\xff\xc0") + 5
    bmp = file_bytes(gradient((8, 8)), "BMP")
    return {
        "PNG, 65,000 pixels wide": png(header(65000), chunk(b"IDAT", zeros)),
        "PNG, 2^31 pixels wide": png(header((1 << 31) - 1), pixel),
        "PNG, 16 bits": png(header(60000, 16, 6), chunk(b"IDAT", zeros)),
        "PNG, packed text": png(header(1), chunk(b"zTXt", b"a\0\0" + zeros), pixel, chunk(b"IEND", b"")),
        "PNG, packed profile": png(header(1), chunk(b"iCCP", b"a\0\0" + zeros), pixel, chunk(b"IEND", b"")),
        "GIF, screen": screen,
        "GIF, frame": frame,
        "JPEG, 65,500 pixels wide": jpeg[:size_at] + struct.pack(">HH", 65500, 65500) + jpeg[size_at + 4 :],
        "BMP, 2^31 pixels wide": bmp[:18] + struct.pack("<ii", (1 << 31) - 1, 60000) + bmp[26:],
        "BMP, upside down": bmp[:18] + struct.pack("<ii", 60000, -60000) + bmp[26:],
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", bombs())
def test_a_bomb_is_refused_before_memory_is_spent(name):
    """In a process with 64 MB more than it has."""
    program = """if True:
        import resource, sys
        from suite.pictures import imagefile
        with open("/proc/self/statm") as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
        data = sys.stdin.buffer.read()
        resource.setrlimit(resource.RLIMIT_AS, (taken + (64 << 20),) * 2)
        try:
            image, *_ = imagefile.load_and_encode(data, 224)
            print("accepted", image.size)
        except imagefile.BadPicture as error:
            print("refused", error)
    """
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, input=bombs()[name], cwd=ROOT, stdout=subprocess.PIPE, timeout=20)
    said = done.stdout.decode()
    assert done.returncode == 0 and "MemoryError" not in said, said
    # What is packed beside the pixels is passed over, and the picture may be used.
    assert said.startswith("refused") or said == "accepted (1, 1)\n", said


def test_a_jpeg_of_very_many_scans_is_refused():
    """As in "Two issues with the JPEG standard" (libjpeg-turbo, 2015): each scan goes over all pixels."""
    jpeg = file_bytes(Image.new("L", (3000, 3000), 9), "JPEG", progressive=True)
    scan = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    with pytest.raises(BadPicture, match="scans of 3000 x 3000 pixels are too much work"):
        imagefile.load_and_encode(jpeg[:-2] + scan * 2000 + jpeg[-2:], 224)
    assert imagefile.load_and_encode(jpeg, 224)[0].size == (256, 256)


def test_a_phones_film_behind_the_picture_is_no_scan():
    jpeg = file_bytes(Image.new("RGB", (3000, 2000), "red"), "JPEG")
    film = b"\0\0\0\x18ftypmp42" + 500 * b"\xff\xda\0\1"
    assert imagefile.encode(jpeg + film, 224) == imagefile.encode(jpeg, 224)


def in_small_parts():
    """Each takes Pillow's time, or it joins them in a time of their square."""
    jpeg, gif = (file_bytes(plain(mode), name) for mode, name in (("RGB", "JPEG"), ("P", "GIF")))
    first = gif.index(b",\0\0\0\0")
    exif = b"\xff\xe1\0\x10Exif\0\0" + bytes(8)
    return {
        "JPEG, comments": jpeg[:2] + 200000 * b"\xff\xfe\0\2" + jpeg[2:],
        "JPEG, comments behind a scan": jpeg[:-2] + 200000 * b"\xff\xfe\0\2" + jpeg[-2:],
        "JPEG, EXIF": jpeg[:2] + 3000 * exif + jpeg[2:],
        "JPEG, nothing": jpeg[:2] + b"\xff\xd8" + bytes(100000) + jpeg[2:],
        "GIF, one comment": gif[:first] + b"!\xfe" + 6000 * b"\4text" + b"\0" + gif[first:],
        "GIF, comments": gif[:first] + 6000 * b"!\xfe\4text\0" + gif[first:],
        "GIF, nothing": gif[:first] + 100000 * b"x" + gif[first:],
    }


@pytest.mark.parametrize("name", in_small_parts())
def test_a_file_of_very_many_small_parts_is_refused(name):
    with pytest.raises(BadPicture, match="so many small parts|a JPEG of more than 100000 segments"):
        imagefile.encode(in_small_parts()[name], 32)


def test_a_second_frame_is_not_looked_for_for_long():
    gif = file_bytes(plain("P"), "GIF")
    film = gif[:-1] + 6000 * b"!\xfe\4text\0" + gif[gif.index(b",\0\0\0\0") :]
    assert imagefile.load_and_encode(film, 32)[2] == imagefile.HARDLY_ANY_CONTRAST


# --- the sandbox ----------------------------------------


@pytest.mark.parametrize("format", (*FORMATS, "MPO"))
def test_the_sandbox_gives_what_imagefile_gives(format):
    """MPO: JPEGs of several pictures, such as many phones take."""
    several = {"save_all": True, "append_images": [gradient((40, 30))]} if format == "MPO" else {}
    data = file_bytes(gradient((400, 300)), format, **several)
    hashed, size, jpeg, _ = sandbox.encode_and_hash(data, 224, FORMATS)
    image, expected, _ = imagefile.load_and_encode(data, 224)
    assert size == image.size and jpeg == expected and len(hashed) == 18


def test_no_byte_of_the_file_comes_back():
    """A small JPEG is passed on as it is without the sandbox, and encoded anew by it."""
    data = file_bytes(gradient((40, 30)), "JPEG", quality=95, subsampling=0, comment=b"x" * 99)
    assert imagefile.encode(data, 32) == data
    jpeg = sandbox.encode_and_hash(data, 32, FORMATS)[2]
    assert jpeg != data and abs(pixels(jpeg) - pixels(data)).max() <= 6


def test_the_sandbox_says_why():
    for data, reason in (
        (b"", "empty file"),
        (b"no", "not a picture"),
        (file_bytes(gradient(), "PNG")[:99], "damaged"),
    ):
        with pytest.raises(BadPicture, match=reason):
            sandbox.encode_and_hash(data, 32, FORMATS)


@pytest.mark.parametrize(
    "deed",
    [
        "open('/etc/passwd')",
        "open('/tmp/x', 'w')",
        "os.listdir('/')",
        "os.fork()",
        "os.execv('/bin/true', ['true'])",
        "os.kill(os.getppid(), 9)",
        "socket.socket()",
        "os.unlink('/tmp/x')",
        "os.chmod('/tmp', 0)",
        "ctypes.CDLL(None, use_errno=True).ptrace(16, os.getppid(), 0, 0) and refuse()",
        "bytearray(4 << 30)",
    ],
)
def test_a_picture_that_took_over_could_do_nothing(deed):
    program = """if True:
        import ctypes, os, socket, sys
        from suite.pictures import sandbox
        def refuse():
            raise OSError(ctypes.get_errno(), "refused")
        sandbox.limit()
        try:
            %s
        except (OSError, MemoryError) as error:
            print(type(error).__name__)
    """
    done = subprocess.run([sys.executable, "-c", program % deed], cwd=ROOT, stdout=subprocess.PIPE)
    assert done.stdout in (b"PermissionError\n", b"MemoryError\n")


def test_a_picture_that_crashes_or_hangs_is_one_bad_picture(tmp_path, monkeypatch, request):
    """In place of a decoder with a hole: one that obeys."""
    program = tmp_path / "sandbox_with_a_hole.py"
    program.write_text(
        "import os, sys; sys.path.insert(0, %r)\n" % ROOT
        + "from suite.pictures import imagefile, sandbox\n"
        + "whole = imagefile.load_and_encode\n"
        + "def load_and_encode(data, *rest):\n"
        + "    if data == b'crash': os._exit(11)\n"
        + "    while data == b'hang': pass\n"
        + "    return whole(data, *rest)\n"
        + "imagefile.load_and_encode = load_and_encode\n"
        + "sandbox.main(sys.argv[1:])\n"
    )
    monkeypatch.setattr(sandbox, "DECODER", [str(program)])
    monkeypatch.setattr(sandbox, "SECONDS", 8)
    sandbox.own.cache_clear()
    request.addfinalizer(sandbox.own.cache_clear)
    good = file_bytes(gradient(), "PNG")
    with pytest.raises(BadPicture, match=r"ended the process that decodes it \(exit status 11\)"):
        sandbox.encode_and_hash(b"crash", 32, FORMATS)
    assert sandbox.encode_and_hash(good, 32, FORMATS)[2] == imagefile.encode(good, 32)
    with pytest.raises(BadPicture, match="takes more than 8 seconds"):
        sandbox.encode_and_hash(b"hang", 32, FORMATS)
    assert sandbox.encode_and_hash(good, 32, FORMATS)[2] == imagefile.encode(good, 32)


@pytest.mark.slow
def test_records_made_in_the_sandbox(tmp_path):
    draw_dataset(tmp_path / "dataset", 6, ["apple", "kiwi"])
    (tmp_path / "dataset" / "apple" / "bad.png").write_bytes(b"bad")
    arguments = ["--dataset", tmp_path / "dataset", "--image_size", 32, "--output"]
    run("FlowIO.py", *arguments, tmp_path / "open", status=1)
    run("FlowIO.py", *arguments, tmp_path / "shut", "--sandbox", status=1)
    for name in os.listdir(str(tmp_path / "open")):
        assert (tmp_path / "open" / name).read_bytes() == (tmp_path / "shut" / name).read_bytes(), name


@pytest.mark.slow
def test_prediction_in_the_sandbox(workspace, tmp_path):
    gradient().save(str(tmp_path / "picture.png"))
    (tmp_path / "bad.png").write_bytes(b"bad")
    arguments = [tmp_path / "picture.png", tmp_path / "bad.png", "--model", workspace.model, "--json"]
    out, _ = run("predict.py", *arguments, status=1)
    assert run("predict.py", *arguments, "--sandbox", status=1)[0] == out
