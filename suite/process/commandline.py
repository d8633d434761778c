"""What the command lines of all scripts share: --device, --tf32, --verbose, mistakes answered in one line."""

import argparse
import contextlib
import difflib
import os
import re
import shlex
import sys

from suite.process.terminal import say

MANY = 1000  # names in a folder, among which a mistyped one is not looked for: that takes a second and more
NEAR = 10  # paths that are near to a mistyped one, among which one of the right kind is looked for


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults, but for switches and options that have none."""

    def _get_help_string(self, action):
        shown = action.default not in (None, []) and action.default is not False
        return super()._get_help_string(action) if shown else action.help


class ArgumentParser(argparse.ArgumentParser):
    """Answers a mistake in one line; knows --device, --tf32, whose default may be another, and --verbose."""

    def __init__(self, doc, tf32="yes"):
        super().__init__(
            description=doc.split("\n")[0],
            formatter_class=HelpFormatter,
            allow_abbrev=False,
        )
        self.tf32 = tf32

    def parse_args(self, *arguments):
        """As argparse's; also keeps TensorFlow's C++ code quiet from here on, unless --verbose was given."""
        group = self.add_argument_group("machine")
        group.add_argument(
            "--device",
            type=device_name,
            default="auto",
            metavar="{auto,cpu,gpu:0,...}",
            help="where to compute",
        )
        group.add_argument(
            "--tf32",
            choices=("yes", "no"),
            default=self.tf32,
            help="let GPUs from Ampere on multiply in TF32: quicker, and probabilities about 0.001 from the "
            "CPU's; no: about 0.00001",
        )
        group.add_argument("--verbose", action="store_true", help="show TensorFlow's own messages")
        options, unknown = self.parse_known_args(*arguments)
        many = [each.dest for each in self._actions if each.nargs == "+" and not each.option_strings]
        if many:  # of which argparse takes those in one place only
            end = unknown.index("--") if "--" in unknown else len(unknown)
            words = [word for word in unknown[:end] if not re.match("-.", word)]
            getattr(options, many[0]).extend(words + unknown[end + 1 :])
            unknown = [word for word in unknown[:end] if re.match("-.", word)]
        if unknown:
            self.error("unrecognized arguments: %s%s" % (" ".join(unknown), self.hint(unknown[0])))
        self.check_paths(options)
        if not options.verbose:
            os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # has to be there when TensorFlow is imported
        return options

    def check_paths(self, options):
        """Refuse paths that are empty, as of an unset variable, and those that TensorFlow cannot take."""
        for name, value in vars(options).items():
            if value == "":
                self.error("argument --%s: is empty; give it a value, or leave it out" % name)
        for name in ("output", "data", "pictures", "model", "compare"):
            path = getattr(options, name, None) or ""
            try:
                os.path.realpath(path).encode("utf-8")
            except UnicodeEncodeError:
                self.error("--%s %a: must be UTF-8, which TensorFlow expects; rename it" % (name, path))
            if name == "output" and "://" in path:
                self.error("--output %s: must be a local path; copy it there when it is done" % path)

    def error(self, message):
        """End with exit status 2 and one line, without argparse's lines of usage."""
        say("%s: error: %s" % (self.prog, message))
        self.exit(2)

    def hint(self, word):
        """For the end of a message: the option that a word may have been meant as, or nothing."""
        if word.startswith("--"):
            return did_you_mean(word.partition("=")[0], self._option_string_actions)
        first = list(self._option_string_actions)[2]  # after -h and --help: what the script is given to read
        is_path = os.sep in word or os.path.exists(word)
        return "; did you mean %s %s?" % (first, shlex.quote(word)) if is_path else ""


def is_given(name):
    """Whether the command line has the option --name, be it with its default."""
    return any(word.partition("=")[0] == "--" + name for word in sys.argv[1:])


def command(script, **options):
    """A command for the user to type; where a value begins with a dash, an option is no word of its own."""
    words = ["python", script]
    for name, value in options.items():
        if value is True:
            words.append("--" + name)
            continue
        value = str(value)
        words += ["--%s=%s" % (name, value)] if value.startswith("-") else ["--" + name, value]
    return " ".join(map(shlex.quote, words))


def did_you_mean(word, words):
    """For the end of a message: which of the words a mistyped one is near to, or nothing."""
    near = difflib.get_close_matches(word, words, 1)
    return "; did you mean %s?" % near[0] if near else ""


def meant(path, fits=os.path.exists):
    """`did_you_mean`, for a path that is not there.

    Args:
        fits: a function of a path that is there, whether it is of the kind that there should be.
    """
    parent, name = os.path.split(os.path.normpath(path))
    while parent and not os.path.isdir(parent):
        parent, name = os.path.split(parent)
        fits = os.path.isdir
    with contextlib.suppress(OSError):
        names = [re.sub(r"\.index\Z", "", each) for each in os.listdir(parent or ".")]  # of a checkpoint
        names = [each for each in names if each != name] if len(names) <= MANY else []
        near = difflib.get_close_matches(name, names, NEAR)
        for each in (os.path.join(parent, each) for each in near):
            if fits(each):
                return "; did you mean %s?" % each
    return ""


def missing(path, problem, fits=os.path.isdir):
    """A message about a path that is not there: it says what a relative one is relative to.

    Args:
        fits: see `meant`.
    """
    place = path if os.path.isabs(path) else "%s (in %s)" % (path, os.getcwd())
    return "%s: %s%s" % (place, problem, meant(path, fits))


def device_name(text):
    """An argparse type: auto, cpu or gpu:<number>, as str."""
    if not re.match(r"(auto|cpu|gpu:\d+)\Z", text):
        raise argparse.ArgumentTypeError("%r is none of auto, cpu, gpu:0, gpu:1, ..." % text)
    return text


def seed(text):
    """An argparse type: a whole number of 64 bits, as TensorFlow takes it."""
    return number(int, -(2**63), 2**63 - 1)(text)


def number(kind, low, high=float("inf")):
    """An argparse type: a number of type `kind` (int or float) from `low` to `high`, both included."""

    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high or value == float("inf"):
            limits = "from %g to %g" % (low, high) if high < float("inf") else "of at least %g" % low
            what = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError("%r is not %s %s" % (text, what, limits))
        return value

    return parse
