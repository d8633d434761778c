"""One contender of throughput.py: steps of a ResNet in PyTorch, see turns.serve.

    python benchmarks/pytorch_steps.py {train,infer} LAYERS SIZE BATCH [fp16] [compile]

The network is torchvision's ResNet v1.5 (stride in the 3x3, projections), memory in channels_last, which is
what PyTorch is fastest in. Computes on a GPU where it sees one, in TF32, or with fp16 in mixed precision;
compile: by torch.compile. Runs in an environment of its own: requirements/peers.txt.
"""

import sys

import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from turns import serve

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
CLASSES = 1000


def convolution(depth, outputs, size, stride=1):
    layer = nn.Conv2d(depth, outputs, size, stride, size // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs))


class Bottleneck(nn.Module):
    def __init__(self, depth, inner, stride):
        super().__init__()
        self.residual = nn.Sequential(
            convolution(depth, inner, 1),
            nn.ReLU(inplace=True),
            convolution(inner, inner, 3, stride),
            nn.ReLU(inplace=True),
            convolution(inner, 4 * inner, 1),
        )
        changes = stride > 1 or depth != 4 * inner
        self.shortcut = convolution(depth, 4 * inner, 1, stride) if changes else nn.Identity()

    def forward(self, x):
        return functional.relu(self.residual(x) + self.shortcut(x), inplace=True)


def resnet(layers):
    parts = [convolution(3, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    depth = 64
    for group, blocks in enumerate(BLOCKS[layers]):
        for i in range(blocks):
            inner = 64 * 2**group
            parts.append(Bottleneck(depth, inner, 2 if group and i == 0 else 1))
            depth = 4 * inner
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(depth, CLASSES))


def main():
    work, layers, size, batch = sys.argv[1], *map(int, sys.argv[2:5])
    is_half, is_compiled = "fp16" in sys.argv, "compile" in sys.argv
    has_gpu = torch.cuda.is_available()
    device = "cuda" if has_gpu else "cpu"
    torch.set_float32_matmul_precision("high")  # TF32, as its convolutions are by default
    torch.manual_seed(0)
    model = resnet(layers).to(device, memory_format=torch.channels_last)
    pictures = torch.randn(batch, 3, size, size).to(device, memory_format=torch.channels_last)
    labels = torch.randint(0, CLASSES, [batch]).to(device)
    scaler = torch.amp.GradScaler(device, enabled=is_half and has_gpu)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, 0.9, weight_decay=1e-4, nesterov=True)

    def train():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.float16 if has_gpu else torch.bfloat16, enabled=is_half):
            loss = functional.cross_entropy(model(pictures), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    def infer():
        with torch.inference_mode():
            functional.softmax(model(pictures), 1)

    model.eval()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(pictures[:1])
    model.train(work == "train")
    run = train if work == "train" else infer

    def step():
        run()
        if has_gpu:
            torch.cuda.synchronize()

    if is_compiled:
        model = torch.compile(model)
        step()  # before it is ready, while others may use the GPU: kernels are chosen later, alone
    torch.backends.cudnn.benchmark = True
    facts = {"multiply_adds": counter.get_total_flops() // 2, "torch": torch.__version__}
    serve(facts, step, lambda: {"peak": torch.cuda.max_memory_allocated()} if has_gpu else {})


if __name__ == "__main__":
    main()
