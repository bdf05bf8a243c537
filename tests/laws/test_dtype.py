"""Law 13: the dtype of inputs and parameters is that of outputs, gradients and caches: nothing is converted."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from law_cases import every_module, examples, few, translations

import minitransformer as mt
from minitransformer.testing import arrays_in, upstream

DTYPES = ["float64", "float32", "complex64", "complex128"]  # in this order nothing imaginary is dropped


def kinds(tree):
    """The dtypes of the numbers, ids and masks left out."""
    return {a.dtype.name for a in arrays_in(tree) if a.dtype.kind in "fc"}


@every_module
@few
@given(data=st.data())
def test_the_dtype_of_the_inputs_is_the_dtype_of_everything(case, data):
    """With dropout and without. A step in complex arithmetic is what gradients are checked with."""
    layer, inputs, _, rng = data.draw(examples(case))
    for dtype, generator in itertools.product(DTYPES, (None, np.random.default_rng(1))):
        layer.to(dtype=dtype)
        inputs = tuple(x.astype(dtype) if x.dtype.kind in "fc" else x for x in inputs)
        y, cache = layer.forward(*inputs, rng=generator)
        dx = layer.backward(upstream(y, rng), cache)
        assert kinds([y]) == {dtype}
        assert kinds([dx, cache]) <= {dtype}
        assert {p.grad.dtype.name for p in layer.parameters().values()} <= {dtype}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(data=st.data())
def test_a_step_of_training_and_of_decoding_keeps_the_dtype(dtype, data):
    model, src_ids, tgt_in, _ = data.draw(translations())
    model.to(dtype=dtype)
    state = model.start_decoding(src_ids, max_len=3)
    logits = model.decode_step(tgt_in[:, 0], state)
    kept = [(s.K, s.V, s.memory_K, s.memory_V) for s in state.layers]
    assert kinds([logits, kept]) == {dtype}
    loss_fn, optimizer = mt.LabelSmoothedCrossEntropy(0.1), mt.Adam(model)
    batch = mt.training.Batch(src_ids, tgt_in, tgt_in, int((tgt_in != 0).sum()))
    mt.train_step(mt.Replicas(model), loss_fn, optimizer, [batch], lr=0.1, clip_norm=0.01)
    assert kinds([model.flatten(), optimizer.m, optimizer.v]) == {dtype}
