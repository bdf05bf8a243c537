"""Law 7: what is computed a second time is what was computed the first time, to the last bit, dropout and all."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from law_cases import both_norms, translations

from minitransformer.testing import assert_same, gradients, upstream


@both_norms
@given(data=st.data())
def test_recomputed_activations_give_the_same_gradients_to_the_last_bit(norm, data):
    model, src_ids, tgt_in, _ = data.draw(translations(norm=norm))
    found = []
    for keep in ("caches", "inputs"):
        generator = np.random.default_rng(1)
        logits, cache = model.forward(src_ids, tgt_in, generator, keep=keep)
        generator.random(7)  # backward may not go on where this generator stands
        dlogits = upstream(logits, np.random.default_rng(2))
        found.append([logits, *gradients(model, dlogits, cache), generator.random(1)])
        again = gradients(model, dlogits, cache)
        assert_same(again, found[-1][1:-1])
    assert_same(*found)
    assert any(grad.any() for grad in found[0][1:-1])


@both_norms
@given(data=st.data())
def test_backward_recomputes_from_the_inputs_of_this_forward(norm, data):
    """And not from those of the next one: the gradients of two batches, interleaved, are theirs."""
    model, src_ids, tgt_in, rng = data.draw(translations(norm=norm))
    batches = [(src_ids, tgt_in), (src_ids[::-1], tgt_in[::-1])]
    dlogits = rng.normal(size=(*tgt_in.shape, model.config.tgt_vocab_size))
    caches = {
        keep: [
            model.forward(*batch, np.random.default_rng(i), keep=keep)[1] for i, batch in enumerate(batches)
        ]
        for keep in ("caches", "inputs")
    }
    stored, recomputed = ([gradients(model, dlogits, c) for c in caches[keep]] for keep in caches)
    for i in (1, 0):
        assert_same(recomputed[i], stored[i])
    assert any((a != b).any() for a, b in zip(*stored, strict=True))
