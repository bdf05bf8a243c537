"""Checkpoints are whole or not there, and damage is always noticed."""

import io
import os
import pickle
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minitransformer as mt
from minitransformer import files
from minitransformer.runs.checkpoint import load_checkpoint, save_checkpoint


def example():
    rng = np.random.default_rng(1)
    arrays = {
        "model.encoder.layers.0.W": rng.normal(size=(3, 5)).astype("float32"),
        "adam.m": rng.normal(size=17),
        "adam.t": np.asarray(41),
        "empty": np.zeros((0, 3)),
    }
    meta = {"step": 41, "seconds": 0.1 + 0.2, "solved": False, "since_report": {"loss": 1e-300}, "none": None}
    return arrays, meta


def assert_same(loaded, saved):
    assert loaded[1] == saved[1]
    assert loaded[0].keys() == saved[0].keys()
    for name, array in saved[0].items():
        assert loaded[0][name].dtype == array.dtype
        np.testing.assert_array_equal(loaded[0][name], array, strict=True)


def test_what_is_loaded_is_what_was_saved(tmp_path):
    path = tmp_path / "a.npz"
    save_checkpoint(path, *example())
    assert_same(load_checkpoint(path), example())
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_saving_again_replaces(tmp_path):
    path = tmp_path / "a.npz"
    save_checkpoint(path, {"x": np.arange(1000)}, {"step": 1})
    save_checkpoint(path, *example())
    assert_same(load_checkpoint(path), example())


def test_nothing_in_a_checkpoint_is_pickled(tmp_path):
    path = tmp_path / "a.npz"
    save_checkpoint(path, *example())
    with zipfile.ZipFile(path) as file:
        for name in file.namelist():
            with file.open(name) as member:
                version = np.lib.format.read_magic(member)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else None
                assert read is not None and not read(member)[2].hasobject
    with pytest.raises(ValueError, match=r"pickle|object"):
        save_checkpoint(path, {"x": np.array([{}], dtype=object)}, {})
    assert_same(load_checkpoint(path), example())  # the failed attempt left the old one


class PowerCut(BaseException):
    """What a test raises in the middle of a write."""


@pytest.mark.parametrize("at", ["open", "write", "fsync", "replace"])
def test_a_failed_save_leaves_the_previous_file_whole(tmp_path, monkeypatch, at):
    path = tmp_path / "a.npz"
    save_checkpoint(path, *example())
    before = path.read_bytes()

    def cut(*arguments, **keywords):
        raise PowerCut

    def half(file, **arrays):
        file.write(b"PK\x03\x04 half of a file")
        raise PowerCut

    if at == "open":
        monkeypatch.setattr(files, "open", cut, raising=False)
    elif at == "write":
        monkeypatch.setattr(np, "savez", half)
    else:
        monkeypatch.setattr(os, at, cut)
    with pytest.raises(PowerCut):
        save_checkpoint(path, {"x": np.ones(7)}, {"step": 42})
    monkeypatch.undo()
    assert path.read_bytes() == before
    save_checkpoint(path, {"x": np.ones(7)}, {"step": 42})  # and what it left does not disturb the next
    assert load_checkpoint(path)[1] == {"step": 42}


def test_all_is_on_disk_before_the_name_is(tmp_path, monkeypatch):
    """fsync of the temporary file, with all its bytes, comes before the rename."""
    events, folders = [], []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(number):
        events.append(("fsync", os.fstat(number).st_size))
        if stat.S_ISDIR(os.fstat(number).st_mode):
            folders.append(Path(os.readlink(f"/proc/self/fd/{number}")))
        fsync(number)

    def noted_replace(source, target):
        events.append(("replace", os.stat(source).st_size))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    save_checkpoint(tmp_path / "a.npz", *example())
    names, sizes = zip(*events, strict=True)
    assert names == ("fsync", "replace", "fsync")  # the last one of the folder, which holds the name
    assert sizes[0] == sizes[1] == (tmp_path / "a.npz").stat().st_size
    assert folders == [tmp_path]


