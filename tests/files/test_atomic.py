"""Folders and files that are replaced, whatever they are: folders of their own, links, mount points."""

import errno
import functools
import itertools
import os
import re
import subprocess
import sys
import threading
import time

import pytest
from helpers import ROOT, finding

from suite.files import atomic
from suite.process import lifetime
from suite.process.errors import UserError

OWN = re.compile("[a-z]")
OLD = {"a": "old", "b": "old", "s/c": "old", "s/d": "old"}
NEW = {"a": "new", "e": "new", "s/c": "new", "s/f": "new"}


def fill(folder, files):
    for name, text in files.items():
        path = os.path.join(str(folder), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)


def files(folder):
    """{path: text} of what is in a folder but what is not written to its end."""
    found = {}
    for parent, names, leaves in os.walk(str(folder)):
        names[:] = [name for name in names if name != atomic.INSIDE[0]]
        for path in (os.path.join(parent, name) for name in leaves):
            with open(path) as file:
                found[os.path.relpath(path, str(folder))] = file.read()
    return found


def replace(folder):
    with atomic.replacing(str(folder), OWN) as new:
        fill(new, NEW)


def cannot_be_renamed(monkeypatch):
    """Have the kernel say of any folder that is renamed what it says of a mount point."""
    rename = os.rename

    def refuse(source, target):
        if os.path.basename(source) == "out":
            raise OSError(errno.EBUSY, "Device or resource busy", source)
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    monkeypatch.setattr(atomic, "is_mount_point", lambda path: True)


# --- kills ----------------------------------------

CHANGES = ("mkdir", "rename", "remove", "unlink", "rmdir")  # of os, and so of shutil


def killed_at(number, function, tidy=lambda: None):
    """Whether function() had ended before it came to its change of this number, at which it is killed.

    Args:
        tidy: what is done then.
    """
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1] == 0
    left = itertools.count(number, -1)

    def before(change):
        def either(*args, **options):
            if next(left) == 0:
                tidy()
                os._exit(1)
            return change(*args, **options)

        return either

    for name in CHANGES:
        setattr(os, name, before(getattr(os, name)))
    try:
        function()
    except BaseException:
        os._exit(2)
    os._exit(0)


@pytest.mark.parametrize("stays", [False, True])
def test_a_kill_at_any_moment_leaves_the_old_or_the_new(tmp_path, monkeypatch, stays):
    if stays:
        cannot_be_renamed(monkeypatch)
    seen = []
    for number in itertools.count():
        place = tmp_path / str(number)
        fill(place / "out", OLD)
        ended = killed_at(number, functools.partial(replace, place / "out"))
        os.close(atomic.lock(str(place / "out")))  # as a reader does
        seen.append(files(place / "out"))
        replace(place / "out")
        assert files(place) == {"out/" + name: text for name, text in NEW.items()}
        assert not set(os.listdir(str(place / "out"))) & set(atomic.INSIDE)
        if ended:
            break
    assert number > 8 and seen[0] == OLD and seen[-1] == NEW
    assert seen == sorted(seen, key=lambda each: each == NEW) and all(each in (OLD, NEW) for each in seen)


@pytest.mark.parametrize("stays", [False, True])
def test_a_signal_at_any_moment_leaves_nothing_beside_it(tmp_path, monkeypatch, stays):
    if stays:
        cannot_be_renamed(monkeypatch)
    for number in itertools.count():
        place = tmp_path / str(number)
        fill(place / "out", OLD)
        ended = killed_at(number, functools.partial(replace, place / "out"), lifetime.tidy_up)
        assert files(place / "out") in (OLD, NEW) and os.listdir(str(place)) == ["out"]
        if ended:
            break
    assert number > 8 and files(place / "out") == NEW


def test_an_exception_leaves_the_old_in_a_folder_that_stays(tmp_path, monkeypatch):
    cannot_be_renamed(monkeypatch)
    fill(tmp_path / "out", OLD)
    inode = os.stat(str(tmp_path / "out")).st_ino
    with pytest.raises(KeyError), atomic.replacing(str(tmp_path / "out"), OWN) as new:
        fill(new, NEW)
        raise KeyError
    assert files(tmp_path) == {"out/" + name: text for name, text in OLD.items()}
    replace(tmp_path / "out")
    assert files(tmp_path / "out") == NEW and os.stat(str(tmp_path / "out")).st_ino == inode


