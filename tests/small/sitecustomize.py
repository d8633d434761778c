"""What Python imports at its start where PYTHONPATH names this folder, as in all tests but `whole_network`'s.

Of the half as wide ResNet-50 one bottleneck a group is left, so scripts build their graphs in half the time.
"""

import importlib.machinery
import sys

WHOLE: dict = {}  # ResNet_mini_demo as it stands in resnet.py


class SmallNetwork(importlib.machinery.PathFinder):
    """Finds resnet.py, whoever imports it and whenever, and changes its network by then."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        spec = super().find_spec(name, path, target) if name == "resnet" else None
        if spec:
            load = spec.loader.exec_module
            spec.loader.exec_module = lambda module: (load(module), shrink(module))
        return spec


def shrink(resnet):
    WHOLE.update(resnet.ResNet_mini_demo)
    resnet.ResNet_mini_demo["layer_50"] = [{**group, "num_class": 1} for group in WHOLE["layer_50"]]


sys.meta_path.insert(0, SmallNetwork)
