"""Do class activation maps lie on the object that they are of?

    python benchmarks/maps.py [train.py's options]

Trains on drawn pictures of 224 pixels with a fruit of `make demo` anywhere, or nothing, on noise. Then draws
100 with two different ones, in the middle of the left half and of the right, and prints of how many of the
200 maps 90% of the positive mass is in the half of the fruit: of the class activation maps, and of what is
drawn, by how much they lead at each place.
"""

import os
import random
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [ROOT, os.path.join(ROOT, "data")]

import draw_demo
import numpy as np
from PIL import Image, ImageDraw

from suite.model import modelfolder
from suite.model.classifier import Classifier
from suite.model.maps import lead, spread

SIZE, FRUIT = 224, 64  # pixels
COUNT = 160  # pictures of each kind to train on
TESTED = 100
MASS = 0.9


def main():
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        draw(os.path.join(folder, "dataset"), rng)
        run("FlowIO.py", "--dataset", "dataset", "--output", "records", cwd=folder)
        run("train.py", "--data", "records", "--output", "model", "--mini", *sys.argv[1:], cwd=folder)
        model = modelfolder.load_model(os.path.join(folder, "model"))
        with Classifier(model.folder) as classify:
            shares = np.array([measure(classify, model, rng) for _ in range(TESTED)])
    print("%d%% of the positive mass in the right half, of %d maps:" % (100 * MASS, 2 * TESTED))
    print("class activation maps %d, what is drawn %d" % tuple((shares >= MASS).sum((0, 2))))


def run(script, *arguments, cwd):
    subprocess.run([sys.executable, os.path.join(ROOT, script), *arguments], cwd=cwd, check=True)


def draw(folder, rng):
    """Class folders to train on."""
    for name in (*draw_demo.FRUITS, "nothing"):
        os.makedirs(os.path.join(folder, name))
        for number in range(COUNT):
            place = name, rng.randint(0, SIZE - FRUIT), rng.randint(0, SIZE - FRUIT)
            image = scene([place] if name in draw_demo.FRUITS else [], rng)
            image.save(os.path.join(folder, name, "%d.png" % number))


def scene(fruits, rng):
    """A PIL image of fruits, [(name, x, y)]."""
    noise = Image.new("RGB", (8, 8))
    noise.putdata([tuple(rng.randrange(256) for _ in range(3)) for _ in range(64)])
    image = noise.resize((SIZE, SIZE), Image.BICUBIC)
    for name, x, y in fruits:
        fruit = Image.new("RGBA", (draw_demo.CANVAS, draw_demo.CANVAS))
        draw_demo.FRUITS[name](
            ImageDraw.Draw(fruit), lambda *rgb: tuple(c + rng.randint(-14, 14) for c in rgb)
        )
        fruit = fruit.rotate(rng.uniform(-40, 40), Image.BICUBIC).resize((FRUIT, FRUIT), Image.LANCZOS)
        image.paste(fruit, (x, y), fruit)
    return image


def measure(classify, model, rng):
    """The shares of positive mass in a fruit's half, of both fruits' maps and of their leads: [2, 2]."""
    names, half = rng.sample(sorted(draw_demo.FRUITS), 2), SIZE // 2
    left, down = (half - FRUIT) // 2, SIZE - FRUIT
    fruits = [(name, i * half + left, rng.randint(0, down)) for i, name in enumerate(names)]
    _, _, maps = classify.explained([classify.prepare(scene(fruits, rng)).pixels])
    classes = [classify.classes.index(name) for name in names]
    return [
        [share(each[0], model, i) for i, each in enumerate(found)]
        for found in ([maps[..., each] for each in classes], [lead(maps, [each]) for each in classes])
    ]


def share(values, model, half):
    """Of the positive mass of a map, float [h, w], that in the left (0) or right (1) half."""
    mass = np.maximum(spread(values, model), 0).sum(0).reshape(2, -1).sum(1)
    return mass[half] / max(mass.sum(), 1e-9)


if __name__ == "__main__":
    main()
