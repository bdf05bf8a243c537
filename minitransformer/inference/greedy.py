"""Greedy decoding: the likeliest token at every position."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minitransformer.backend import Array, array_module, to_host
from minitransformer.errors import InputError
from minitransformer.models.decoder_only import DecoderOnly
from minitransformer.models.families import Writer
from minitransformer.validation.settings import as_integer


def greedy_decode(
    model: Writer, src_ids: Array, bos_id: int | None = 1, eos_id: int | None = 2, max_len: int = 30
) -> Array:
    """Translate a batch: ids (B, T) with T <= max_len, each row up to and including its `eos_id`, then padding.

    The start symbol is not part of the result. A decoder-only model reads `src_ids`, then `bos_id`; with bos_id=None it
    goes on from the last token of each prompt. With eos_id=None, nothing ends before `max_len`.
    Raises InputError for ids that the model does not have.
    """
    return decode(model, src_ids, lambda logits: logits.argmax(-1), bos_id, eos_id, max_len)


def decode(
    model: Writer,
    src_ids: Array,
    choose: Callable[[Array], Array],
    bos_id: int | None,
    eos_id: int | None,
    max_len: int,
) -> Array:
    """Translate a batch as `greedy_decode` does, each token chosen by `choose`: logits (B, V) -> ids (B,).

    Each step reads one token of every sentence and writes the next. Sentences that have ended leave the batch once
    they are a quarter of it (not one by one, since the keys and values of the others are copied each time). All stop
    after `max_len` tokens.
    """
    end = end_of(eos_id, model)
    tokens, state = begin(model, src_ids, bos_id, max_len)
    xp = array_module(tokens)
    ids = xp.full((len(src_ids), max_len), model.config.pad_id)
    # the rows of `ids` still in the batch, and whether each has not ended yet
    rows, going = xp.arange(len(src_ids)), xp.ones(len(src_ids), bool)
    for position in range(max_len):
        tokens = choose(model.decode_step(tokens, state))
        ids[rows, position] = xp.where(going, tokens, model.config.pad_id)
        going &= tokens != end
        n_going = int(to_host(going.sum()))
        if n_going == 0:
            return ids[:, : position + 1]
        if n_going <= 3 / 4 * len(going):
            stay = xp.arange(len(going))[going]  # indices: every use of a boolean index waits for a GPU
            state.select(stay, stay)
            rows, tokens, going = rows[stay], tokens[stay], going[stay]
    return ids


def begin(model: Writer, src_ids: Array, bos_id: int | None, max_len: int) -> tuple[Array, Any]:
    """The first token that each row reads, (B,), and the state before it. Raises InputError as `greedy_decode` does."""
    if bos_id is not None:
        first = as_target_id("bos_id", bos_id, model)
        state = model.start_decoding(src_ids, max_len)
        return array_module(state.layers[0].K).full(len(src_ids), first), state
    if not isinstance(model, DecoderOnly):
        raise InputError("bos_id: expected an id; only a decoder-only model can go on from its prompt (None)")
    return model.start_after(src_ids, max_len)


def end_of(eos_id: int | None, model: Writer) -> int:
    """`eos_id`, or -1, which no token is, for None. Raises InputError unless it is one of the model's ids."""
    return -1 if eos_id is None else as_target_id("eos_id", eos_id, model)


def as_target_id(name: str, value: int, model: Writer) -> int:
    """`value` as an int. Raises InputError unless it is an id of the model's target vocabulary."""
    last = model.config.tgt_vocab_size - 1
    return as_integer(name, value, 0, last, f"an id 0 … {last}")
