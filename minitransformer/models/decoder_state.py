"""§3.1, decoding: the keys and values of the tokens written so far, so that the next costs one token's work.

Greedy decoding has a row for each sentence. Beam search has n of them, one for each hypothesis, side by side; what
comes from the encoder they share.
"""

from __future__ import annotations

from minitransformer.backend import Array, array_module
from minitransformer.errors import InputError


class LayerState:
    """What one decoder layer knows while decoding B rows of b sentences."""

    def __init__(self, K: Array, V: Array, memory_K: Array, memory_V: Array) -> None:
        self.K = K  # (B, h, max_len, d_k) self-attention's keys, the first `length` of them filled
        self.V = V  # (B, h, max_len, d_v) and values
        self.memory_K = memory_K  # (b, h, T_src, d_k) cross-attention's keys, computed once
        self.memory_V = memory_V  # (b, h, T_src, d_v) and values
        self.length = 0

    @classmethod
    def start(cls, memory_K: Array, memory_V: Array, max_len: int) -> LayerState:
        """Room for `max_len` tokens in a row for each sentence, none of them written."""
        b = len(memory_K)
        return cls(room(memory_K, b, max_len), room(memory_V, b, max_len), memory_K, memory_V)

    def append(self, K: Array, V: Array) -> tuple[Array, Array]:
        """Note one more token's key and value; return those of all tokens so far, as views."""
        start, stop = self.length, self.length + K.shape[2]
        self.K[:, :, start:stop], self.V[:, :, start:stop] = K, V
        self.length = stop
        return self.K[:, :, :stop], self.V[:, :, :stop]

    def by_sentence(self, x: Array) -> Array:
        """(B, 1, d_model) -> (b, B / b, d_model): the rows of a sentence are queries to one source."""
        return x.reshape(len(self.memory_K), -1, x.shape[-1])

    def select_rows(self, rows: Array) -> None:
        """Go on with these rows only, in this order: indices."""
        for name in ("K", "V"):
            written = getattr(self, name)[rows, :, : self.length]
            moved = room(written, len(written), self.K.shape[2])
            moved[:, :, : self.length] = written
            setattr(self, name, moved)

    def select_sentences(self, sentences: Array) -> None:
        """Go on with these sentences only."""
        self.memory_K, self.memory_V = self.memory_K[sentences], self.memory_V[sentences]


class DecoderState:
    """What the decoder knows while decoding: a state for each layer, and which source positions are words."""

    def __init__(self, layers: list[LayerState], src_mask: Array) -> None:
        self.layers = layers
        self.src_mask = src_mask  # (b, 1, 1, T_src)

    @property
    def length(self) -> int:
        """How many tokens have been read."""
        return self.layers[0].length

    @property
    def max_len(self) -> int:
        """How many tokens there is room for."""
        return int(self.layers[0].K.shape[2])

    @property
    def n_rows(self) -> int:
        """How many tokens a step reads."""
        return len(self.layers[0].K)

    def select(self, rows: Array, sentences: Array | None = None) -> None:
        """Go on with these rows and these sentences only, in this order: indices. None leaves all sentences.

        Raises InputError unless each sentence has as many rows as the others.
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
    """(rows, h, max_len, d), not written yet, for what is of the kind of `like`, (..., h, T, d)."""
    h, _, d = like.shape[1:]
    return array_module(like).empty((rows, h, max_len, d), like.dtype)
