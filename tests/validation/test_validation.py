"""The checks at the doors, and the line that puts one above a formula."""

from __future__ import annotations

import inspect

import pytest

import minitransformer as mt
from minitransformer.validation import checked, layers, settings, training


def doubled(x, y=3):
    if x is None:
        raise mt.InputError("x: expected a number, got None")
    return x * 2, y


@checked(doubled)
def formula(x, y=3):
    """Its docstring."""
    return x, y


def test_the_formula_gets_what_the_check_returns():
    assert formula(1) == (2, 3) and formula(1, 4) == (2, 4) and formula(x=1, y=5) == (2, 5)
    with pytest.raises(mt.InputError, match="x: expected a number, got None"):
        formula(None)


def test_the_formula_keeps_its_name_and_signature():
    assert formula.__name__ == "formula" and formula.__doc__ == "Its docstring."
    assert list(inspect.signature(formula).parameters) == ["x", "y"] and formula.__wrapped__(1, 2) == (1, 2)


CHECKED = [
    (mt.Transformer.forward, training.model_inputs),
    (mt.Transformer.backward, training.gradient_of_logits),
    (mt.LabelSmoothedCrossEntropy.forward, training.loss_inputs),
    (mt.Adam.step, training.learning_rate_of),
    (mt.clip_grad_norm, training.largest_norm),
    (mt.layers.ScaledDotProductAttention.forward, layers.attention_inputs),
    (mt.layers.AttentionInBlocks.forward, layers.blocks_inputs),
    (mt.layers.Embedding.forward, layers.embedding_inputs),
    (mt.layers.softmax, layers.softmax_inputs),
    (mt.layers.LayerNorm.forward, layers.norm_inputs),
    (mt.layers.RMSNorm.forward, layers.norm_inputs),
    (mt.layers.BatchNorm.forward, layers.norm_inputs),
    (mt.layers.GroupNorm.forward, layers.norm_inputs),
    (mt.layers.AddNorm.forward, layers.add_norm_inputs),
    (mt.layers.FixedPositions.forward, layers.positions_inputs),
    (mt.layers.LearnedPositions.forward, layers.positions_inputs),
    (mt.EncoderOnly.forward, training.one_stack_inputs),
    (mt.EncoderOnly.backward, training.gradient_of_answers),
    (mt.DecoderOnly.forward, training.decoder_only_inputs),
    (mt.DecoderOnly.backward, training.gradient_of_answers),
    (mt.layers.RotaryAttention.forward, layers.placed_inputs),
    (mt.layers.softmax_backward, layers.softmax_backward_inputs),
    (mt.layers.causal_mask, layers.causal_mask_inputs),
    (mt.layers.padding_mask, layers.padding_mask_inputs),
    (mt.layers.sinusoids, settings.sinusoid_sizes),
    (mt.layers.binary, settings.binary_sizes),
]


@pytest.mark.parametrize(("formula", "check"), CHECKED)
def test_a_check_takes_what_its_formula_takes(formula, check):
    ours, theirs = (list(inspect.signature(f).parameters.values()) for f in (formula, check))
    if ours[0].name == "self":  # the check calls it a layer, a model, ...
        ours, theirs = ours[1:], theirs[1:]
    assert [(p.name, p.default) for p in ours] == [(p.name, p.default) for p in theirs]