@given(st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused(tmp_path_factory, share):
    path = tmp_path_factory.mktemp("truncated") / "a.npz"
    save_checkpoint(path, *example())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(mt.CheckpointError, match="damaged"):
        load_checkpoint(path)


def test_no_single_wrong_byte_goes_unnoticed(tmp_path):
    """Every byte of a small file in turn: it is refused, or each array that is loaded is as it was saved.

    (A directory entry damaged in its lengths may hide the next array; whoever asks for it then misses it.)
    """
    path = tmp_path / "a.npz"
    saved = {"x": np.arange(3.0)}, {"step": 7}
    save_checkpoint(path, *saved)
    whole = bytearray(path.read_bytes())
    refused = 0
    for i in range(len(whole)):
        for flip in (0x01, 0xFF):
            damaged = whole.copy()
            damaged[i] ^= flip
            path.write_bytes(damaged)
            try:
                loaded = load_checkpoint(path)
            except mt.CheckpointError as error:
                refused += 1
                assert str(path) in str(error)
                assert "\n" not in str(error)
            else:
                assert set(loaded[0]) <= {"x"}
                assert_same((loaded[0] or saved[0], loaded[1]), saved)
    assert refused > len(whole)  # of twice as many


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, allow_pickle=True, **arrays)
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK",
        b"not a checkpoint at all\n",
        bytes(range(256)) * 20,
        pickle.dumps({"model": 1}),
        npy(np.arange(5)),
        npz(x=np.arange(5)),  # a zip of arrays, but no meta
        npz(**{"meta.json": np.array([{"step": 1}], dtype=object)}),  # pickled
        npz(**{"meta.json": np.frombuffer(b"{not json", np.uint8)}),
        npz(**{"meta.json": np.frombuffer(b"\xff\xfe", np.uint8)}),
        npz(**{"meta.json": np.frombuffer(b"[1, 2]", np.uint8)}),  # JSON, but no object
    ],
    ids="empty PK text bytes pickle npy no-meta pickled-meta bad-json bad-utf8 list-meta".split(),  # noqa: SIM905
)
def test_what_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(mt.CheckpointError, match=r"a\.npz"):
        load_checkpoint(path)
    assert path.read_bytes() == content


class Bomb:
    """Unpickling this calls os.mkdir."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("form", ["pickle", "npz"])
def test_loading_never_unpickles(tmp_path, form):
    path, crater = tmp_path / "a.npz", tmp_path / "crater"
    path.write_bytes(
        pickle.dumps(Bomb(crater))
        if form == "pickle"
        else npz(**{"meta.json": np.frombuffer(b"{}", np.uint8), "x": np.array([Bomb(crater)], dtype=object)})
    )
    with pytest.raises(mt.CheckpointError):
        load_checkpoint(path)
    assert not crater.exists()


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(mt.CheckpointError, match="no such file"):
        load_checkpoint(tmp_path / "a.npz")
    (tmp_path / "b.npz").mkdir()
    with pytest.raises(mt.CheckpointError):
        load_checkpoint(tmp_path / "b.npz")


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (MemoryError("Unable to allocate 9 TiB"), "too large for this machine's memory, or damaged"),
        (PermissionError(13, "denied"), "cannot be read"),
    ],
)
def test_what_cannot_be_read_now_may_stay_where_it_is(tmp_path, monkeypatch, error, what):
    save_checkpoint(tmp_path / "x.npz", {"a": np.ones(3)}, {})

    def fail(*arguments, **more):
        raise error

    monkeypatch.setattr(np, "load", fail)
    with pytest.raises(mt.CheckpointError, match=rf"x\.npz: {what} \(") as caught:
        load_checkpoint(tmp_path / "x.npz")
    assert "move" not in str(caught.value)


def packed(**arrays):
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def test_what_is_larger_unpacked_than_on_disk_is_not_unpacked(tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(packed(**{"meta.json": np.frombuffer(b"{}", np.uint8), "x": np.zeros(1_000_000)}))
    with pytest.raises(mt.CheckpointError, match=r"8,000,\d+ bytes packed into"):
        load_checkpoint(path)


def test_a_pipe_is_no_checkpoint(tmp_path):
    """To open it would block for ever."""
    os.mkfifo(tmp_path / "a.npz")
    with pytest.raises(
        mt.CheckpointError, match=r"a\.npz: cannot be read \(not a file, but a folder, a pipe or a device"
    ):
        load_checkpoint(tmp_path / "a.npz")


@pytest.mark.parametrize(
    "x", [np.array([1, np.nan]), np.array([[np.inf]]), np.array(["text"]), np.array([1j])]
)
def test_arrays_hold_finite_numbers(tmp_path, x):
    np.savez(tmp_path / "a.npz", **{"meta.json": np.frombuffer(b"{}", np.uint8), "x": x})
    with pytest.raises(mt.CheckpointError, match=r"x: expected finite numbers, got "):
        load_checkpoint(tmp_path / "a.npz")
