"""§3.1, decoding: the keys and values kept while decoding, elsewhere called the KV cache.

With them, a step costs the work of a single token. Greedy decoding has one row for each sentence. Beam search has n
rows side by side, one for each hypothesis, which share the keys and values of the encoder's output. A decoder alone has
no such output: its PromptState holds keys and values of the prompt and of what the model has written so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minitransformer.backend import Array, array_module
from minitransformer.errors import InputError


class KeysAndValues:
    """The keys and values of one layer's self-attention, while decoding B rows."""

    def __init__(self, K: Array, V: Array) -> None:
        self.K = K  # (B, h, max_len, d_k) keys, the first `length` of them filled
        self.V = V  # (B, h, max_len, d_v) and values
        self.length = 0

    @classmethod
    def of(cls, attention: Any, B: int, max_len: int) -> KeysAndValues:
        """Room for `max_len` tokens of B rows, whose keys and values this MultiHeadAttention will make."""
        h = attention.n_heads
        widths = attention.W_K.shape[1] // h, attention.W_V.shape[1] // h
        W = attention.W_K.data
        return cls(*(array_module(W).empty((B, h, max_len, d), W.dtype) for d in widths))

    def append(self, K: Array, V: Array) -> tuple[Array, Array]:
        """Append the keys and values of one more token, or several; return those of all tokens so far, as views."""
        start, stop = self.length, self.length + K.shape[2]
        self.K[:, :, start:stop], self.V[:, :, start:stop] = K, V
        self.length = stop
        return self.K[:, :, :stop], self.V[:, :, :stop]

    def select_rows(self, rows: Array) -> None:
        """Keep only the rows with these indices, in this order."""
        for name in ("K", "V"):
            written = getattr(self, name)[rows, :, : self.length]
            moved = room(written, len(written), self.K.shape[2])
            moved[:, :, : self.length] = written
            setattr(self, name, moved)


class LayerState(KeysAndValues):
    """The keys and values of one decoder layer, while decoding B rows of b sentences."""

    def __init__(self, memory_K: Array, memory_V: Array, max_len: int) -> None:
        """One row for each sentence, with room for `max_len` tokens, none of them written yet."""
        b = len(memory_K)
        super().__init__(room(memory_K, b, max_len), room(memory_V, b, max_len))
        self.memory_K = memory_K  # (b, h, T_src, d_k) cross-attention's keys, computed once
        self.memory_V = memory_V  # (b, h, T_src, d_v) and values

    def by_sentence(self, x: Array) -> Array:
        """(B, 1, d_model) -> (b, B / b, d_model): the rows of a sentence are queries to one source."""
        return x.reshape(len(self.memory_K), -1, x.shape[-1])

    def select_sentences(self, sentences: Array) -> None:
        """Keep only the sentences with these indices, in this order."""
        self.memory_K, self.memory_V = self.memory_K[sentences], self.memory_V[sentences]


class State:
    """The keys and values of each layer while decoding, which the states of both kinds of decoder have."""

    layers: Sequence[KeysAndValues]

    @property
    def length(self) -> int:
        """How many tokens each row has read, padding included."""
        return self.layers[0].length

    @property
    def max_len(self) -> int:
        """How many tokens each row has room for."""
        return int(self.layers[0].K.shape[2])

    @property
    def n_rows(self) -> int:
        """How many rows there are; a step reads one token of each."""
        return len(self.layers[0].K)


class DecoderState(State):
    """The state of the decoder while decoding: the keys and values of each layer, and the mask of the source."""

    layers: list[LayerState]

    def __init__(self, layers: list[LayerState], src_mask: Any) -> None:
        self.layers = layers
        self.src_mask = src_mask  # (b, 1, 1, T_src), or a PlacedMask

    def select(self, rows: Array, sentences: Array | None = None) -> None:
        """Keep only the rows and sentences with these indices, in this order. None keeps all sentences.

        Raises InputError unless all sentences have the same number of rows.
        """
        for layer in self.layers:
            layer.select_rows(rows)
            if sentences is not None:
                layer.select_sentences(sentences)
        if sentences is not None:
            self.src_mask = self.src_mask[sentences]
        if self.n_rows % len(self.src_mask):
            raise InputError(
                f"expected the same number of rows for each of {len(self.src_mask)} sentences, got {self.n_rows} rows"
            )


class PromptState(State):
    """The state of a decoder without an encoder: the keys and values of each layer, for prompts that end together.

    Shorter prompts begin with padding, to which nothing may attend. The first token of row b is in column
    n_padding[b] and has position 0.
    """

    def __init__(self, layers: list[KeysAndValues], n_padding: Array, padded: bool) -> None:
        self.layers = layers
        self.n_padding = n_padding  # (B,)
        self.padded = padded  # whether any row begins with padding

    def positions(self, T: int) -> Array:
        """The positions of all tokens, T more included: (B, n, 1), or (1, n, 1) if they are the same in all rows."""
        xp = array_module(self.n_padding)
        columns = xp.arange(self.length + T)
        at = xp.maximum(columns - self.n_padding[:, None], 0) if self.padded else columns[None]
        return at[..., None]

    def mask(self, T: int) -> Array | None:
        """Where the next T tokens may look: at all but padding, up to themselves. None means at everything so far."""
        if T == 1 and not self.padded:
            return None
        xp = array_module(self.n_padding)
        columns = xp.arange(self.length + T)
        seen = columns <= columns[-T:, None]
        return (seen & (columns >= self.n_padding[:, None, None]))[:, None]

    def select(self, rows: Array, sentences: Array | None = None) -> None:
        """Keep only the rows with these indices, in this order. `sentences` matters only in DecoderState."""
        for layer in self.layers:
            layer.select_rows(rows)
        self.n_padding = self.n_padding[rows]


def room(like: Array, rows: int, max_len: int) -> Array:
    """An uninitialised array (rows, h, max_len, d), with h, d and dtype of `like`, (b, h, T, d)."""
    h, _, d = like.shape[1:]
    return array_module(like).empty((rows, h, max_len, d), like.dtype)
