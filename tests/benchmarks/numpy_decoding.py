"""Decoding of this project, in as many processes as pay, as `minitransformer translate` does it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from shapes import BOS, EOS, NEW_TOKENS, Shape, sentences

import minitransformer as mt
from minitransformer.parallel import default_processes
from minitransformer.system import keep_freed_memory


class Decode:
    """The same sentences at each call."""

    def __init__(self, shape: Shape, beam: int = 1) -> None:
        self.beam = beam
        model = mt.Transformer(shape.config(), seed=0)
        model.output.E.data[EOS] = 0  # see decoding.py
        self.src_ids, _, _ = sentences(shape)
        n = min(default_processes(model, self.src_ids.size), shape.batch)
        keep_freed_memory()
        self.replicas = mt.Replicas(model, n)
        self.replicas.processes().__enter__()  # until this process ends

    def __call__(self) -> int:
        return sum(self.replicas.in_shares(written, list(self.src_ids), self.beam))


def written(model: mt.Transformer, src_ids: Sequence[np.ndarray], beam: int) -> list[int]:
    """How many tokens are written for each source."""
    if beam == 1:
        ids = mt.greedy_decode(model, np.stack(src_ids), BOS, EOS, NEW_TOKENS)
        return [len(row) for row in ids]
    found = mt.beam_search(model, np.stack(src_ids), beam, 0.6, BOS, EOS, NEW_TOKENS)
    return [len(best[0].ids) for best in found]
