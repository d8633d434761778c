"""The bytes of a picture file as a PIL image whose pixels are not decoded yet, or why not.

Pillow's own limits are the whole program's, which may be somebody else's, and stay as they are.
"""

from __future__ import annotations

import io
import math
import re
import zlib
from typing import Iterator, Sequence

from PIL import Image

from suite.pictures import recognition

MAX_PIXELS = 100 * 1000 * 1000
MAX_SIDE = 65500  # what libjpeg writes
MOST_SCANS = 10  # of MAX_PIXELS: a progressive JPEG goes over its pixels several times, a bad one for hours
JPEG = b"\xff\xd8"  # how such a file begins
START_OF_SCAN, END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"
MARKER = re.compile(b"\xff[\xc0-\xcf\xd9-\xfe]")  # those that decoders do not pass over among a scan's bytes
PNG = b"\x89PNG\r\n\x1a\n"  # how such a file begins
MOST_CHUNKS = 100 * 1000  # of a PNG or a JPEG; the largest files have fewer, and each takes time
MOST_READS = 10 * 1000  # of a few bytes, before the pixels; photos with long texts take some hundred
PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
PNG_PROFILE = b"iCCP"
MAX_PROFILE = 16 << 20  # bytes of a colour profile; printers' are larger than Pillow's limit in a PNG


class BadPicture(Exception):
    """A file that cannot be used; the message says why."""


class LimitedFile(io.BytesIO):
    """The bytes of a file, for Pillow to read in at most MOST_READS pieces until `left` is set anew."""

    left: float = MOST_READS

    def read(self, size: int | None = -1) -> bytes:
        """See io.BytesIO. Raises BadPicture."""
        self.left -= 1
        if self.left < 0:
            raise BadPicture("of so many small parts that opening it takes too long")
        return super().read(size)


def open_picture(
    data: bytes, formats: Sequence[str], max_pixels: int | Sequence[int] = MAX_PIXELS
) -> Image.Image:
    """Bytes -> a PIL image whose pixels are not decoded yet. Raises BadPicture."""
    if not data:
        raise BadPicture("empty file")
    if recognition.is_tiff(data) and recognition.is_camera_raw(data):
        raise BadPicture(
            "%s, or begins with a thumbnail as those do; convert it to JPEG" % recognition.CAMERA_RAW
        )
    whole, data = data, without_clutter(data)
    profile = png_profile(whole)
    image = open_as(data, formats)
    if image is None:
        raise BadPicture(recognition.why_refused(data, formats))
    of_jpegs, of_others = both(max_pixels)
    check_size(image.size, of_jpegs if image.format in ("JPEG", "MPO") else of_others)
    scans = count_scans(data) if data.startswith(JPEG) else 0
    if scans * image.width * image.height > MOST_SCANS * of_jpegs:
        raise BadPicture("%d scans of %d x %d pixels are too much work" % (scans, *image.size))
    if profile:
        image.info["icc_profile"] = profile
    return image


def open_as(data: bytes, formats: Sequence[str]) -> Image.Image | None:
    """As Image.open, but for its limit of pixels; None where the data is of none of the formats.

    Raises:
        BadPicture: it was made to keep us busy.
    """
    Image.preinit()
    if not set(formats) <= set(Image.OPEN):
        Image.init()
    for name in formats:
        factory, accepts = Image.OPEN[name]
        if not accepts or accepts(data[:16]):
            file = LimitedFile(data)
            try:
                image = factory(file, "")
            except BadPicture:
                raise
            except Exception:  # see conversion.damage_as_bad_picture
                continue
            if name != "GIF":  # of which more than the pixels may be read, to find a second frame
                file.left = math.inf
            return image
    return None


def both(max_pixels: int | Sequence[int]) -> Sequence[int]:
    """The limit for JPEGs, which are decoded at the size that is needed, and the one for other formats."""
    return (max_pixels, max_pixels) if isinstance(max_pixels, int) else max_pixels


def check_size(size: tuple[int, int], max_pixels: int) -> None:
    """Raises BadPicture where a picture of this size is too large."""
    if size[0] * size[1] > max_pixels:
        raise BadPicture("%d x %d pixels are too many, %d is the limit" % (*size, max_pixels))
    if max(size) > MAX_SIDE:
        raise BadPicture("%d x %d pixels, a JPEG has at most %d on a side" % (*size, MAX_SIDE))


def count_scans(jpeg: bytes) -> int:
    """How often a JPEG goes over its pixels. What lies behind its end, as a phone's film, does not count.

    Raises:
        BadPicture: it has so many segments that it was made to keep us busy.
    """
    at, scans = len(JPEG), 0
    for _ in range(MOST_CHUNKS):
        marker = MARKER.search(jpeg, at)
        if not marker or scans and marker.group() == END_OF_IMAGE:
            return scans
        at = marker.end()
        if marker.group() != END_OF_IMAGE:  # Pillow passes over one before the image
            scans += marker.group() == START_OF_SCAN
            at += max(2, int.from_bytes(jpeg[at : at + 2], "big"))
    raise BadPicture("a JPEG of more than %d segments" % MOST_CHUNKS)


def without_clutter(data: bytes) -> bytes:
    """A PNG without its texts and profile, and without chunks that it can do without of a wrong checksum.

    With these browsers read it, and Pillow refuses it. Other formats stay as they are.

    Raises:
        BadPicture: they are so many that the file was made to keep us busy.
    """
    if not data.startswith(PNG):
        return data
    kept = [PNG]
    for count, chunk in enumerate(png_chunks(data), 1):
        kind = chunk[4:8]
        if kind[:1].isupper() or kind not in (*PNG_TEXTS, PNG_PROFILE) and is_whole_chunk(chunk):
            kept.append(chunk)
        if count > MOST_CHUNKS:
            raise BadPicture("a PNG of more than %d chunks" % MOST_CHUNKS)
    return b"".join(kept)


def png_profile(data: bytes) -> bytes | None:
    """The ICC profile of a PNG, which Pillow would read up to a limit of the whole program's; None without.

    Raises:
        BadPicture: it is larger than any that is in use.
    """
    for chunk in png_chunks(data) if data.startswith(PNG) else ():
        if chunk[4:8] == PNG_PROFILE and is_whole_chunk(chunk):
            unpacking = zlib.decompressobj()
            try:
                profile = unpacking.decompress(chunk[8:-4].partition(b"\0")[2][1:], MAX_PROFILE)
            except zlib.error:
                return None
            if unpacking.unconsumed_tail:
                raise BadPicture("a colour profile of more than %d bytes" % MAX_PROFILE)
            return profile
        if chunk[4:8] == b"IDAT":
            break
    return None


def png_chunks(data: bytes) -> Iterator[bytes]:
    """The parts of a PNG file: 4 bytes of length, 4 of kind, the content, 4 of its checksum."""
    at = len(PNG)
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        yield data[at:end]
        at = end


def is_whole_chunk(chunk: bytes) -> bool:
    """Whether the checksum is that of the kind and the content."""
    return zlib.crc32(chunk[4:-4]).to_bytes(4, "big") == chunk[-4:]
