"""The training step of this project, on the same batch, as the trainer does it."""

from __future__ import annotations

from contextlib import ExitStack

from shapes import PAD, Shape, sentences

import minitransformer as mt
from minitransformer.backend import generator, keep_freed_memory
from minitransformer.training.batching import Batch, shared
from minitransformer.training.ranks import ALONE, Ranks
from minitransformer.training.replicas import processes_that_pay


class Step:
    """One training step at a time, in as many processes as the trainer chooses."""

    def __init__(self, shape: Shape, dropout: float, device: str = "cpu", ranks: Ranks = ALONE) -> None:
        keep_freed_memory()
        config = shape.config(dropout=dropout, dropout_on=("embedding", "residual", "attention"))
        model = mt.Transformer(config, seed=0, device=device)
        tokens = shape.batch * shape.length // ranks.n
        processes = min(processes_that_pay(model, tokens, ranks.n_cores), shape.batch)
        self.replicas = mt.Replicas(model, processes, ranks=ranks)
        self.optimizer = mt.Adam(model, betas=(0.9, 0.98), adam_eps=1e-9, ranks=ranks)
        self.loss_fn = mt.LabelSmoothedCrossEntropy(eps_ls=0.1, pad_id=PAD)
        self.batches = shared(Batch(*sentences(shape), 0), ranks.n * processes)
        self.rngs = [generator(0, i) for i in range(len(self.batches))]
        self.running = ExitStack()
        self.running.enter_context(self.replicas.processes())

    def __call__(self) -> float:
        loss, _ = mt.train_step(
            self.replicas, self.loss_fn, self.optimizer, self.batches, 1e-4, None, self.rngs
        )
        return loss
