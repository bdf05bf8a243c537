"""The reader of safetensors files: right for all that the format has, and one line for all that is damaged."""

from __future__ import annotations

import json
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors_files import file_of, header_and_numbers, write_safetensors

import minitransformer as mt
from minitransformer.published.safetensors import read_safetensors

RNG = np.random.default_rng(0)
ARRAYS = {
    "encoder.weight": RNG.normal(size=(3, 5)).astype("float32"),
    "double": RNG.normal(size=7),
    "half": RNG.normal(size=(2, 1, 3)).astype("float16"),
    "position_ids": np.arange(4)[None],
    "bytes": np.arange(3, dtype="uint8"),
    "mask": np.array([True, False, True]),
    "empty": np.zeros((0, 3), "float32"),
    "scalar": np.array(2.5, "float32"),
    "é 名": np.ones(2, "int32"),
}


def assert_equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        np.testing.assert_array_equal(found[name], x, strict=True)
        assert found[name].flags.aligned and found[name].flags.c_contiguous


def message(path: Path) -> str:
    with pytest.raises(mt.CheckpointError) as caught:
        read_safetensors(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and "\n" not in text and len(text) < len(str(path)) + 400
    return text.removeprefix(f"{path}: ")


def test_all_that_was_written_is_read(tmp_path):
    path = tmp_path / "a.safetensors"
    write_safetensors(path, ARRAYS)
    assert_equal(read_safetensors(path), ARRAYS)


def test_metadata_trailing_spaces_and_another_order_are_part_of_the_format(tmp_path):
    header, numbers = header_and_numbers(ARRAYS)
    header = {"__metadata__": {"format": "pt"}, **dict(reversed(header.items()))}
    path = tmp_path / "a.safetensors"
    path.write_bytes(file_of(json.dumps(header).encode() + b" " * 5, numbers))
    assert_equal(read_safetensors(path), ARRAYS)


def test_bf16_is_the_upper_half_of_a_float32(tmp_path):
    x = np.array([[1.0, -2.5, 0.0, -0.0], [3.140625, 1e30, np.inf, -np.inf]], "float32")
    halves = (x.view("uint32") >> 16).astype("<u2")
    header = {"x": {"dtype": "BF16", "shape": [2, 4], "data_offsets": [0, 16]}}
    path = tmp_path / "a.safetensors"
    path.write_bytes(file_of(header, halves.tobytes()))
    expected = (halves.astype("uint32") << 16).view("float32")
    np.testing.assert_array_equal(read_safetensors(path)["x"], expected, strict=True)
    assert (
        np.abs(expected[np.isfinite(x)] / np.where(x == 0, 1, x)[np.isfinite(x)] - 1)[[0, 1, 4, 5]].max()
        < 2**-7
    )


def test_files_of_the_library_are_read(tmp_path):
    torch = pytest.importorskip("torch")
    save_file = pytest.importorskip("safetensors.torch").save_file
    path = tmp_path / "a.safetensors"
    names = ("float64", "float32", "float16", "bfloat16", "int64", "int8", "uint8", "bool")
    tensors = {name: (3 * torch.randn(3, 5)).to(getattr(torch, name)) for name in names}
    save_file(tensors, path, metadata={"format": "pt"})
    found = read_safetensors(path)
    assert found.keys() == tensors.keys()
    for name, x in tensors.items():
        expected = x.float() if name == "bfloat16" else x
        np.testing.assert_array_equal(found[name], expected.numpy(), strict=True)


ONE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
TWO = {"dtype": "F32", "shape": [1], "data_offsets": [8, 12]}
NOT_AN_ENTRY = "'a': expected a dtype of F64, F32, F16, BF16, "
WRONG = {  # headers with 12 bytes behind them -> what the message says
    "too short": ({"a": ONE}, "expected 8 bytes after the header, got 12"),
    "no tensors": ({}, "expected 0 bytes after the header, got 12"),
    "overlap": (
        {"a": ONE, "b": {**TWO, "shape": [2], "data_offsets": [4, 12]}},
        "'b': expected bytes 8 to 16 for F32 of shape [2], got 4 to 12",
    ),
    "twice the same": ({"a": ONE, "b": ONE}, "'b': expected bytes 8 to 16 for F32 of shape [2], got 0 to 8"),
    "gap": (
        {"a": {**ONE, "shape": [1], "data_offsets": [0, 4]}, "b": TWO},
        "'b': expected bytes 4 to 8 for F32 of shape [1], got 8 to 12",
    ),
    "beyond the end": (
        {"a": ONE, "b": {**TWO, "shape": [4], "data_offsets": [8, 24]}},
        "expected 24 bytes after the header, got 12",
    ),
    "absurd": (
        {"a": {"dtype": "F32", "shape": [2**40, 2**20], "data_offsets": [0, 2**62]}},
        "expected 4,611,686,018,427,387,904 bytes after the header, got 12",
    ),
    "more than 64 bits": ({"a": {**ONE, "data_offsets": [0, 2**70]}}, NOT_AN_ENTRY),
    "a product of more than 64 bits": ({"a": {**ONE, "shape": [2**62] * 8}}, "got 0 to 8"),
    "negative offset": ({"a": {**ONE, "data_offsets": [-8, 0]}}, NOT_AN_ENTRY),
    "backwards": ({"a": {**ONE, "data_offsets": [8, 0]}}, "expected bytes 0 to 8 for F32 of shape [2], got 8 to 0"),
    "another size": ({"a": {**ONE, "shape": [3]}}, "'a': expected bytes 0 to 12 for F32 of shape [3], got 0 to 8"),
    "negative size": ({"a": {**ONE, "shape": [-2]}}, NOT_AN_ENTRY),
    "two negative sizes": ({"a": {**ONE, "shape": [-2, -1]}}, NOT_AN_ENTRY),
    "many axes": ({"a": {**ONE, "shape": [2] + [1] * 99}}, NOT_AN_ENTRY),
    "a size that is no number": ({"a": {**ONE, "shape": ["2"]}}, NOT_AN_ENTRY),
    "a size that is true": ({"a": {**ONE, "shape": [2, True]}}, NOT_AN_ENTRY),
    "a size with a point": ({"a": {**ONE, "shape": [2.0]}}, NOT_AN_ENTRY),
    "one offset": ({"a": {**ONE, "data_offsets": [0]}}, NOT_AN_ENTRY),
    "no offsets": ({"a": {"dtype": "F32", "shape": [2]}}, NOT_AN_ENTRY),
    "no shape": ({"a": {"dtype": "F32", "shape": "2", "data_offsets": [0, 8]}}, NOT_AN_ENTRY),
    "unknown dtype": ({"a": {**ONE, "dtype": "F8_E4M3"}}, NOT_AN_ENTRY),
    "a list as dtype": ({"a": {**ONE, "dtype": ["F32"]}}, "got {'dtype': ['F32'], "),
    "a list as tensor": ({"a": [ONE]}, NOT_AN_ENTRY),
    "a long name": ({"a" * 10_000: 3}, "expected a dtype"),
    "a name with a line break": ({"a\nb": 3}, "expected a dtype"),
    "a list": ([ONE], "expected a JSON object as header"),
    "a name twice": (b'{"a": {"dtype": "F32", "dtype": "F32"}}', "expected each name once, got ['dtype', 'dtype']"),
    "no JSON": (b'{"a": ', "damaged or not a safetensors file (Expecting value"),
    "no UTF-8": (b'{"\xff": 1}', "can't decode byte 0xff"),
    "brackets": (b"[" * 100_000, "recursion"),
    "NaN": (b'{"a": NaN}', "expected a dtype"),
    "digits": (b'{"a": {"dtype": "F32", "shape": [' + b"9" * 5000 + b"]}}", "limit"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_header_gets_one_line(tmp_path, case):
    header, expected = WRONG[case]
    path = tmp_path / "a.safetensors"
    path.write_bytes(file_of(header, bytes(12)))
    assert expected in message(path)


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 10**9, 101, 1, 0])
def test_a_wrong_length_of_the_header_takes_no_memory(tmp_path, length):
    path = tmp_path / "a.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + bytes(100))
    tracemalloc.start()
    try:
        text = message(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    assert f"expected a header of 2 … 100 bytes in 108, got {length:,}" in text


def test_what_is_no_file(tmp_path):
    assert message(tmp_path / "a.safetensors") == "cannot be read (No such file or directory)"
    (tmp_path / "folder").mkdir()
    assert message(tmp_path / "folder").startswith("cannot be read (not a file, but a folder")
    path = tmp_path / "short"
    for n in range(8):
        path.write_bytes(bytes(n))
        assert "expected a header" in message(path)


def test_a_file_that_is_cut_anywhere_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    write_safetensors(path, ARRAYS)
    whole = path.read_bytes()
    for n in range(len(whole)):
        path.write_bytes(whole[:n])
        assert re.search("expected|Expecting|Unterminated|delimiter|decode", message(path))
    path.write_bytes(whole + b"\0")
    assert "after the header" in message(path)


HOSTILE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
SMALL = st.integers(-1, 30)
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F64", "BF16", "I64", "U8", "F4", "f32"]) | HOSTILE,
        "shape": st.lists(SMALL, max_size=3) | HOSTILE,
        "data_offsets": st.tuples(SMALL, SMALL) | HOSTILE,
    }
)


