"""imagefile.py: any picture file to a small upright RGB JPEG."""

import os
import struct
import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from helpers import RED, ROOT, file_bytes, gradient, pixels, plain, swapped_profile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from suite.pictures import conversion, imagefile
from suite.records import preprocessing

WHITE = (255, 255, 255)


# --- encode ----------------------------------------


@pytest.mark.parametrize(
    "mode, format",
    [
        ("RGB", "JPEG"),
        ("RGB", "PNG"),
        ("RGB", "BMP"),
        ("P", "GIF"),
        ("P", "PNG"),
        ("CMYK", "JPEG"),
        ("RGBA", "PNG"),
    ],
)
def test_a_red_picture_stays_red(mode, format):
    assert np.abs(pixels(imagefile.encode(file_bytes(plain(mode), format), 224)) - RED).max() <= 6


@pytest.mark.parametrize("mode, format", [("L", "JPEG"), ("L", "PNG"), ("1", "PNG"), ("LA", "PNG")])
def test_a_grey_picture_becomes_RGB(mode, format):
    result = pixels(imagefile.encode(file_bytes(plain(mode, WHITE), format), 224))
    assert result.shape == (30, 40, 3) and result.min() >= 254


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_white(mode):
    image = plain("RGBA", (0, 0, 0))
    image.putalpha(0)
    assert pixels(imagefile.encode(file_bytes(image.convert(mode), "PNG"), 224)).min() >= 254


def test_a_transparent_palette_entry_is_laid_on_white():
    data = file_bytes(plain("P", (0, 0, 0)), "PNG", transparency=plain("P", (0, 0, 0)).getpixel((0, 0)))
    assert pixels(imagefile.encode(data, 224)).min() >= 254


def test_16_bits_are_scaled_not_clipped():
    values = np.linspace(0, 65535, 40 * 30).reshape(30, 40).astype(np.uint16)
    result = pixels(imagefile.encode(file_bytes(Image.fromarray(values), "PNG"), 224))
    assert np.abs(result - (values / 257.0)[..., None]).max() <= 4


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF"])
def test_exif_orientation_is_applied(format):
    image = gradient()
    upright = np.asarray(image).astype(int)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    data = file_bytes(image, format, exif=exif, **({"quality": 95} if format == "JPEG" else {}))
    result = pixels(imagefile.encode(data, 224, (*imagefile.FORMATS, "TIFF")))
    assert result.shape == (60, 40, 3)
    assert np.abs(result - np.rot90(upright, -1)).mean() < 5


def exif_of():
    """EXIF with an orientation of 6, and with a version that is a fraction, which no Pillow would write."""
    entry = "<HHII"
    first = struct.pack(entry, 0x0112, 3, 1, 6), struct.pack(entry, 0x8769, 4, 1, 38)
    inner = struct.pack(entry, 0x9000, 5, 1, 56)
    ifds = b"\2\0" + b"".join(first) + bytes(4) + b"\1\0" + inner + bytes(4) + struct.pack("<II", 23, 10)
    return b"Exif\0\0II*\0\x08\0\0\0" + ifds


def test_exif_that_no_pillow_could_write_turns_a_picture_too():
    data = file_bytes(gradient(), "JPEG", exif=exif_of(), quality=95)
    result = pixels(imagefile.encode(data, 224))
    assert np.abs(result - np.rot90(np.asarray(gradient()).astype(int), -1)).mean() < 5


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF"])
def test_an_orientation_in_xmp_turns_nothing(format):
    """Whatever the Pillow; browsers show it so, too."""
    said = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    if format == "JPEG":
        segment = b"http://ns.adobe.com/xap/1.0/\0" + said
        jpeg = file_bytes(gradient(), "JPEG", quality=95)
        data = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]
        assert imagefile.encode(data, 224) == data
    elif format == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", said.decode())
        data = file_bytes(gradient(), "PNG", pnginfo=text)
    else:
        data = file_bytes(gradient(), "TIFF", tiffinfo={700: said})
    result = pixels(imagefile.encode(data, 224, [*imagefile.FORMATS, format]))
    assert np.abs(result - np.asarray(gradient()).astype(int)).mean() < 5


@pytest.mark.parametrize("kind", [2, 5, 7, 11])
def test_a_tiff_whose_tags_are_of_other_types_is_refused_alone(kind):
    """Subfile type as text, fraction, bytes or float; Pillow reads it where it is asked for."""
    data = b"II*\0\x08\0\0\0" + struct.pack("<HHHII", 1, 254, kind, 2, 8) + bytes(4)
    with pytest.raises(imagefile.BadPicture):
        imagefile.encode(data, 32)


