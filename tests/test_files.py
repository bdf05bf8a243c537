"""Files are whole or not there, links are not followed, and nothing half written stays behind."""

import errno
import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import minitransformer as mt
from minitransformer.files import (
    append_line,
    as_json,
    open_regular,
    read_text,
    sweep,
    write_bytes,
    write_text,
)


class PowerCut(BaseException):
    """What a test raises in the middle of a write."""


@pytest.mark.parametrize("at", ["fsync", "replace"])
def test_a_failed_text_leaves_the_previous_file_whole(tmp_path, monkeypatch, at):
    path = tmp_path / "a.json"
    write_text(path, "first\n")

    def cut(*arguments):
        raise PowerCut

    monkeypatch.setattr(os, at, cut)
    with pytest.raises(PowerCut):
        write_text(path, "second\n")
    monkeypatch.undo()
    assert path.read_text() == "first\n"
    write_text(path, "third\n")
    assert path.read_text() == "third\n"


def test_where_there_are_no_links_a_new_file_is_still_new(tmp_path, monkeypatch):
    """As on a memory stick: FAT and exFAT have none."""

    def refuse(*arguments):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    write_text(tmp_path / "x", "one", new=True)
    with pytest.raises(FileExistsError):
        write_text(tmp_path / "x", "two", new=True)
    assert (tmp_path / "x").read_text() == "one" and len(list(tmp_path.iterdir())) == 1


def test_a_link_is_replaced_and_not_followed(tmp_path):
    outside, link = tmp_path / "outside", tmp_path / "x"
    outside.write_text("mine")
    for target in (outside, tmp_path / "nowhere"):
        link.symlink_to(target)
        write_text(link, "new")
        assert outside.read_text() == "mine" and not link.is_symlink() and link.read_text() == "new"
        link.unlink()
        link.symlink_to(target)
        with pytest.raises(FileExistsError):
            write_text(link, "new", new=True)
        with pytest.raises(OSError) as raised:
            append_line(link, "new")
        assert raised.value.errno == errno.ELOOP and outside.read_text() == "mine"
        link.unlink()
    assert not (tmp_path / "nowhere").exists()


def test_the_temporary_file_is_made_new_even_where_a_link_has_its_name(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("mine")
    (tmp_path / f"x.{os.getpid()}.tmp").symlink_to(outside)
    write_text(tmp_path / "x", "new")
    assert outside.read_text() == "mine" and (tmp_path / "x").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside", "x"]


@pytest.mark.parametrize("new", [False, True])
def test_a_full_disk_names_the_file_and_leaves_nothing_behind(tmp_path, monkeypatch, new):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: .*x\.json"):
        write_text(tmp_path / "x.json", "{}", new=new)
    assert list(tmp_path.iterdir()) == []


def test_what_dead_processes_left_is_swept_and_nothing_else(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    others = {f"b.npz.{dead.pid}.tmp", "a.npz.99999999999.tmp"}  # of another name; of no process
    mine = {f"a.npz.{os.getpid()}.tmp", "notes.tmp", "a.tmp", "x.12a.tmp", "checkpoint.npz", *others}
    for name in (*mine, f"a.npz.{dead.pid}.tmp"):
        (tmp_path / name).write_text("")
    sweep(tmp_path, re.compile(r"a\.npz"))
    assert {path.name for path in tmp_path.iterdir()} == mine


def test_a_byte_order_mark_is_no_text(tmp_path):
    write_bytes(tmp_path / "x", "\ufeffÄ".encode())
    assert read_text(tmp_path / "x") == "Ä"


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_is_called_so(tmp_path, encoding):
    write_bytes(tmp_path / "x", "\ufeff{}".encode(encoding))
    with pytest.raises(mt.InputError, match="expected UTF-8, got UTF-16; save it as UTF-8"):
        read_text(tmp_path / "x")


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_only_files_are_read(tmp_path, kind):
    (os.mkfifo if kind == "pipe" else os.mkdir)(tmp_path / "x")
    with pytest.raises(OSError, match="not a file, but a folder, a pipe or a device"):
        open_regular(tmp_path / "x")


def test_numbers_that_json_does_not_have_are_null_and_named():
    record = {"loss": float("nan"), "valid": {"loss": float("inf"), "n": 3}, "list": [1.0, float("-inf")]}
    assert json.loads(as_json(record)) == {
        "loss": None,
        "valid": {"loss": None, "n": 3},
        "list": [1.0, None],
        "not_finite": ["loss: nan", "valid.loss: inf", "list.1: -inf"],
    }
    assert as_json({"loss": 0.5}) == '{"loss": 0.5}'


def test_a_line_for_which_there_is_no_room_names_its_file():
    """/dev/full is a disk without room; a line is written when its file is closed."""
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("only Linux has a full disk at hand")
    with pytest.raises(OSError, match="No space left") as raised:
        append_line(full, "a line")
    assert raised.value.filename == str(full)


@pytest.mark.parametrize("name", [".", "/", ""])
def test_what_has_no_name_is_no_file(name):
    with pytest.raises(IsADirectoryError):
        write_bytes(Path(name), b"")


def test_the_name_of_a_new_file_is_flushed_after_its_content(tmp_path, monkeypatch):
    synced, fsync = [], os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda fd: synced.append(stat.S_ISDIR(os.fstat(fd).st_mode)) or fsync(fd)
    )
    write_text(tmp_path / "x", "text")
    assert synced == [False, True]