def read_or_refused(path: Path, content: bytes) -> None:
    """What is read fits into the file; anything else is refused in a line."""
    path.write_bytes(content)
    try:
        arrays = read_safetensors(path)
    except mt.CheckpointError as error:
        assert "\n" not in str(error)
    else:
        assert sum(x.nbytes for x in arrays.values()) <= 2 * len(content)  # BF16 grows


@given(data=st.data())
def test_damaged_bytes_are_read_or_refused_in_a_line(tmp_path_factory, data):
    content = bytearray(file_of(*header_and_numbers(ARRAYS)))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1) | st.integers(0, 20))
        kind = data.draw(st.sampled_from(["change", "cut", "insert", "remove"]))
        if kind == "change":
            content[at : at + 1] = data.draw(
                st.binary(min_size=1, max_size=1) | st.sampled_from([b'"', b"-", b"9", b"]"])
            )
        elif kind == "cut":
            del content[at + 1 :]
        elif kind == "insert":
            content[at:at] = data.draw(st.binary(max_size=4))
        else:
            del content[at : at + data.draw(st.integers(1, 9))]
        if not content:
            break
    read_or_refused(tmp_path_factory.mktemp("damaged") / "a", bytes(content))


@given(
    header=st.dictionaries(st.text(max_size=3), ENTRIES | HOSTILE, max_size=4) | HOSTILE,
    numbers=st.binary(max_size=40),
)
def test_hostile_headers_are_read_or_refused_in_a_line(tmp_path_factory, header, numbers):
    read_or_refused(tmp_path_factory.mktemp("hostile") / "a", file_of(header, numbers))
