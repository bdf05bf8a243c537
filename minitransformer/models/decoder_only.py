"""Not in the paper: a decoder alone, which says at each position what comes next, as GPT does (Radford et al. 2018).

A decoder layer without attention over an encoder's output is an encoder layer under the causal mask.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from minitransformer.backend import Array, Generator, array_module, to_host
from minitransformer.errors import InputError
from minitransformer.layers.masks import causal_mask
from minitransformer.models.decoder_state import KeysAndValues, PromptState
from minitransformer.models.encoder import EncoderCache
from minitransformer.models.one_stack import OneStack, OneStackEmbeddingCache, positions_of
from minitransformer.models.recompute import Keep
from minitransformer.validation import checked
from minitransformer.validation.layers import doors_open
from minitransformer.validation.settings import as_integer
from minitransformer.validation.training import decoder_only_inputs, gradient_of_answers, ids_for, next_ids


class DecoderOnlyCache(NamedTuple):
    embedding: OneStackEmbeddingCache
    stack: EncoderCache
    output: Any
    shape: tuple[int, ...]  # of the logits


class DecoderOnly(OneStack):
    """A language model, which gives the logits of the next id at each position.

    forward   logits = Stack(embed(ids)) Eᵀ,   the stack under the causal mask                 (B, T, V)
    backward  the layers in reverse order; returns nothing, since ids have no gradient

    ids: (B, T) integers; logits[:, t] predict what follows ids[:, : t + 1]. Padding is config.pad_id, only after the
    last token, where the causal mask hides it.
    `keep`, `seed`, dtype and device are as in Transformer. Raises InputError for ids that it cannot read.
    """

    family = "decoder-only"

    @checked(decoder_only_inputs)
    def forward(
        self, ids: Array, rng: Generator | None = None, keep: Keep = "caches"
    ) -> tuple[Array, DecoderOnlyCache]:
        at = positions_of(self.config, ids, rng)
        x, cache_embedding = self.embedding.forward(ids, None, rng, at)
        x, cache_stack = self.stack.forward(x, self.placed(causal_mask(ids), at, at), rng, keep)
        logits, cache_output = self.output.forward(x)
        return logits, DecoderOnlyCache(cache_embedding, cache_stack, cache_output, logits.shape)

    @checked(gradient_of_answers)
    def backward(self, dy: Array, cache: DecoderOnlyCache) -> None:
        dx = self.output.backward(dy, cache.output)
        dx = self.stack.backward(dx, cache.stack)
        self.embedding.backward(dx, cache.embedding)

    def start_decoding(self, src_ids: Array, max_len: int) -> PromptState:
        """Read prompts; return the state before the next token, with room for `max_len` more.

        src_ids: (B, T), each row a prompt, shorter ones padded on the right. Raises InputError without such room.
        """
        ids, state = self._begin(src_ids, max_len, 0)
        self._read(ids, state)
        return state

    def start_after(self, ids: Array, max_len: int) -> tuple[Array, PromptState]:
        """The last token of each prompt, and the state of `start_decoding` just before these tokens are read."""
        ids, state = self._begin(ids, max_len, 1)
        if ids.shape[1] > 1:
            self._read(ids[:, :-1], state)
        return ids[:, -1], state

    def decode_step(self, ids: Array, state: PromptState) -> Array:
        """Read one more token of each row, ids: (B,); return the next logits, (B, V). Extends `state`.

        Raises InputError unless there is one id of the vocabulary for each row, and when there is no more room.
        """
        ids = next_ids(self.embedding.embedding.E, ids, state)
        logits, _ = self.output.forward(self._read(ids, state))
        return logits[:, 0]

    def _begin(self, prompts: Array, max_len: int, unread: int) -> tuple[Array, PromptState]:
        """The prompts, moved to the right so that they end together, and a state in which nothing has been read.

        It has room for all but the last `unread` tokens of the prompts, and `max_len` more.
        """
        ids = ids_for(self.embedding.embedding.E, prompts, "prompts", self.config.max_len)
        B, T = ids.shape
        most = self.config.max_len - T + unread
        if most < 1:
            room = f"at most {self.config.max_len - 1} tokens, to leave room for one (max_len={self.config.max_len})"
            raise InputError(f"prompts: expected {room}, got {T}")
        expected = f"1 … {most} (the model's max_len={self.config.max_len}, less the length of the prompts)"
        max_len = as_integer("max_len", max_len, 1, most, expected)
        xp, host = array_module(ids), to_host(ids)
        n = T - (host[:, ::-1] != self.config.pad_id).argmax(1)  # T, if all of it looks like padding
        n_padding = xp.asarray(T - n)
        columns = xp.arange(T) - n_padding[:, None]
        ids = xp.where(columns >= 0, xp.take_along_axis(ids, xp.maximum(columns, 0), 1), self.config.pad_id)
        states = [
            KeysAndValues.of(layer.self_attention, B, T - unread + max_len) for layer in self.stack.layers
        ]
        return ids, PromptState(states, n_padding, bool((n < T).any()))

    @doors_open
    def _read(self, ids: Array, state: PromptState) -> Array:
        """The stack's output at the next tokens, (B, T, d_model). Extends `state`."""
        T = ids.shape[1]
        at = state.positions(T)
        mask = self.placed(state.mask(T), at[:, -T:], at)
        x, _ = self.embedding.forward(ids, at=at[:, -T:])
        return self.stack.step(x, state.layers, mask)