@pytest.mark.parametrize("mode, format", [("RGB", "JPEG"), ("RGB", "PNG"), ("RGBA", "PNG")])
def test_colour_profiles_are_applied(mode, format):
    data = file_bytes(plain(mode), format, icc_profile=swapped_profile())
    assert np.abs(pixels(imagefile.encode(data, 224)) - RED[::-1]).max() <= 8
    data = file_bytes(plain(mode), format, icc_profile=b"no profile")
    assert np.abs(pixels(imagefile.encode(data, 224)) - RED).max() <= 6


def test_the_content_decides_not_the_name(tmp_path):
    path = tmp_path / "picture.jpg"
    path.write_bytes(file_bytes(plain(), "PNG"))
    assert np.abs(pixels(imagefile.encode(imagefile.read_file(str(path)), 224)) - RED).max() <= 6


def test_a_small_jpeg_is_passed_on_byte_for_byte():
    data = file_bytes(gradient(), "JPEG")
    assert imagefile.encode(data, 224) == data


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_a_large_picture_is_reduced_and_keeps_its_shape(format):
    result = pixels(imagefile.encode(file_bytes(gradient((1200, 800)), format), 64))
    assert result.shape == (73, 110, 3)  # 64 * 256 / 224 = 73.1, and 3 : 2
    expected = np.asarray(gradient((110, 73))).astype(int)
    assert np.abs(result - expected).max() <= 8


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
@pytest.mark.parametrize(
    "size, image_size, inner",  # of the picture in its square
    [
        ((300, 200), 64, (64, 43)),
        ((200, 300), 64, (43, 64)),
        ((40, 30), 64, (40, 30)),  # not enlarged
        ((90, 20), 64, (64, 14)),
        ((300, 200), None, (300, 200)),
    ],
)
def test_pad_and_squash_keep_the_whole_picture(format, size, image_size, inner):
    data = file_bytes(gradient(size), format, **({"quality": 95} if format == "JPEG" else {}))
    side, (width, height) = max(inner), inner
    left, top = (side - width) // 2, (side - height) // 2
    padded = pixels(imagefile.encode(data, image_size, fit="pad"))
    expected = np.full([side, side, 3], 128)
    expected[top : top + height, left : left + width] = np.asarray(gradient(inner))
    assert padded.shape == expected.shape and np.abs(padded - expected).mean() < 4
    assert np.abs(padded[: max(0, top - 8)] - 128).max(initial=0) == 0  # out of reach of the next JPEG block
    squashed = pixels(imagefile.encode(data, image_size, fit="squash"))
    assert squashed.shape == (side, side, 3)
    assert np.abs(squashed - np.asarray(gradient((side, side))).astype(int)).mean() < 4


@pytest.mark.parametrize("fit", ["pad", "squash"])
def test_a_thin_picture_that_keeps_its_size_makes_no_huge_square(fit, monkeypatch):
    assert conversion.MAX_SQUARE**2 == imagefile.MAX_PIXELS
    monkeypatch.setattr(conversion, "MAX_SQUARE", 500)
    data = file_bytes(gradient((4000, 2)), "PNG")
    assert pixels(imagefile.encode(data, None, fit=fit)).shape == (500, 500, 3)


def test_what_is_padded_is_judged_by_the_picture():
    """Grey around a white sheet is no contrast, nor does it make two pictures alike."""
    image, jpeg, remark = imagefile.load_and_encode(file_bytes(plain(colour=WHITE), "PNG"), 64, fit="pad")
    assert (image.size, pixels(jpeg).shape, remark) == ((40, 30), (40, 40, 3), imagefile.HARDLY_ANY_CONTRAST)


