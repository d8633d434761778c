"""Draw the pictures of `make demo`: five kinds of fruit, one folder each, the same at every run.

    python data/draw_demo.py [--output data/demo] [--count 200] [--size 64] [--seed 0]

Each picture has its own background, position, size, angle and shade. One more picture of each kind,
which no training ever sees, goes to OUTPUT/new_pictures/.
"""

import argparse
import math
import os
import random
import signal

from PIL import Image, ImageDraw

CANVAS = 256  # every fruit is drawn on this many pixels, then turned, shrunk and pasted


def apple(draw, shade):
    draw.ellipse((40, 64, 150, 220), fill=shade(205, 30, 35))
    draw.ellipse((106, 64, 216, 220), fill=shade(205, 30, 35))
    draw.line((128, 84, 140, 28), fill=(90, 60, 30), width=12)
    draw.ellipse((140, 28, 206, 60), fill=shade(70, 150, 50))


def banana(draw, shade):
    draw.ellipse((14, -40, 242, 220), fill=shade(245, 215, 60))
    draw.ellipse((20, -100, 236, 140), fill=(0, 0, 0, 0))
    draw.rectangle((0, 0, 256, 60), fill=(0, 0, 0, 0))


def grapes(draw, shade):
    for row, count in enumerate((4, 3, 2, 1)):
        for column in range(count):
            x, y = 128 + (2 * column - count + 1) * 28, 70 + row * 46
            draw.ellipse((x - 30, y - 30, x + 30, y + 30), fill=shade(110, 45, 140))
    draw.line((128, 50, 128, 10), fill=(90, 70, 30), width=10)


def kiwi(draw, shade):
    draw.ellipse((28, 28, 228, 228), fill=shade(120, 90, 50))
    draw.ellipse((42, 42, 214, 214), fill=shade(130, 190, 50))
    for step in range(14):
        angle = 2 * math.pi * step / 14
        x, y = 128 + 48 * math.cos(angle), 128 + 48 * math.sin(angle)
        draw.ellipse((x - 7, y - 7, x + 7, y + 7), fill=(30, 30, 20))
    draw.ellipse((102, 102, 154, 154), fill=shade(235, 235, 190))


def watermelon(draw, shade):
    draw.pieslice((10, -70, 246, 190), 0, 180, fill=shade(40, 120, 50))
    draw.pieslice((26, -54, 230, 174), 0, 180, fill=shade(240, 245, 220))
    draw.pieslice((36, -44, 220, 164), 0, 180, fill=shade(230, 65, 75))
    for x, y in ((80, 84), (110, 110), (146, 110), (176, 84), (128, 76)):
        draw.ellipse((x - 6, y - 9, x + 6, y + 9), fill=(40, 20, 20))


FRUITS = {draw.__name__: draw for draw in (apple, banana, grapes, kiwi, watermelon)}


def picture(name, size, rng):
    """One `size` x `size` RGB picture of the fruit `name`, varied by the random.Random `rng`."""

    def shade(*rgb):
        return tuple(min(255, max(0, round(value + rng.gauss(0, 14)))) for value in rgb)

    fruit = Image.new("RGBA", (CANVAS, CANVAS))
    FRUITS[name](ImageDraw.Draw(fruit), shade)
    fruit = fruit.rotate(rng.uniform(-40, 40), Image.BICUBIC, expand=True)
    side = round(size * rng.uniform(0.6, 0.95))
    fruit = fruit.resize((side, side), Image.LANCZOS)

    # A background of a few blurred patches, light or dark, so that brightness tells nothing.
    patches = Image.new("RGB", (3, 3))
    base = rng.choice((70, 140, 210))
    patches.putdata([shade(base, base, base) for _ in range(9)])
    image = patches.resize((size, size), Image.BICUBIC)
    image.paste(fruit, (rng.randint(0, size - side), rng.randint(0, size - side)), fruit)
    return image


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--output", default="data/demo", help="folder to write to")
    parser.add_argument("--count", type=int, default=200, help="pictures of each kind")
    parser.add_argument("--size", type=int, default=64, help="width and height in pixels")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other pictures")
    options = parser.parse_args()

    rng = random.Random(options.seed)
    for name in FRUITS:
        folder = os.path.join(options.output, "dataset", name)
        os.makedirs(folder, exist_ok=True)
        for number in range(options.count):
            image = picture(name, options.size, rng)
            image.save(os.path.join(folder, "%s-%03d.jpg" % (name, number)), quality=92)
    folder = os.path.join(options.output, "new_pictures")
    os.makedirs(folder, exist_ok=True)
    for name in FRUITS:
        picture(name, 4 * options.size, rng).save(os.path.join(folder, name + ".jpg"), quality=92)
    print("pictures drawn of each of %s: %d" % (", ".join(FRUITS), options.count))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C without a traceback
    main()
