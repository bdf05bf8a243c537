"""What every layer refuses, and in which words: one rule for all of them."""

from __future__ import annotations

import re

import numpy as np
import pytest
from gradient_cases import CASES
from support import D_MODEL, T_K, T_Q, B, H

import minitransformer as mt
from minitransformer import layers, models
from minitransformer.module import Module

LAYERS = [
    cls for cls in CASES if cls.__module__.startswith(("minitransformer.layers", "minitransformer.models"))
]
OF_IDS = (
    layers.Embedding,
    models.InputEmbedding,
    models.Transformer,
    models.OneStackEmbedding,
    models.EncoderOnly,
    models.DecoderOnly,
)
FLOATS = "expected an array of floating-point numbers, got "
GENERATOR = (
    "rng: expected a random generator, such as numpy.random.default_rng(0), or None for evaluation, got "
)


def layer_and_inputs(cls: type[Module]) -> tuple[Module, list]:
    layer, inputs = CASES[cls][0](np.random.default_rng(3))
    return layer, list(inputs)


@pytest.mark.parametrize("cls", LAYERS)
def test_an_empty_batch_is_refused(cls):
    layer, inputs = layer_and_inputs(cls)
    empty = [x[:0] if isinstance(x, np.ndarray) and len(x) > 1 else x for x in inputs]
    with pytest.raises(mt.InputError, match=r"expected (at least one (number|id), got|ids of shape)"):
        layer.forward(*empty)


@pytest.mark.parametrize("cls", LAYERS)
@pytest.mark.parametrize("wrong", [np.random.RandomState(0), 3, "seed"], ids=["RandomState", "seed", "text"])
def test_randomness_comes_from_a_generator(cls, wrong):
    layer, inputs = layer_and_inputs(cls)
    with pytest.raises(mt.InputError, match=re.escape(GENERATOR + mt.errors.describe(wrong))):
        layer.forward(*inputs, rng=wrong)


@pytest.mark.parametrize("cls", [cls for cls in LAYERS if cls not in OF_IDS])
@pytest.mark.parametrize(
    ("change", "got"),
    [
        (lambda x: x.astype(int), "int64 of shape"),
        (lambda x: x > 0, "bool of shape"),
        (np.ndarray.tolist, "[["),
        (lambda x: x.astype(object), "object of shape"),
        (lambda x: None, "None"),
    ],
    ids=["integers", "booleans", "lists", "objects", "nothing"],
)
def test_numbers_are_arrays_of_floats(cls, change, got):
    layer, inputs = layer_and_inputs(cls)
    inputs[0] = change(inputs[0])
    with pytest.raises(mt.InputError, match=rf"^\w+: {FLOATS}{re.escape(got)}"):
        layer.forward(*inputs)


class Tensor:
    """Like PyTorch's: no NumPy array, but it knows how to become one."""

    shape, dtype = (2, 3), "torch.float32"

    def numpy(self) -> np.ndarray:
        return np.zeros((2, 3))


def test_another_librarys_array_is_told_how_to_become_one():
    message = f"x: {FLOATS}torch.float32 of shape (2, 3); pass x.numpy()"
    with pytest.raises(mt.InputError, match=re.escape(message)):
        layers.ReLU().forward(Tensor())


@pytest.mark.parametrize("function", [layers.softmax, layers.log_softmax])
@pytest.mark.parametrize("x", [np.arange(3), [1.0, 2.0], np.zeros((2, 0)), 1.0, None])
def test_softmax_takes_floats_and_at_least_one(function, x):
    with pytest.raises(
        mt.InputError, match=r"expected (an array of floating-point numbers|at least one number), got"
    ):
        function(x)


def test_shapes_that_do_not_fit_are_said_in_the_layers_words():
    message = r"^Linear\.forward: float64 of shape \(2, 4\): shapes do not fit \(matmul"
    with pytest.raises(mt.InputError, match=message):
        layers.Linear(3, 5).forward(np.zeros((2, 4)))


@pytest.mark.parametrize("attention", [layers.ScaledDotProductAttention(), layers.AttentionInBlocks()])
@pytest.mark.parametrize(
    "shapes",
    [
        [(B, H, T_Q, 4), (B, H, T_K, 5), (B, H, T_K, 6)],
        [(B, H, T_Q, 4), (B, H, T_K, 4), (B, H, T_Q, 6)],
        [(B, H, T_Q, 4), (1, H, T_K, 4), (B, H, T_K, 6)],
        [(B, H, T_Q, 4), (B, 1, T_K, 4), (B, 1, T_K, 6)],
        [(B, H, T_Q, 4), (H, T_K, 4), (H, T_K, 6)],
        [(4,), (4,), (4,)],
        [(B, H, T_Q, 0), (B, H, T_K, 0), (B, H, T_K, 6)],
    ],
)
def test_queries_keys_and_values_must_belong_together(attention, shapes):
    with pytest.raises(mt.InputError, match=r"^(Q, K, V|Q): expected "):
        attention.forward(*map(np.zeros, shapes))


def test_the_plain_attention_takes_any_number_of_axes_and_the_one_in_blocks_four():
    rng = np.random.default_rng(0)
    Q, K, V = (rng.normal(size=shape) for shape in ((T_Q, 4), (T_K, 4), (T_K, 6)))
    plain = layers.ScaledDotProductAttention()
    flat, _ = plain.forward(Q, K, V, np.tri(T_Q, T_K, dtype=bool))
    four, _ = plain.forward(Q[None, None], K[None, None], V[None, None], np.tri(T_Q, T_K, dtype=bool))
    np.testing.assert_array_equal(flat, four[0, 0])
    with pytest.raises(
        mt.InputError, match=r"^Q: expected an array of shape \(B, h, T_q, d_k\), got float64"
    ):
        layers.AttentionInBlocks().forward(Q, K, V)


def test_a_table_of_lists_is_an_array_of_ids():
    layer = layers.Embedding(9, 4, rng=0)
    np.testing.assert_array_equal(layer.forward([[1, 8]])[0], layer.forward(np.array([[1, 8]]))[0])


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([[1.0, 2.0]], "ids: expected an array of integers, got float64 of shape (1, 2)"),
        ([[1], [1, 2]], "ids: expected rows of one length; pad the shorter ones"),
        (np.zeros((2, 3)), "ids: expected an array of integers, got float64 of shape (2, 3)"),
        (np.array([[-1]]), "ids: expected ids 0 … 8, got -1"),
        (np.array([[9]]), "ids: expected ids 0 … 8, got 9"),
    ],
)
def test_ids_are_integers_of_the_vocabulary(ids, message):
    with pytest.raises(mt.InputError, match=re.escape(message)):
        layers.Embedding(9, 4).forward(ids)


def test_a_failure_inside_a_layer_does_not_leave_its_door_open():
    layer = layers.MultiHeadAttention(D_MODEL, 2)
    x = np.random.default_rng(0).normal(size=(B, T_Q, D_MODEL))
    with pytest.raises(mt.InputError):
        layer.forward(x, x[:, :2], x)
    with pytest.raises(mt.InputError, match=re.escape(f"query: {FLOATS}[[[")):
        layer.forward(x.tolist(), x, x)


def test_real_and_complex_numbers_are_not_mixed_in_an_attention():
    """Also where they meet inside, behind the door of another layer."""
    layer, x = layers.MultiHeadAttention(D_MODEL, 2, dtype="float64"), np.ones((B, T_Q, D_MODEL))
    with pytest.raises(
        mt.InputError, match="Q, K, V: expected all real, or all complex, got complex128, float64"
    ):
        layer.forward(x + 0j, x, x)
