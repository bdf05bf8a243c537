"""§3.1, decoding: the keys and values kept while decoding, elsewhere called the KV cache.

With them, a step costs the work of a single token. Greedy decoding has one row for each sentence. Beam search has n,
one for each hypothesis, side by side; they share the keys and values of the encoder's output.
"""

from __future__ import annotations

from typing import Any

from minitransformer.backend import Array, array_module
from minitransformer.errors import InputError


class LayerState:
    """The keys and values of one decoder layer, while decoding B rows of b sentences."""

    def __init__(self, K: Array, V: Array, memory_K: Array, memory_V: Array) -> None:
        self.K = K  # (B, h, max_len, d_k) self-attention's keys, the first `length` of them filled
        self.V = V  # (B, h, max_len, d_v) and values
        self.memory_K = memory_K  # (b, h, T_src, d_k) cross-attention's keys, computed once
        self.memory_V = memory_V  # (b, h, T_src, d_v) and values
        self.length = 0

    @classmethod
    def start(cls, memory_K: Array, memory_V: Array, max_len: int) -> LayerState:
        """A state with one row for each sentence and room for `max_len` tokens, none of them written yet."""
        b = len(memory_K)
        return cls(room(memory_K, b, max_len), room(memory_V, b, max_len), memory_K, memory_V)

    def append(self, K: Array, V: Array) -> tuple[Array, Array]:
        """Append one more token's key and value; return those of all tokens so far, as views."""
        start, stop = self.length, self.length + K.shape[2]
        self.K[:, :, start:stop], self.V[:, :, start:stop] = K, V
        self.length = stop
        return self.K[:, :, :stop], self.V[:, :, :stop]

    def by_sentence(self, x: Array) -> Array:
        """(B, 1, d_model) -> (b, B / b, d_model): the rows of a sentence are queries to one source."""
        return x.reshape(len(self.memory_K), -1, x.shape[-1])

    def select_rows(self, rows: Array) -> None:
        """Keep only the rows with these indices, in this order."""
        for name in ("K", "V"):
            written = getattr(self, name)[rows, :, : self.length]
            moved = room(written, len(written), self.K.shape[2])
            moved[:, :, : self.length] = written
            setattr(self, name, moved)

    def select_sentences(self, sentences: Array) -> None:
        """Keep only the sentences with these indices, in this order."""
        self.memory_K, self.memory_V = self.memory_K[sentences], self.memory_V[sentences]


class DecoderState:
    """The state of the decoder while decoding: the keys and values of each layer, and the mask of the source."""

    def __init__(self, layers: list[LayerState], src_mask: Any) -> None:
        self.layers = layers
        self.src_mask = src_mask  # (b, 1, 1, T_src), or a PlacedMask

    @property
    def length(self) -> int:
        """How many tokens each row has read."""
        return self.layers[0].length

    @property
    def max_len(self) -> int:
        """How many tokens each row has room for."""
        return int(self.layers[0].K.shape[2])

    @property
    def n_rows(self) -> int:
        """How many rows there are; a step reads one token of each."""
        return len(self.layers[0].K)

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
                f"expected as many rows for each of {len(self.src_mask)} sentences, got {self.n_rows}"
            )


def room(like: Array, rows: int, max_len: int) -> Array:
    """An uninitialised array (rows, h, max_len, d), with h, d and dtype of `like`, (b, h, T, d)."""
    h, _, d = like.shape[1:]
    return array_module(like).empty((rows, h, max_len, d), like.dtype)
