"""What stands in the suite's JSON files, and the words that they share with options and network.

Free of TensorFlow, so that `--help` can show them; a test holds them equal to resnet.py's.
"""

from __future__ import annotations

SPLITS = ("train", "val", "test")
FOLDS = "folds"  # the split that train.py --folds makes of train and val
LAYERS = (50, 101, 152)
SHORTCUTS = ("zero_pad", "projection", "projection_all")  # options A, B and C of He et al. 2015
STEMS = ("article", "small")  # the latter for pictures of up to SMALL_IMAGE
NORMALIZATIONS = ("per_image", "minus1_1")  # see suite/records/preprocessing.py
AUGMENTATIONS = ("none", "flip", "standard")  # likewise
FITS = ("crop", "pad", "squash")  # how a picture becomes a square; see suite/pictures/imagefile.py
IMAGENET, FINE_TUNING = "imagenet", "finetune"  # a --model, and the recipe that a --model gets
RECORDS = "data/tfrecords"  # where FlowIO.py writes them by default
MODEL = "models/resnet"  # where train.py does
LARGEST_IMAGE = 2048  # pixels on a side, that a network sees
SMALL_IMAGE = 64  # likewise, that a CPU trains on in minutes with the article's stem
LARGEST_DROPOUT = 0.95
TEMPERATURES = (0.05, 20)  # the lowest and the highest; see metrics.fit_temperature

NUMBER = {"type": "integer", "minimum": 0, "maximum": 10**8}
TEXT = {"type": "string", "minLength": 1, "maxLength": 255}
SHA256 = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
CLASSES = {"type": "array", "items": TEXT, "minItems": 1, "uniqueItems": True}
IMAGE_SIZE = {"type": "integer", "minimum": 1, "maximum": LARGEST_IMAGE}
COUNTS = {  # pictures, by split and class
    "type": "object",
    "properties": {split: {"type": "object", "additionalProperties": NUMBER} for split in SPLITS},
    "required": list(SPLITS),
    "additionalProperties": False,
}

FINGERPRINT = {  # see suite/records/fingerprints.py
    "type": "object",
    "properties": {
        "version": {"enum": [1]},
        "limit": {"type": "integer", "minimum": 1, "maximum": 2**48},
        "pictures": {"type": "string", "pattern": "^([0-9a-f]{12})*$"},
    },
    "required": ["version", "limit", "pictures"],
    "additionalProperties": False,
}
FINGERPRINTS = {"type": "object", "additionalProperties": FINGERPRINT}  # by split

# {file: (its format version, the script that writes it, what must be there, what may be)}
FILES: dict[str, tuple[int, str, dict, dict]] = {
    "dataset.json": (
        1,
        "FlowIO.py",
        {
            "classes": CLASSES,
            "image_size": IMAGE_SIZE,
            "counts": COUNTS,
            "skipped": NUMBER,
            "options": {"type": "object"},
        },
        {
            "fit": {"enum": list(FITS)},
            "seed": {"type": "integer"},
            "copies": NUMBER,
            "near_duplicates": NUMBER,
            "shards": {"type": "object", "additionalProperties": {"type": "integer", "minimum": 0}},
            "digest": SHA256,
            "fingerprints": FINGERPRINTS,
        },
    ),
    "model.json": (
        1,
        "train.py",
        {
            "network": {
                "type": "object",
                "properties": {
                    "layers": {"enum": list(LAYERS)},
                    "mini": {"type": "boolean"},
                    "shortcut": {"enum": list(SHORTCUTS)},
                    "preactivation": {"type": "boolean"},
                    "stem": {"enum": list(STEMS)},
                    "zero_init_residual": {"type": "boolean"},
                    "dropout": {"type": "number", "minimum": 0, "maximum": LARGEST_DROPOUT},
                },
                "required": ["layers", "mini", "shortcut", "preactivation"],
                "additionalProperties": False,
            },
            "classes": CLASSES,
            "image_size": IMAGE_SIZE,
            "normalize": {"enum": list(NORMALIZATIONS)},
            "options": {"type": "object", "properties": {"step": {"type": "integer", "minimum": 0}}},
        },
        {
            "keep_size": {"type": "boolean"},
            "fit": {"enum": list(FITS)},
            "dataset": {
                "type": "object",
                "properties": {
                    "digest": {"anyOf": [SHA256, {"type": "null"}]},
                    "counts": COUNTS,
                    "fingerprints": FINGERPRINTS,
                },
            },
            "versions": {"type": "object"},
        },
    ),
    "folds.json": (
        1,
        "train.py",
        {
            "folds": {"type": "integer", "minimum": 2},
            "files": {"type": "object", "additionalProperties": {"type": "array", "items": NUMBER}},
            "counts": {"type": "array", "items": {"type": "object", "additionalProperties": NUMBER}},
            "digest": {"anyOf": [SHA256, {"type": "null"}]},
            "seed": {"type": "integer"},
        },
        {},
    ),
    "best.json": (
        1,
        "train.py",
        {"step": NUMBER},
        {
            "accuracy": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
            "loss": {"type": ["number", "null"]},
            "since": {"type": "array", "items": NUMBER},
            "counted_from": NUMBER,
            "highest": {
                "type": "object",
                "properties": {
                    "accuracy": {"type": ["number", "null"]},
                    "loss": {"type": ["number", "null"]},
                },
                "required": ["accuracy", "loss"],
                "additionalProperties": False,
            },
            "recalibrated": {"type": "boolean"},
            "pictures": {"anyOf": [SHA256, {"type": "null"}]},
        },
    ),
    "temperature.json": (
        1,
        "train.py",
        {
            "temperature": {"type": "number", "minimum": TEMPERATURES[0], "maximum": TEMPERATURES[1]},
            "index": SHA256,  # of the checkpoint's index, which holds a checksum of each of its tensors
        },
        {},
    ),
}
