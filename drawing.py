"""Text and pictures on one sheet."""

from PIL import Image, ImageDraw, ImageFont

FONTS = ("NotoSansCJK-Regular.ttc", "wqy-zenhei.ttc", "wqy-microhei.ttc", "msyh.ttc", "PingFang.ttc")
FONTS += ("DejaVuSans.ttf", "Arial.ttf")


def contact_sheet(columns, rows, tile=96):
    """Pictures in a table.

    Args:
        columns: (title, width in pictures) for each group of columns.
        rows: (label, [[PIL image, ...] for each group of columns]) for each row.
        tile: pixels that a picture takes.
    Returns:
        A PIL image.
    """
    gap, line = 4, 20
    font = find_font(13)
    left = gap + max(text_width(font, label) for label, _ in rows) + 3 * gap
    starts, x = [], left
    for _, width in columns:
        starts.append(x)
        x += width * (tile + gap) + 3 * gap
    sheet = Image.new("RGB", (x, line + 2 * gap + len(rows) * (tile + gap)), "white")
    draw = ImageDraw.Draw(sheet)
    for start, (title, _) in zip(starts, columns):
        draw.text((start, gap), printable(font, title), "black", font)
    for number, (label, groups) in enumerate(rows):
        y = line + gap + number * (tile + gap)
        draw.text((gap, y + tile // 2 - 8), printable(font, label), "black", font)
        for start, group in zip(starts, groups):
            for i, image in enumerate(group):
                sheet.paste(image.resize((tile, tile), Image.BICUBIC), (start + i * (tile + gap), y))
    return sheet


def find_font(size):
    """A font of the system's, one with Chinese if there is one; else Pillow's own, Latin only."""
    for name in FONTS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default()


def printable(font, text):
    """The text as far as the font can show it."""
    if isinstance(font, ImageFont.FreeTypeFont):
        return text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text.encode("latin-1", "backslashreplace").decode("latin-1")


def text_width(font, text):
    return font.getbbox(printable(font, text))[2]
