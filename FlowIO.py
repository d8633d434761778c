"""Turn folders of pictures into TFRecords, and TFRecords into batches for the network.

    python FlowIO.py [--dataset data/dataset] [--output data/tfrecords] [--image_size 224]

In: DATASET/<class name>/**/<picture>, or DATASET/train|val|test/<class name>/**/<picture> where you
have split already. Out: train-, val- and test- TFRecords, dataset.json and skipped.csv.

This file is also the one way from a picture to the network's input: `encode` then `decode`. Records
hold what `encode` gave; train.py, evaluate.py and predict.py all call the same two functions. Writing
and reading stand together, long as that makes the file, because each must match the other to the bit.
"""

import collections
import contextlib
import csv
import hashlib
import io
import os
import re
import shutil
import tempfile
from multiprocessing.pool import ThreadPool

import numpy as np
from PIL import Image, ImageCms, ImageOps
from tqdm import tqdm

import runtime
from runtime import UserError, say, tf

RECORDS_VERSION = 1  # of dataset.json and the records beside it
SPLITS = ("train", "val", "test")
FORMATS = ("JPEG", "PNG", "BMP", "GIF")  # what a picture is tried as, whatever its name says
LITTER = ("thumbs.db", "desktop.ini")  # left by file managers; like hidden files, passed over
MAX_PIXELS = 100 * 1000 * 1000  # more is refused before memory is spent on it
JPEG_QUALITY = 95
MARGIN = 256 / 224  # records keep this much more than the network sees, room for random crops
PICTURES_PER_SHARD = 1024
FEW = 80  # pictures of a class that the article asks for at least
IMBALANCE = 10  # times as many pictures in one class as in another is worth a warning
PREVIOUS = ".previous"  # suffix of the old records' folder while new ones take its place
OWN_FILES = re.compile(r"(train|val|test)-\d{5}-of-\d{5}\.tfrecord|dataset\.json|skipped\.csv")

SRGB = ImageCms.createProfile("sRGB")

Image.MAX_IMAGE_PIXELS = None  # Pillow only warns; `open_picture` refuses


class BadPicture(Exception):
    """A file that cannot be used; the message says why."""


# --- from a picture file to JPEG bytes ----------------------------------------


def read_file(path):
    """The bytes of a file. Raises BadPicture."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise BadPicture("cannot be read: %s" % error.strerror) from error


def encode(data, image_size):
    """Make any supported picture a small upright RGB JPEG.

    Args:
        data: bytes of a JPEG, PNG, BMP or GIF (first frame) file, told apart by content.
        image_size: pixels that the network sees. A larger picture is reduced until its shorter side
            is MARGIN times that; a smaller one is not enlarged. A JPEG that needs no change is
            passed on byte for byte.
    Returns:
        JPEG bytes.
    Raises:
        BadPicture: the data is of no supported format, damaged or has too many pixels.
    """
    image = open_picture(data)
    shorter = round(image_size * MARGIN)
    try:
        turned, profile = has_orientation(image), colour_profile(image)
        fits = min(image.size) <= shorter
        if not fits:
            scale = shorter / min(image.size)
            # A JPEG decoder halves for free; False for other formats.
            image.draft(None, [max(1, int(side * scale)) for side in image.size])
        image.load()
        if image.format == "JPEG" and image.mode == "RGB" and fits and not turned and not profile:
            return data
        image = to_rgb(ImageOps.exif_transpose(image) if turned else image, profile)
        if min(image.size) > shorter:
            scale = shorter / min(image.size)
            size = [max(shorter, round(side * scale)) for side in image.size]
            image = image.resize(size, Image.LANCZOS, reducing_gap=3)
    except Exception as error:  # Pillow's decoders raise nearly anything on a damaged file
        raise BadPicture("damaged: %s" % (str(error) or type(error).__name__)) from error
    jpeg = io.BytesIO()
    image.save(jpeg, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return jpeg.getvalue()


def open_picture(data):
    """Bytes -> a PIL image whose pixels are not decoded yet. Raises BadPicture."""
    if not data:
        raise BadPicture("empty file")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception as error:  # see encode
        raise BadPicture("not a picture in %s format" % ", ".join(FORMATS)) from error
    if image.width * image.height > MAX_PIXELS:
        raise BadPicture("%d x %d pixels are too many" % image.size)
    return image


def has_orientation(image):
    """Whether EXIF asks to turn or mirror the picture; damaged EXIF asks for nothing."""
    try:
        return image.getexif().get(0x0112, 1) in range(2, 9)
    except Exception:  # see encode
        return False


def colour_profile(image):
    """The embedded ICC profile; None where there is none, a damaged one, or sRGB anyway."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        return None if "sRGB" in ImageCms.getProfileDescription(profile) else profile
    except (KeyError, OSError, TypeError, ImageCms.PyCMSError):
        return None


