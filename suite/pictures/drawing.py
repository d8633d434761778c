"""Text and pictures on one sheet."""

import contextlib
import functools
import io

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# The first that is there and has the sign is drawn with; Pillow finds the system's by name.
FONTS = (
    "DejaVuSans.ttf",
    "NotoSansCJK-Regular.ttc",
    "wqy-microhei.ttc",
    "wqy-zenhei.ttc",
    "DroidSansFallbackFull.ttf",
    "PingFang.ttc",
    "STHeiti Medium.ttc",
    "msyh.ttc",
    "simsun.ttc",
    "Arial Unicode.ttf",
    "arial.ttf",
)

ORANGE = (255, 110, 0)  # of maps, over grey
MOST_OPAQUE = 160  # of 255
MOST_CELLS = 1200  # down and across a confusion matrix


def contact_sheet(columns, rows, tile=96, size=13):
    """Pictures in a table.

    Args:
        columns: (title, width in pictures) for each group of columns.
        rows: (label, [[PIL image, ...] for each group of columns]) for each row.
        tile, size: pixels of a picture and of the letters.
    Returns:
        A PIL image.
    """
    gap, line = 4, 20
    left = 4 * gap + max(text_width(label, size) for label, _ in rows)
    starts, x = [], left
    for _, width in columns:
        starts.append(x)
        x += width * (tile + gap) + 3 * gap
    sheet = Image.new("RGB", (x, line + 2 * gap + len(rows) * (tile + gap)), "white")
    for start, (title, _) in zip(starts, columns):
        draw_text(sheet, start, gap + size, title, size, "black")
    for number, (label, groups) in enumerate(rows):
        y = line + gap + number * (tile + gap)
        draw_text(sheet, gap, y + tile // 2 + size // 3, label, size, "black")
        for start, group in zip(starts, groups):
            for i, image in enumerate(group):
                sheet.paste(image.resize((tile, tile), Image.BICUBIC), (start + i * (tile + gap), y))
    return sheet


def caption(image, text):
    """The PIL image with a strip below it that shows `text`, as wide as the text needs."""
    size = max(16, min(image.size) // 256 * 16)
    width = max(image.width, text_width(text, size) + 2 * size)
    canvas = Image.new("RGB", (width, image.height + 5 * size // 2), "black")
    canvas.paste(image, ((width - image.width) // 2, 0))
    draw_text(canvas, size, image.height + 13 * size // 8, text, size, "white")
    return canvas


def overlay(image, values, box):
    """A PIL image in grey, and over it in ORANGE what spoke for an answer, the more, the stronger.

    Args:
        values: float [h, w], a class activation map.
        box: left, top, right and bottom of what the map is of, in the image's pixels.
    """
    left, top, right, bottom = box
    across, down = values.shape[1] / (right - left), values.shape[0] / (bottom - top)
    place = across, 0, -left * across, 0, down, -top * down
    grey = image.convert("L").convert("RGB")
    grey.paste(ORANGE, mask=opacity(values).transform(image.size, Image.AFFINE, place, Image.BILINEAR))
    ImageDraw.Draw(grey).rectangle((left, top, right - 1, bottom - 1), outline=ORANGE)
    return grey


def opacity(values):
    """A PIL image of float [h, w]: MOST_OPAQUE where they are largest, 0 where they are not positive."""
    share = np.maximum(values, 0) / max(values.max(), 1e-9)
    return Image.fromarray(np.round(MOST_OPAQUE * share).astype(np.uint8))


def map_png(values):
    """What `overlay` lays over a picture, as PNG bytes of a pixel for each of float [h, w]."""
    alpha, file = opacity(values), io.BytesIO()
    image = Image.new("RGB", alpha.size, ORANGE)
    image.putalpha(alpha)
    image.save(file, "PNG")
    return file.getvalue()


def draw_confusion_matrix(matrix, classes, cell=36, size=13):
    """int64 [true, predicted] as PNG bytes; the darker a cell, the larger its share of the row.

    Args:
        cell, size: pixels of a cell, fewer with many classes, and of the letters, for which small ones
            have no room. Of more than MOST_CELLS classes neighbours share a cell.
    """
    starts = np.arange(0, len(classes), -(-len(classes) // MOST_CELLS))
    if len(starts) < len(classes):
        matrix = np.add.reduceat(np.add.reduceat(matrix, starts), starts, 1)
        classes = [classes[i] for i in starts]
    cell = max(4, min(cell, 1200 // len(classes)))
    legible = cell >= 2 * size
    left = max(text_width(name, size) for name in classes) + 12 if legible else 4
    share = matrix / np.maximum(1, matrix.sum(1, keepdims=True))
    share[matrix > 0] = 0.15 + 0.85 * share[matrix > 0]  # one mistake among hundreds is seen, too
    faded = (255 * (1 - share)).astype(np.uint8)
    colours = np.stack([np.full_like(faded, 255), faded, faded], 2)  # white to red
    diagonal = np.arange(len(classes))
    colours[diagonal, diagonal, 0] = faded[diagonal, diagonal]
    colours[diagonal, diagonal, 1] = 255 - (255 - faded[diagonal, diagonal]) // 3  # white to green
    cells = colours.repeat(cell, 0).repeat(cell, 1)
    cells[cell - 1 :: cell] = cells[:, cell - 1 :: cell] = 255

    note = "true class down, predicted across in the same order"
    width = left + max(len(cells), text_width(note, size - 2)) + 4
    image = Image.new("RGB", (width, len(cells) + 8 + size), "white")
    image.paste(Image.fromarray(cells), (left, 4))
    if legible:
        for row, counts in enumerate(matrix):
            y = 4 + row * cell + cell // 2
            draw_text(image, 4, y + size // 3, classes[row], size, "black")
            for column in counts.nonzero()[0]:
                text = str(counts[column])
                x = left + column * cell + (cell - text_width(text, 11)) // 2
                draw_text(image, x, y + 4, text, 11, "black")
    draw_text(image, left, image.height - 4, note, size - 2, "black")
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def draw_text(image, x, baseline, text, size, colour):
    """Draw on a PIL image, from pixel x on, the feet of the letters at `baseline`; `size`: their pixels."""
    draw = ImageDraw.Draw(image)
    for sign, font in spell(text, size):
        if isinstance(font, ImageFont.FreeTypeFont):
            draw.text((x, baseline), sign, colour, font, anchor="ls")
        else:
            draw.text((x, baseline - 9), sign, colour, font)  # Pillow's own font knows no anchors
        x += advance(font, sign)


def text_width(text, size):
    """Pixels that `draw_text` needs, int."""
    return int(sum(advance(font, sign) for sign, font in spell(text, size))) + 1


def spell(text, size):
    """[(sign, the first font that has it)]; a sign that no font has is spelt by its code, such as \\u732b."""
    signs = []
    for sign in " ".join(text.split()):
        font = next((font for font in fonts(size) if has(font, sign)), None)
        if font:
            signs.append((sign, font))
        else:
            code = sign.encode("ascii", "backslashreplace").decode()
            signs += [(each, fonts(size)[0]) for each in code]
    return signs


@functools.lru_cache(None)
def fonts(size):
    """Those of FONTS that this system has, or Pillow's own, which is small and Latin."""
    found = []
    for name in FONTS:
        with contextlib.suppress(OSError):
            found.append(ImageFont.truetype(name, size))
    return found or [ImageFont.load_default()]


@functools.lru_cache(None)
def advance(font, sign):
    """How far on the next sign begins, in pixels; asking a font takes about a millisecond."""
    return font.getlength(sign)


@functools.lru_cache(None)
def has(font, sign):
    """Whether the font draws this sign, and not the box that stands for those it has not."""
    try:
        return bytes(font.getmask(sign)) != bytes(font.getmask("\uffff"))
    except UnicodeEncodeError:  # half of a character, or one that Pillow's own font has not
        return sign < "\x7f"
