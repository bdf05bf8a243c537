"""Law 9: a tied weight is one object: its gradient is the sum of its uses; it is stepped, counted and saved once."""

from __future__ import annotations

import dataclasses
from operator import attrgetter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from law_cases import translations

import minitransformer as mt
from minitransformer.testing import assert_close, assert_same

SRC, TGT, OUT = "src_embedding.embedding.E", "tgt_embedding.embedding.E", "output.E"
TIED = {True: {SRC, TGT, OUT}, "source_target": {SRC, TGT}, "target_output": {TGT, OUT}}

each_tie = pytest.mark.parametrize("tie", TIED)


def untied(model):
    """The same numbers in a model in which nothing is tied."""
    config = dataclasses.replace(model.config, tie_embeddings=False)
    twin = mt.Transformer(config, dtype="float64")
    twin.load_state_dict(
        {**model.state_dict(), **{name: attrgetter(name)(model).data for name in (SRC, TGT, OUT)}}
    )
    return twin


def in_order(tie, free):
    """The names of the uses as the untied model lists them; the tied one knows the first alone."""
    return [name for name in free.parameters() if name in TIED[tie]]


@each_tie
@given(data=st.data())
def test_the_gradient_of_a_tied_weight_is_the_sum_of_its_uses(tie, data):
    model, src_ids, tgt_in, rng = data.draw(translations(tie_embeddings=tie))
    free = untied(model)
    dlogits = rng.normal(size=(*tgt_in.shape, model.config.tgt_vocab_size))
    start = {
        name: p.grad.copy() for name, p in model.parameters().items()
    }  # not 0: each use has to add to it
    logits = []
    for m in (model, free):
        y, cache = m.forward(src_ids, tgt_in, np.random.default_rng(1))
        m.backward(dlogits, cache)
        logits.append(y)
    assert_same(logits[:1], logits[1:])
    of_free = {name: p.grad for name, p in free.parameters().items()}
    assert all(of_free[name].any() for name in TIED[tie])
    expected = {name: of_free[name] for name in model.parameters()}
    first, *others = in_order(tie, free)
    expected[first] = sum((of_free[name] for name in others), of_free[first])
    found = [p.grad - start[name] for name, p in model.parameters().items()]
    assert_close(found, list(expected.values()))


@each_tie
@given(data=st.data())
def test_a_tied_weight_is_stepped_once_for_all_its_uses(tie, data):
    """The first step of Adam moves a number with gradient g by lr · g / (|g| + adam_eps)."""
    model, *_, rng = data.draw(translations(tie_embeddings=tie))
    optimizer = mt.Adam(model, adam_eps=0.5)
    places = [attrgetter(name)(model) for name in (SRC, TGT, OUT)]
    before = [E.data.copy() for E in places]
    model.flatten().grad[...] = rng.normal(size=model.n_parameters())
    optimizer.step(lr=0.25)
    for E, start in zip(places, before, strict=True):
        assert_close([E.data], [start - 0.25 * E.grad / (abs(E.grad) + 0.5)])


@each_tie
@given(data=st.data())
def test_a_tied_weight_is_counted_and_saved_once_and_stays_tied(tie, data):
    model, src_ids, tgt_in, _ = data.draw(translations(tie_embeddings=tie))
    free, state = untied(model), model.state_dict()
    _, *others = in_order(tie, free)
    assert free.state_dict().keys() - state.keys() == set(others)
    assert model.n_parameters() == free.n_parameters() - len(others) * model.output.E.size
    assert model.flatten().data.size == sum(x.size for x in state.values()) == model.n_parameters()
    loaded = mt.Transformer(model.config, seed=1, dtype="float64")
    loaded.load_state_dict(state)
    assert len({id(attrgetter(name)(loaded)) for name in TIED[tie]}) == 1
    assert_same([loaded.forward(src_ids, tgt_in)[0]], [model.forward(src_ids, tgt_in)[0]])