def damaged():
    whole = file_bytes(gradient((300, 200)), "JPEG")
    return {
        "empty": (b"", "empty file"),
        "text": (b"this is no picture", "not a picture in JPEG, PNG, BMP or GIF format"),
        "truncated": (whole[: len(whole) // 2], "damaged: .*truncated"),
        "webp": (file_bytes(gradient(), "WEBP"), "CVE-2023-4863"),
        "tiff": (file_bytes(gradient(), "TIFF"), "--formats TIFF opens it"),
        "heic": (b"\0\0\0\x18ftypheic\0\0\0\0", "convert it to JPEG"),
        "avif": (b"\0\0\0\x18ftypavif\0\0\0\0", "AVIF, which is not opened; convert it to JPEG"),
        "png cut": (file_bytes(gradient(), "PNG")[:100], "damaged"),
    }


@pytest.mark.parametrize("name", damaged())
def test_damaged_files_are_refused_with_a_reason(name):
    data, reason = damaged()[name]
    with pytest.raises(imagefile.BadPicture, match=reason):
        imagefile.encode(data, 224)


def test_damaged_exif_costs_no_word():
    """Pillow's warning would not name the file. In a process of its own, as pytest collects warnings."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    data = file_bytes(gradient(), "JPEG", exif=exif.tobytes()[:-20])
    program = (
        "import sys; from suite.pictures import imagefile; imagefile.encode(sys.stdin.buffer.read(), 224)"
    )
    done = subprocess.run([sys.executable, "-c", program], input=data, cwd=ROOT, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_lack_of_memory_is_not_called_damage(monkeypatch):
    monkeypatch.setattr(Image.Image, "resize", lambda *arguments: bytes(1 << 62))
    with pytest.raises(imagefile.BadPicture, match="^needs too much memory$"):
        imagefile.encode(file_bytes(gradient((300, 200)), "PNG"), 32)


def test_too_many_pixels_are_refused_before_they_are_decoded():
    header = bytearray(file_bytes(plain(), "BMP"))
    header[18:26] = np.array([20000, 20000], "<i4").tobytes()  # width and height
    with pytest.raises(imagefile.BadPicture, match="20000 x 20000 pixels are too many"):
        imagefile.encode(bytes(header), 224)


FORMATS_OF = {
    "JPEG": ("RGB", "L", "CMYK"),
    "PNG": ("RGB", "L", "LA", "RGBA", "P", "1"),
    "BMP": ("RGB", "L", "P"),
    "GIF": ("P", "L"),
    "WEBP": ("RGB", "RGBA"),
    "TIFF": ("RGB", "L", "RGBA", "CMYK"),
}


@given(
    st.sampled_from([(format, mode) for format, modes in FORMATS_OF.items() for mode in modes]),
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.integers(1, 8),
    st.sampled_from([32, 48, 224, None]),
)
def test_any_size_mode_and_format(kind, size, orientation, image_size):
    format, mode = kind
    image = gradient(size)
    image = image.quantize(64) if mode == "P" else image.convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"exif": exif.tobytes(), "quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}
    options = options.get(format, {})
    result = pixels(imagefile.encode(file_bytes(image, format, **options), image_size, tuple(FORMATS_OF)))

    upright = size[::-1] if format == "JPEG" and orientation >= 5 else size
    shorter = round(image_size * 256 / 224) if image_size else 300
    scale = min(1, shorter / min(size))
    assert np.abs(np.array(result.shape[1::-1]) - np.array(upright) * scale).max() <= 1
    assert np.abs(result.mean((0, 1)) - np.asarray(image.convert("RGB")).mean((0, 1))).max() < 6


def test_an_end_before_the_image_is_not_passed_on():
    """Pillow reads on after a table and an end; TensorFlow says that such a JPEG contains no image."""
    whole = file_bytes(gradient(), "JPEG", quality=95)
    table = b"\xff\xdb\0\x43\0" + bytes(range(1, 65))
    data = whole[:2] + table + b"\xff\xd9" + whole
    jpeg = imagefile.encode(data, 224)
    assert jpeg != data and np.abs(pixels(jpeg) - pixels(whole)).max() <= 8
    with tf.Graph().as_default(), tf.Session() as session:
        assert session.run(
            preprocessing.preprocess_for_evaluation(tf.constant(jpeg), 32, "minus1_1")
        ).shape == (32, 32, 3)


def test_what_encode_accepts_tensorflow_decodes():
    """Pillow forgives more than TensorFlow; none of that may get into the records."""
    whole = file_bytes(gradient((70, 50)), "JPEG")
    accepted = 0
    with tf.Graph().as_default(), tf.Session() as session:
        source = tf.placeholder(tf.string, [])
        image = preprocessing.preprocess_for_evaluation(source, 32, "per_image")
        for cut in list(range(1, 40)) + [len(whole) // 2]:
            try:
                jpeg = imagefile.encode(whole[:-cut], 224)
            except imagefile.BadPicture:
                continue
            accepted += 1
            assert session.run(image, {source: jpeg}).shape == (32, 32, 3)
        rng = np.random.RandomState(0)
        for _ in range(300):
            mutated = bytearray(whole)
            for place in rng.randint(2, len(whole), 3):
                mutated[place] = rng.randint(256)
            try:
                jpeg = imagefile.encode(bytes(mutated), 224)
            except imagefile.BadPicture:
                continue
            accepted += 1
            session.run(image, {source: jpeg})
    assert accepted > 20


# --- read_file ----------------------------------------


def test_a_file_that_is_too_large_is_refused_unread(tmp_path):
    path = tmp_path / "huge.bmp"
    path.write_bytes(b"BM")
    os.truncate(str(path), imagefile.MAX_BYTES + 1)
    with pytest.raises(imagefile.BadPicture, match="256000001 bytes are too many, 256000000 is the limit"):
        imagefile.read_file(str(path))


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(str(tmp_path / "pipe"))  # to open it would wait for ever
    os.symlink("circle", str(tmp_path / "circle"))
    for name, reason in (
        ("pipe", "not a regular file"),
        (".", "a folder"),
        ("circle", "symbolic links"),
        ("gone", "No such file"),
    ):
        with pytest.raises(imagefile.BadPicture, match=reason):
            imagefile.read_file(str(tmp_path / name))
