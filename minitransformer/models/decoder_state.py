"""§3.1, decoding: the keys and values of the tokens written so far, so that the next costs one token's work."""

from __future__ import annotations

from minitransformer.backend import Array, zeros


class LayerState:
    """What one decoder layer knows while decoding."""

    def __init__(self, K: Array, V: Array, memory_K: Array, memory_V: Array) -> None:
        self.K = K  # (B, h, max_len, d_k) self-attention's keys, the first `length` of them filled
        self.V = V  # (B, h, max_len, d_v) and values
        self.memory_K = memory_K  # (B, h, T_src, d_k) cross-attention's keys, computed once
        self.memory_V = memory_V  # (B, h, T_src, d_v) and values
        self.length = 0

    @classmethod
    def start(cls, memory_K: Array, memory_V: Array, max_len: int) -> LayerState:
        """Room for `max_len` tokens, none of them written."""

        def room(like: Array) -> Array:
            B, h, _, d = like.shape
            return zeros((B, h, max_len, d), like.dtype, like)

        return cls(room(memory_K), room(memory_V), memory_K, memory_V)

    def append(self, K: Array, V: Array) -> tuple[Array, Array]:
        """Note one more token's key and value; return those of all tokens so far, as views."""
        start, stop = self.length, self.length + K.shape[2]
        self.K[:, :, start:stop], self.V[:, :, start:stop] = K, V
        self.length = stop
        return self.K[:, :, :stop], self.V[:, :, :stop]

    def select(self, sentences: Array) -> None:
        """Go on with these sentences of the batch only: booleans, or indices, in their order."""
        for name in ("K", "V", "memory_K", "memory_V"):
            setattr(self, name, getattr(self, name)[sentences])


class DecoderState:
    """What the decoder knows while decoding: a state for each layer, and which source positions are words."""

    def __init__(self, layers: list[LayerState], src_mask: Array) -> None:
        self.layers = layers
        self.src_mask = src_mask  # (B, 1, 1, T_src)

    @property
    def length(self) -> int:
        """How many tokens have been read."""
        return self.layers[0].length

    @property
    def max_len(self) -> int:
        """How many tokens there is room for."""
        return int(self.layers[0].K.shape[2])

    def select(self, sentences: Array) -> None:
        """Go on with these sentences of the batch only: booleans, or indices, in their order."""
        self.src_mask = self.src_mask[sentences]
        for layer in self.layers:
            layer.select(sentences)
