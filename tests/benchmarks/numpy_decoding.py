"""Greedy decoding of this project."""

from __future__ import annotations

from shapes import BOS, EOS, NEW_TOKENS, Shape, sentences

import minitransformer as mt


class Decode:
    """The same sentences at each call."""

    def __init__(self, shape: Shape) -> None:
        self.model = mt.Transformer(shape.config(), seed=0)
        self.model.output.E.data[EOS] = 0  # see decoding.py
        self.src_ids, _, _ = sentences(shape)

    def __call__(self) -> int:
        ids = mt.greedy_decode(self.model, self.src_ids, bos_id=BOS, eos_id=EOS, max_len=NEW_TOKENS)
        return int(ids.size)