def to_rgb(image, profile=None):
    """Any PIL mode to RGB in the colours of sRGB, transparency laid on white, 16 bits scaled to 8."""
    if image.mode.startswith("I"):
        pixels = np.asarray(image, np.int64).clip(0, 65535)
        image = Image.fromarray((pixels / 257 + 0.5).astype(np.uint8))
    elif image.mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode != "CMYK":
        image = image.convert("RGB")
    if profile and profile.profile.xcolor_space.strip() == image.mode:
        try:
            return ImageCms.profileToProfile(image, profile, SRGB, outputMode="RGB")
        except ImageCms.PyCMSError:
            pass  # an unusable profile: the colours are taken as they stand
    return image.convert("RGB")


# --- from JPEG bytes to the network's input ----------------------------------------


def decode(jpeg, image_size, normalize_as):
    """The network's view of a picture when it is not training: the centre, undistorted.

    Args:
        jpeg: string tensor, what `encode` returned.
        image_size: the centre square of this many pixels is taken; of a picture that is larger than
            `encode` makes them, the same share; a smaller picture is taken whole and enlarged.
        normalize_as: see `normalize`.
    Returns:
        float32 [image_size, image_size, 3].
    """
    shape = tf.image.extract_jpeg_shape(jpeg)[:2]
    side = crop_side(shape, image_size)
    return normalize(crop_and_resize(jpeg, (shape - side) // 2, [side, side], image_size), normalize_as)


def decode_augmented(jpeg, image_size, normalize_as, augment):
    """A random view of a picture, for training. As `decode`, and:

    Args:
        augment: "none": as `decode`. "flip": a random position, mirrored half of the time.
            "standard": a random quarter to whole of the picture, mirrored half of the time, with
            other brightness, contrast and saturation.
    """
    if augment == "none":
        return decode(jpeg, image_size, normalize_as)
    shape = tf.image.extract_jpeg_shape(jpeg)[:2]
    if augment == "flip":
        side = crop_side(shape, image_size)
        room = tf.cast(shape - side + 1, tf.float32)
        offset = tf.cast(tf.floor(tf.random_uniform([2]) * room), tf.int32)
        pixels = crop_and_resize(jpeg, offset, [side, side], image_size)
    else:
        whole = tf.constant([[[0.0, 0.0, 1.0, 1.0]]])
        offset, size, _ = tf.image.sample_distorted_bounding_box(
            tf.concat([shape, [3]], 0),
            whole,
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=(0.25, 1),
        )
        pixels = crop_and_resize(jpeg, offset[:2], tf.unstack(size[:2]), image_size)
        pixels = tf.image.random_brightness(pixels, 32)
        pixels = tf.image.random_contrast(pixels, 0.8, 1.25)
        pixels = tf.image.random_saturation(pixels, 0.8, 1.25)
        pixels = tf.clip_by_value(pixels, 0, 255)
    return normalize(tf.image.random_flip_left_right(pixels), normalize_as)


def crop_side(shape, image_size):
    """The side of the square that `decode` takes out of a picture of int32 shape [height, width]."""
    shorter = tf.reduce_min(shape)
    share = tf.cast(tf.round(tf.cast(shorter, tf.float32) / MARGIN), tf.int32)
    return tf.minimum(shorter, tf.maximum(image_size, share))


def crop_and_resize(jpeg, offset, size, image_size):
    """Decode only the window at `offset`, [top, left], of `size`; float32, 0..255."""
    window = tf.stack([offset[0], offset[1], size[0], size[1]])
    pixels = tf.image.decode_and_crop_jpeg(jpeg, window, channels=3, dct_method="INTEGER_ACCURATE")
    pixels = tf.image.resize_bilinear(pixels[tf.newaxis], [image_size, image_size], half_pixel_centers=True)
    return pixels[0]


def normalize(pixels, normalize_as):
    """Scale pixels of 0..255: "per_image" to mean 0 and deviation 1 (the article), or "minus1_1"."""
    if normalize_as == "minus1_1":
        return pixels / 127.5 - 1
    return tf.image.per_image_standardization(pixels)


# --- from TFRecords to batches ----------------------------------------

# folder: str; classes: list of str in index order; image_size: int; counts: {split: {class: n}}.
Records = collections.namedtuple("Records", "folder classes image_size counts")


def load_records(folder):
    """What dataset.json says about a folder of records.

    Raises:
        UserError: there are no records, not all of them, or they have another format version.
    """
    folder = os.path.normpath(folder)
    settle(folder)
    path = os.path.join(folder, "dataset.json")
    if not os.path.exists(path):
        raise UserError("%s: no records there (no dataset.json); make them with FlowIO.py" % folder)
    content = runtime.read_json(path, RECORDS_VERSION, "FlowIO.py")
    records = Records(folder, content["classes"], content["image_size"], content["counts"])
    for split in SPLITS:
        for name in shard_names(split, count(records, split)):
            if not os.path.exists(os.path.join(folder, name)):
                raise UserError("%s is missing from %s; run FlowIO.py again" % (name, folder))
    return records


def count(records, split):
    """The number of pictures in a split."""
    return sum(records.counts[split].values())


def shard_names(split, pictures):
    """The names of the files that this number of pictures of a split is spread over."""
    shards = -(-pictures // PICTURES_PER_SHARD)
    return ["%s-%05d-of-%05d.tfrecord" % (split, shard, shards) for shard in range(shards)]


def read(records, split, batch_size, normalize_as, augment=None, seed=None):
    """A tf.data.Dataset of batches {"image", "label", "filename"}.

    Args:
        records: from `load_records`.
        split: "train", "val" or "test".
        augment: None to see each picture once, in order, as `decode` gives it, the last batch being
            smaller; else see `decode_augmented`: endless, shuffled, all batches full.
        seed: of the shuffling and the augmentation.
    Returns:
        image: float32 [batch, image_size, image_size, 3]; label: int64 [batch]; filename: string
        [batch], relative to the data set's folder.
    """

    def parse(example):
        fields = tf.parse_single_example(
            example,
            {
                "image/encoded": tf.FixedLenFeature([], tf.string),
                "image/class/label": tf.FixedLenFeature([], tf.int64),
                "image/filename": tf.FixedLenFeature([], tf.string),
            },
        )
        image = decode_augmented(fields["image/encoded"], records.image_size, normalize_as, augment or "none")
        return {
            "image": image,
            "label": fields["image/class/label"],
            "filename": fields["image/filename"],
        }

    training = augment is not None
    names = shard_names(split, count(records, split))
    files = tf.data.Dataset.from_tensor_slices([os.path.join(records.folder, name) for name in names])
    if training:
        files = files.shuffle(len(names), seed=seed)
        examples = files.interleave(
            tf.data.TFRecordDataset,
            cycle_length=4,
            num_parallel_calls=tf.data.experimental.AUTOTUNE,
        )
        examples = examples.shuffle(4 * PICTURES_PER_SHARD, seed=seed).repeat()
    else:
        examples = tf.data.TFRecordDataset(files)
    pictures = examples.map(parse, num_parallel_calls=tf.data.experimental.AUTOTUNE)
    return pictures.batch(batch_size, drop_remainder=training).prefetch(2)


# --- converting a folder ----------------------------------------

# A file to convert. given: the split that the user's folders give it, or None; label: class index;
# filename: relative to the data set's folder.
Source = collections.namedtuple("Source", "given label filename")

# A converted one. digest: bytes, equal for files of equal content; position: 0 to 1, decides its split
# and its place in the records; offset, length: of its JPEG bytes in the spool; height, width: pixels.
Picture = collections.namedtuple("Picture", "source digest position offset length height width")


def main():
    options = parse_options()
    runtime.quiet(options)
    say("device: CPU, %d workers" % options.workers)
    classes, sources = list_sources(options.dataset)
    with replacing(options.output) as folder, tempfile.TemporaryFile(dir=folder) as spool:
        pictures, skipped = encode_all(sources, spool, options)
        pictures, copies, conflicts = drop_copies(pictures, classes)
        skipped += conflicts
        check_classes(classes, pictures, skipped, options.dataset)
        splits = assign_splits(pictures, options.train_ratio, options.val_ratio)
        for split in SPLITS:
            write_shards(folder, split, splits[split], classes, spool)
        write_skipped(folder, skipped)
        counts = count_pictures(splits, classes)
        write_description(folder, classes, counts, skipped, copies, options)
    print_counts(classes, counts, options.output)
    warn(classes, counts, skipped, copies, options.output)
    return 1 if skipped else 0


def parse_options(arguments=None):
    parser = runtime.ArgumentParser(__doc__)
    number = runtime.number
    parser.add_argument("--dataset", default="data/dataset", help="folder with one folder per class")
    parser.add_argument("--output", default="data/tfrecords", help="folder to write to")
    parser.add_argument(
        "--image_size",
        type=number(int, 32, 2048),
        default=224,
        help="pixels that the network will see",
    )
    parser.add_argument("--train_ratio", type=number(float, 0, 1), default=0.8, help="share to train on")
    parser.add_argument(
        "--val_ratio",
        type=number(float, 0, 1),
        default=0.1,
        help="share to validate on while training; the rest is for the final test",
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed, another split")
    parser.add_argument(
        "--workers",
        type=number(int, 1, 256),
        default=os.cpu_count(),
        help="pictures to decode at a time",
    )
    options = parser.parse_args(arguments)
    if options.train_ratio + options.val_ratio > 1 or options.train_ratio == 0:
        parser.error("--train_ratio must be above 0 and, with --val_ratio, at most 1")
    return options


def natural(name):
    """A sort key that puts 2 before 10."""
    parts = re.split("([0-9]+)", name)
    return [int(part) if i % 2 else part.lower() for i, part in enumerate(parts)], name


def list_sources(dataset):
    """The class names, in index order, and a Source for each file of each class.

    Raises:
        UserError: no such folder, fewer than two class folders, or names that are not text.
    """
    if not os.path.isdir(dataset):
        raise UserError("%s: no such folder; --dataset names one that holds a folder per class" % dataset)
    tops = list_folders(dataset)
    given = [split for split in SPLITS if split in tops] if set(tops) <= set(SPLITS) else []
    if given and "train" not in given:
        raise UserError("%s: has %s but no train folder" % (dataset, " and ".join(given)))
    parents = given or ["."]
    classes = {name for parent in parents for name in list_folders(os.path.join(dataset, parent))}
    classes = sorted(classes, key=natural)
    if len(classes) < 2:
        raise UserError(
            "%s: %s; put the pictures of each class into a folder of its own, such as %s and %s"
            % (
                dataset,
                "only one class, %s" % classes[0] if classes else "no class folders in it",
                os.path.join(dataset, "cat"),
                os.path.join(dataset, "dog"),
            )
        )
    for name in classes:
        if not is_text(name):
            raise UserError("%s: the name of class folder %a is not UTF-8; rename it" % (dataset, name))
    sources = []
    for parent in parents:
        for label, name in enumerate(classes):
            for filename in list_files(dataset, os.path.normpath(os.path.join(parent, name))):
                sources.append(Source(parent if given else None, label, filename))
    return classes, sources


def list_folders(folder):
    """The names of the folders in it that are not hidden."""
    names = [name for name in os.listdir(folder) if not name.startswith(".")]
    return [name for name in names if os.path.isdir(os.path.join(folder, name))]


def list_files(dataset, folder):
    """The files below a class folder, relative to the data set, in natural order."""
    filenames = []
    for parent, folders, names in os.walk(os.path.join(dataset, folder)):
        folders[:] = sorted((name for name in folders if not name.startswith(".")), key=natural)
        names = [name for name in names if not name.startswith(".") and name.lower() not in LITTER]
        for name in sorted(names, key=natural):
            filenames.append(os.path.relpath(os.path.join(parent, name), dataset))
    return filenames


def is_text(name):
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def encode_all(sources, spool, options):
    """Encode every source into the file `spool`, in order, whatever the number of workers.

    Returns:
        A Picture for each file that can be used, and (Source, reason) for each that cannot.
    """

    def work(source):
        try:
            data = read_file(os.path.join(options.dataset, source.filename))
            jpeg = encode(data, options.image_size)
        except BadPicture as error:
            return source, str(error), None, None
        return source, None, jpeg, hashlib.blake2b(data, digest_size=16).digest()

    pictures, skipped = [], []
    with ThreadPool(options.workers) as pool:
        results = pool.imap(work, sources)
        for source, reason, jpeg, digest in tqdm(results, "convert", len(sources), unit="img", disable=None):
            if reason:
                skipped.append((source, reason))
                continue
            width, height = Image.open(io.BytesIO(jpeg)).size
            place = position(digest, options.seed)
            pictures.append(Picture(source, digest, place, spool.tell(), len(jpeg), height, width))
            spool.write(jpeg)
    return pictures, skipped


def position(digest, seed):
    """A number from 0 to 1 that depends on a file's content and the seed alone.

    So a picture keeps its split when others are added or renamed.
    """
    keyed = hashlib.blake2b(digest, digest_size=8, key=b"%d" % seed).digest()
    return int.from_bytes(keyed, "big") / 2**64


def drop_copies(pictures, classes):
    """Keep the first of files with equal content, and none where they are in several classes.

    Returns:
        The pictures kept, the number of copies left out, and (Source, reason) for each conflict.
    """
    equals = collections.defaultdict(list)
    for picture in pictures:
        equals[picture.digest].append(picture)
    kept, copies, conflicts = [], 0, []
    for same in equals.values():
        labels = sorted({picture.source.label for picture in same})
        if len(labels) > 1:
            reason = "the same picture is in classes %s" % " and ".join(classes[i] for i in labels)
            conflicts += [(picture.source, reason) for picture in same]
        else:
            kept.append(same[0])
            copies += len(same) - 1
    return kept, copies, conflicts


def check_classes(classes, pictures, skipped, dataset):
    """Raises UserError where a class has no usable picture."""
    usable = {picture.source.label for picture in pictures}
    for label, name in enumerate(classes):
        if label not in usable:
            reasons = [reason for source, reason in skipped if source.label == label]
            why = "%d files, the first: %s" % (len(reasons), reasons[0]) if reasons else "it is empty"
            raise UserError("%s: class %s has no usable picture (%s)" % (dataset, name, why))


def assign_splits(pictures, train_ratio, val_ratio):
    """{split: [Picture]} in the order of their positions, which is random.

    Each class is split by the ratios. Where it has two pictures or more, one is in train and one in
    test, unless no test split was asked for.
    """
    splits = {split: [] for split in SPLITS}
    by_label = collections.defaultdict(list)
    for picture in pictures:
        if picture.source.given:
            splits[picture.source.given].append(picture)
        else:
            by_label[picture.source.label].append(picture)
    test_wanted = train_ratio + val_ratio < 1
    for members in by_label.values():
        members.sort(key=order)
        for i, picture in enumerate(members):
            if test_wanted and i > 0 and i == len(members) - 1:
                split = "test"
            elif i == 0 or picture.position < train_ratio:
                split = "train"
            elif picture.position < train_ratio + val_ratio or not test_wanted:
                split = "val"
            else:
                split = "test"
            splits[split].append(picture)
    for split in SPLITS:
        splits[split].sort(key=order)
    return splits


def order(picture):
    return picture.position, picture.source.filename


def write_shards(folder, split, pictures, classes, spool):
    """Write a split's records as tf.Example protocol buffers with TensorFlow's usual keys."""
    names = shard_names(split, len(pictures))
    for shard, name in enumerate(names):
        with tf.python_io.TFRecordWriter(os.path.join(folder, name)) as writer:
            for picture in pictures[shard :: len(names)]:
                spool.seek(picture.offset)
                features = {
                    "image/encoded": spool.read(picture.length),
                    "image/format": b"JPEG",
                    "image/height": picture.height,
                    "image/width": picture.width,
                    "image/class/label": picture.source.label,
                    "image/class/text": classes[picture.source.label].encode("utf-8"),
                    "image/filename": os.fsencode(picture.source.filename),
                }
                features = {key: feature(value) for key, value in features.items()}
                example = tf.train.Example(features=tf.train.Features(feature=features))
                writer.write(example.SerializeToString(deterministic=True))


def feature(value):
    """Bytes or an int as a tf.train.Feature."""
    if isinstance(value, bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))


def write_skipped(folder, skipped):
    path = os.path.join(folder, "skipped.csv")
    with open(path, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["filename", "reason"])
        writer.writerows((source.filename, reason) for source, reason in skipped)


def count_pictures(splits, classes):
    """{split: {class: n}}, with the classes that have none."""
    counts = {split: dict.fromkeys(classes, 0) for split in SPLITS}
    for split in SPLITS:
        for picture in splits[split]:
            counts[split][classes[picture.source.label]] += 1
    return counts


def write_description(folder, classes, counts, skipped, copies, options):
    content = {
        "format_version": RECORDS_VERSION,
        "classes": classes,
        "image_size": options.image_size,
        "counts": counts,
        "skipped": len(skipped),
        "copies": copies,
        "seed": options.seed,
        "options": {"train_ratio": options.train_ratio, "val_ratio": options.val_ratio},
    }
    runtime.write_json(os.path.join(folder, "dataset.json"), content)


def settle(output):
    """Bring back records that a process left aside, killed between the two renames of `replacing`."""
    if not os.path.exists(output) and os.path.exists(output + PREVIOUS):
        os.rename(output + PREVIOUS, output)


@contextlib.contextmanager
def replacing(output):
    """A new folder to write to, which takes the place of `output` when all went well.

    Raises:
        UserError: `output` holds something that FlowIO did not write and would be lost.
    """
    output = os.path.abspath(output)
    partial, previous = output + ".partial", output + PREVIOUS
    settle(output)
    if os.path.exists(output):
        foreign = [name for name in os.listdir(output) if not OWN_FILES.fullmatch(name)]
        if foreign:
            raise UserError(
                "%s: holds %s, which is no record of FlowIO.py's; choose another --output"
                % (output, foreign[0])
            )
    shutil.rmtree(partial, ignore_errors=True)
    os.makedirs(partial)
    try:
        yield partial
        shutil.rmtree(previous, ignore_errors=True)
        if os.path.exists(output):
            os.rename(output, previous)
        os.rename(partial, output)
        shutil.rmtree(previous, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def print_counts(classes, counts, output):
    width = max(len(name) for name in classes + ["class"])
    row = "%%-%ds %%7s %%7s %%7s" % width
    print(row % ("class", *SPLITS))
    for name in classes:
        print(row % (name, *(counts[split][name] for split in SPLITS)))
    print(row % ("total", *(sum(counts[split].values()) for split in SPLITS)))
    print("records of %d classes in %s" % (len(classes), output))


def warn(classes, counts, skipped, copies, output):
    """Say what the user may want to mend: small and large classes, copies, skipped files."""
    sizes = {name: sum(counts[split][name] for split in SPLITS) for name in classes}
    smallest, largest = min(classes, key=sizes.get), max(classes, key=sizes.get)
    if sizes[smallest] < FEW:
        few = sum(size < FEW for size in sizes.values())
        say(
            "warning: %d of %d classes have fewer than %d pictures, %s only %d"
            % (few, len(classes), FEW, smallest, sizes[smallest])
        )
    if sizes[largest] > IMBALANCE * sizes[smallest]:
        say(
            "warning: %s has %.0f times as many pictures as %s; the model will lean towards it"
            % (largest, sizes[largest] / sizes[smallest], smallest)
        )
    if copies:
        say("%d exact copies of other pictures were left out" % copies)
    if skipped:
        say(
            "%d files could not be used, the first: %s (%s); all are listed in %s"
            % (
                len(skipped),
                skipped[0][0].filename,
                skipped[0][1],
                os.path.join(output, "skipped.csv"),
            )
        )


if __name__ == "__main__":
    runtime.run(main)
