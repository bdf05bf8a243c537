"""Greedy decoding: the likeliest token at every position."""

from __future__ import annotations

from collections.abc import Callable

from minitransformer.backend import Array, array_module, to_host
from minitransformer.models.transformer import Transformer
from minitransformer.validation.settings import as_integer


def greedy_decode(
    model: Transformer, src_ids: Array, bos_id: int = 1, eos_id: int = 2, max_len: int = 30
) -> Array:
    """Translate a batch: ids (B, T) with T <= max_len, each row up to and including its `eos_id`, then padding.

    The start symbol is not part of the result. Raises InputError for ids that the model does not have.
    """
    return decode(model, src_ids, lambda logits: logits.argmax(-1), bos_id, eos_id, max_len)


def decode(
    model: Transformer,
    src_ids: Array,
    choose: Callable[[Array], Array],
    bos_id: int,
    eos_id: int,
    max_len: int,
) -> Array:
    """Translate a batch as `greedy_decode` does, each token chosen by `choose`: logits (B, V) -> ids (B,).

    Each step reads one token of every sentence and writes the next. Sentences that have ended leave the batch once
    they are a quarter of it (not one by one, since the keys and values of the others are then copied); all stop after
    `max_len` tokens.
    """
    bos_id, eos_id = as_target_id("bos_id", bos_id, model), as_target_id("eos_id", eos_id, model)
    state = model.start_decoding(src_ids, max_len)
    xp = array_module(state.layers[0].K)
    ids = xp.full((len(src_ids), max_len), model.config.pad_id)
    tokens = xp.full(len(src_ids), bos_id)
    # the rows of `ids` still in the batch, and whether each has not ended yet
    rows, going = xp.arange(len(src_ids)), xp.ones(len(src_ids), bool)
    for position in range(max_len):
        tokens = choose(model.decode_step(tokens, state))
        ids[rows, position] = xp.where(going, tokens, model.config.pad_id)
        going &= tokens != eos_id
        n_going = int(to_host(going.sum()))
        if n_going == 0:
            return ids[:, : position + 1]
        if n_going <= 3 / 4 * len(going):
            stay = xp.arange(len(going))[going]  # indices: every use of a boolean index waits for a GPU
            state.select(stay, stay)
            rows, tokens, going = rows[stay], tokens[stay], going[stay]
    return ids


def as_target_id(name: str, value: int, model: Transformer) -> int:
    """`value` as an int. Raises InputError unless it is an id of the model's target vocabulary."""
    last = model.config.tgt_vocab_size - 1
    return as_integer(name, value, 0, last, f"an id 0 … {last}")
