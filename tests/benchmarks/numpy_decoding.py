"""Decoding of this project."""

from __future__ import annotations

from shapes import BOS, EOS, NEW_TOKENS, Shape, sentences

import minitransformer as mt


class Decode:
    """The same sentences at each call."""

    def __init__(self, shape: Shape, beam: int = 1) -> None:
        self.beam = beam
        self.model = mt.Transformer(shape.config(), seed=0)
        self.model.output.E.data[EOS] = 0  # see decoding.py
        self.src_ids, _, _ = sentences(shape)

    def __call__(self) -> int:
        if self.beam == 1:
            return int(
                mt.greedy_decode(self.model, self.src_ids, bos_id=BOS, eos_id=EOS, max_len=NEW_TOKENS).size
            )
        found = mt.beam_search(self.model, self.src_ids, self.beam, 0.6, BOS, EOS, NEW_TOKENS)
        return sum(len(best[0].ids) for best in found)