def test_a_reader_waits_for_who_moves_the_files(tmp_path, monkeypatch):
    """It must not help another process that is at it."""
    monkeypatch.setattr(atomic, "LOCK_SECONDS", 0)
    fill(tmp_path, OLD)
    fill(tmp_path / atomic.INSIDE[1], NEW)
    held = atomic.lock_as_it_is(str(tmp_path), alone=True)
    with pytest.raises(UserError, match="another process"):
        atomic.lock(str(tmp_path))
    os.close(held)
    os.close(atomic.lock(str(tmp_path)))
    assert files(tmp_path) == NEW


def test_a_reader_between_the_two_renames_waits(tmp_path, monkeypatch):
    """It must not give the old folder its name again, which the new one is about to take."""
    fill(tmp_path / "out", OLD)
    rename, seen = os.rename, []

    def read():
        os.close(atomic.lock(str(tmp_path / "out")))
        seen.append(files(tmp_path / "out"))

    def slowly(source, target):
        rename(source, target)
        if target.endswith(atomic.PREVIOUS):
            readers.append(threading.Thread(target=read))
            readers[0].start()
            time.sleep(0.3)

    readers: list = []
    monkeypatch.setattr(os, "rename", slowly)
    replace(tmp_path / "out")
    readers[0].join()
    assert seen == [NEW] and files(tmp_path) == {"out/" + name: text for name, text in NEW.items()}


@pytest.mark.parametrize("suffix", ["", atomic.PREVIOUS])
def test_a_folder_that_goes_as_it_is_opened(tmp_path, monkeypatch, suffix):
    """The new one has come by then, or none has."""
    fill(tmp_path / ("out" + suffix), OLD)
    open_as_ever, came = os.open, []

    def late(path, flags):
        if not came:
            came.append(path)
            os.rename(path, str(tmp_path / "gone"))
            fill(tmp_path / "out", NEW)
        return open_as_ever(path, flags)

    monkeypatch.setattr(os, "open", late)
    descriptor = atomic.lock(str(tmp_path / "out"))
    assert came == [str(tmp_path / "out") + suffix] and atomic.is_at(descriptor, str(tmp_path / "out"))
    os.close(descriptor)
    assert files(tmp_path / "out") == NEW


def test_a_reader_in_the_moment_between_its_two_looks(tmp_path, monkeypatch):
    """The old folder is there at its first, neither at its second: it looks again."""
    fill(tmp_path / "out", OLD)
    settle, looks = atomic.settle, []

    def early(output):
        looks.append(output)
        settle(output)
        if len(looks) == 1:
            os.rename(output, output + atomic.PREVIOUS)

    monkeypatch.setattr(atomic, "settle", early)
    os.close(atomic.lock(str(tmp_path / "out")))
    assert len(looks) == 2 and files(tmp_path) == {"out/" + name: text for name, text in OLD.items()}


def test_a_folder_that_comes_back_as_it_is_looked_for(tmp_path, monkeypatch):
    """It is locked, and not taken for one that is missing."""
    fill(tmp_path / "out", OLD)
    looks, isdir = [], os.path.isdir
    monkeypatch.setattr(os.path, "isdir", lambda path: len(looks.append(path) or looks) > 1 and isdir(path))
    monkeypatch.setattr(atomic, "settle", lambda output: None)
    descriptor = atomic.lock(str(tmp_path / "out"))
    assert atomic.is_at(descriptor, str(tmp_path / "out"))
    os.close(descriptor)


def test_what_the_next_one_begins_is_not_tidied_away(tmp_path, monkeypatch):
    """Once the new folder has its name, that of what is not written to its end is another process's."""
    fill(tmp_path / "out", OLD)
    rename = os.rename

    def then_the_next(source, target):
        rename(source, target)
        if source.endswith(atomic.PARTIAL):
            fill(source, {"a": "the next"})

    monkeypatch.setattr(os, "rename", then_the_next)
    replace(tmp_path / "out")
    assert files(tmp_path / "out") == NEW and files(tmp_path / ("out" + atomic.PARTIAL)) == {"a": "the next"}


