"""The article's ResNet-50 and its training, written again in PyTorch: one training for independent.py.

    python benchmarks/pytorch_training.py DATASET STEPS SEED [glorot|he]

DATASET holds train/ and val/ with class folders of pictures, which are seen at 32 pixels. Prints the accuracy
on val after the last step. Nothing of the suite is imported; what is computed is what docs/walkthrough.md and
the recipe `article` say, at half the width (`--mini`). It needs requirements/peers.txt alone.
"""

import pathlib
import sys

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

SIZE, BATCH = 32, 32
GROUPS = ((128, 3), (256, 4), (512, 6), (1024, 3))  # channels, blocks
RATE, RATE_END, PENALTY = 0.001, 0.05, 1e-4


def kernels(inputs, outputs, size, stride=1, bias=False):
    return nn.Conv2d(inputs, outputs, size, stride, (size - 1) // 2, bias=bias)


class Block(nn.Module):
    """Two convolutions with batch norm, one with a bias, and a shortcut that is filled up with zeros."""

    def __init__(self, inputs, outputs, stride, norm):
        super().__init__()
        inner = outputs // 4
        self.stride, self.missing = stride, outputs - inputs
        self.residual = nn.Sequential(
            *(kernels(inputs, inner, 1), norm(inner), nn.ReLU()),
            *(kernels(inner, inner, 3, stride), norm(inner), nn.ReLU()),
            kernels(inner, outputs, 1, bias=True),
        )

    def forward(self, x):
        before = self.missing // 2
        shortcut = functional.pad(x, (0, 0, 0, 0, before, self.missing - before))
        return functional.relu(self.residual(x) + shortcut[:, :, :: self.stride, :: self.stride])


def resnet(classes, steps):
    def norm(channels):
        return nn.BatchNorm2d(channels, eps=1e-3, momentum=max(0.003, 1 / max(10, steps / 50)))

    layers, channels = [kernels(3, 64, 7, 2, bias=True), nn.MaxPool2d(3, 2)], 64
    for group, (outputs, blocks) in enumerate(GROUPS, 1):
        for i in range(1, blocks + 1):
            layers.append(Block(channels, outputs, 2 if i == blocks and group < len(GROUPS) else 1, norm))
            channels = outputs
    head = norm(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)
    return nn.Sequential(*layers, *head)


def initialize(network, how):
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            if how == "he":
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            else:
                nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def read(folder):
    """float32 [n, 3, SIZE, SIZE], each picture of mean 0 and deviation 1; and int64 [n]."""
    pixels, labels = [], []
    for label, name in enumerate(sorted(each.name for each in folder.iterdir())):
        for path in sorted((folder / name).iterdir()):
            with Image.open(path) as image:
                pixels.append(np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.BILINEAR)))
            labels.append(label)
    x = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float()
    deviation, mean = torch.std_mean(x, (1, 2, 3), unbiased=False, keepdim=True)
    return (x - mean) / deviation.clamp(min=(3 * SIZE * SIZE) ** -0.5), torch.tensor(labels)


def batches(count):
    """Endlessly: int64 [BATCH], each of `count` once before any again."""
    waiting = torch.empty(0, dtype=torch.int64)
    while True:
        while len(waiting) < BATCH:
            waiting = torch.cat([waiting, torch.randperm(count)])
        yield waiting[:BATCH]
        waiting = waiting[BATCH:]


def main():
    folder, steps, seed = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.manual_seed(seed)
    (x, labels), (val_x, val_labels) = read(folder / "train"), read(folder / "val")
    network = resnet(len(labels.unique()), steps)
    initialize(network, sys.argv[4] if len(sys.argv) > 4 else "glorot")
    weights = [layer.weight for layer in network.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    optimizer = torch.optim.Adam(network.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, RATE_END ** (1 / steps))
    for _, chosen in zip(range(steps), batches(len(x))):
        pictures = x[chosen]
        mirrored = torch.rand(BATCH) < 0.5
        pictures[mirrored] = pictures[mirrored].flip(3)
        loss = functional.cross_entropy(network(pictures), labels[chosen])
        loss = loss + PENALTY * sum(weight.square().sum() for weight in weights) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    network.eval()
    with torch.no_grad():
        answers = torch.cat([network(part).argmax(1) for part in val_x.split(200)])
    print("%.4f" % (answers == val_labels).float().mean())


if __name__ == "__main__":
    main()