def test_two_that_write_one_file_wait_for_each_other(tmp_path):
    path, began = str(tmp_path / "a"), []

    def write(text):
        with atomic.replacing_file(path) as partial:
            began.append(text)
            for letter in text:
                with open(partial, "a") as file:
                    file.write(letter)
                time.sleep(0.02)

    threads = [threading.Thread(target=write, args=(text,)) for text in ("first", "other", "third")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert files(tmp_path) == {"a": began[-1]} and len(began) == 3


# --- what is not ours ---------------------------------------


@pytest.mark.parametrize("exists", [True, False])
def test_what_others_named_like_it_stays(tmp_path, exists):
    beside = {"out.partial/a": "mine", "out.previous/a": "mine", "out.bak": "mine", "a.txt.partial": "mine"}
    fill(tmp_path, beside)
    if exists:
        fill(tmp_path / "out", OLD)
    else:
        os.close(atomic.lock(str(tmp_path / "out")))
    replace(tmp_path / "out")
    with atomic.replacing_file(str(tmp_path / "a.txt")) as partial:
        fill(tmp_path, {partial: "new"})
    assert files(tmp_path) == {**beside, "a.txt": "new", **{"out/" + name: NEW[name] for name in NEW}}


def test_what_a_system_leaves_there_meanwhile_stays(tmp_path):
    """As the lock of an office program that shows skipped.csv: no work is thrown away for it."""
    fill(tmp_path / "out", OLD)
    with atomic.replacing(str(tmp_path / "out"), OWN) as new:
        fill(new, NEW)
        fill(tmp_path / "out", {".~lock.skipped.csv#": "mine", "Thumbs.db": "mine"})
    assert files(tmp_path / "out") == {**NEW, ".~lock.skipped.csv#": "mine", "Thumbs.db": "mine"}
    assert os.listdir(str(tmp_path)) == ["out"]


@pytest.mark.parametrize("stays, name", [(False, "notes.txt"), (True, "notes.txt")])
def test_what_somebody_puts_there_meanwhile_stays(tmp_path, monkeypatch, stays, name):
    if stays:
        cannot_be_renamed(monkeypatch)
    fill(tmp_path / "out", OLD)
    says = "out: holds %s, which is not ours" % re.escape(name)
    with pytest.raises(UserError, match=says), atomic.replacing(str(tmp_path / "out"), OWN) as new:
        fill(new, NEW)
        fill(tmp_path / "out", {name: "mine"})
    assert files(tmp_path) == {"out/" + each: text for each, text in {**OLD, name: "mine"}.items()}


@pytest.mark.parametrize("mounted", [False, True])
def test_what_systems_leave_there_stays(tmp_path, monkeypatch, mounted):
    if mounted:
        cannot_be_renamed(monkeypatch)
    left = {"lost+found/1": "theirs", "Thumbs.db": "theirs", ".nfs001": "theirs"}
    fill(tmp_path / "out", {**OLD, **left})
    replace(tmp_path / "out")
    assert files(tmp_path / "out") == {**NEW, **left} and os.listdir(str(tmp_path)) == ["out"]


# --- where a folder stays ----------------------------------------


@pytest.mark.parametrize("place", ["ours", "the shell's", "a forbidden folder"])
def test_folders_that_stay(tmp_path, monkeypatch, place):
    """Ours and the shell's: the working directory of this process, and of the one that started it."""
    out = tmp_path / "out"
    fill(out, OLD)
    inode = os.stat(str(out)).st_ino
    if place == "ours":
        monkeypatch.chdir(str(out))
        replace(os.curdir)
    elif place == "the shell's":
        monkeypatch.chdir(str(out))
        program = "import os, re; os.chdir('/'); from suite.files import atomic\n"
        program += "with atomic.replacing(%r, re.compile('[a-z]')) as new: open(new + '/g', 'w')" % str(out)
        environment = finding(ROOT)
        subprocess.run([sys.executable, "-c", program], env=environment, check=True)
        assert os.listdir(os.curdir) == ["g"]
        replace(out)
    else:
        monkeypatch.setattr(os, "access", lambda path, mode: path != str(tmp_path))
        replace(out)
    assert files(out) == NEW and os.stat(str(out)).st_ino == inode


def test_other_folders_are_replaced_at_once(tmp_path):
    fill(tmp_path / "out", OLD)
    inode = os.stat(str(tmp_path / "out")).st_ino
    replace(tmp_path / "out")
    assert files(tmp_path / "out") == NEW and os.stat(str(tmp_path / "out")).st_ino != inode


# --- links ----------------------------------------


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays(tmp_path, exists):
    """Also one that leads nowhere yet, and one to a link."""
    os.makedirs(str(tmp_path / "big"))
    os.symlink("big/records", str(tmp_path / "link"))
    os.symlink(str(tmp_path / "link"), str(tmp_path / "other"))
    if exists:
        fill(tmp_path / "big" / "records", OLD)
    for _ in range(2):
        replace(tmp_path / "other")
        assert sorted(os.listdir(str(tmp_path))) == ["big", "link", "other"]
        assert os.listdir(str(tmp_path / "big")) == ["records"]
        assert os.readlink(str(tmp_path / "link")) == "big/records" and files(tmp_path / "other") == NEW


def test_a_link_that_leads_nowhere_at_all(tmp_path):
    os.symlink("out", str(tmp_path / "out"))
    with pytest.raises(UserError, match="out: is a file"):
        replace(tmp_path / "out")


def test_the_link_of_a_file_stays(tmp_path):
    os.makedirs(str(tmp_path / "big"))
    os.symlink("big/sheet.png", str(tmp_path / "sheet.png"))
    for text in ("old", "new"):
        with atomic.replacing_file(str(tmp_path / "sheet.png")) as partial, open(partial, "w") as file:
            file.write(text)
        assert os.path.islink(str(tmp_path / "sheet.png")) and files(tmp_path / "big") == {"sheet.png": text}


def test_a_folder_or_a_mount_where_a_file_should_be(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="is a folder, where"), atomic.replacing_file(str(tmp_path)):
        pass
    fill(tmp_path, {"a": "old"})
    monkeypatch.setattr(atomic, "is_mount_point", lambda path: True)
    with pytest.raises(UserError, match="is mounted by itself"), atomic.replacing_file(str(tmp_path / "a")):
        pass
    assert files(tmp_path) == {"a": "old"}


def test_a_system_without_descriptors_of_paths(tmp_path, monkeypatch):
    """As macOS."""
    monkeypatch.delattr(os, "O_PATH")
    fill(tmp_path / "out", {"a": "old"})
    replace(tmp_path / "out")
    assert files(tmp_path / "out") == NEW
    assert atomic.is_mount_point("/") and not atomic.is_mount_point(str(tmp_path))


def test_what_killed_processes_left_goes_once_it_is_old(tmp_path):
    fill(
        tmp_path, {"1.replacing.partial": "", "2.replacing.partial": "", "3": "", "4.replacing.partial/a": ""}
    )
    for name, hours in (
        ("1.replacing.partial", 2),
        ("2.replacing.partial", 0.5),
        ("3", 2),
        ("4.replacing.partial", 2),
    ):
        os.utime(str(tmp_path / name), (time.time() - 3600 * hours,) * 2)
    atomic.remove_abandoned(str(tmp_path))
    assert sorted(os.listdir(str(tmp_path))) == ["2.replacing.partial", "3", "4.replacing.partial"]
    with atomic.unique_partial(str(tmp_path)) as one, atomic.unique_partial(str(tmp_path)) as other:
        assert one != other
        open(one, "w").close()
    assert not os.path.exists(one)
    atomic.remove_abandoned(str(tmp_path / "none"))


def test_only_the_link_is_removed(tmp_path):
    fill(tmp_path / "big", OLD)
    os.symlink("big", str(tmp_path / "link"))
    os.symlink("nowhere", str(tmp_path / "dangling"))
    for name in ("link", "dangling"):
        atomic.remove(str(tmp_path / name))
    assert os.listdir(str(tmp_path)) == ["big"] and files(tmp_path / "big") == OLD
