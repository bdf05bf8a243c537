"""The training step of this project, on the same batch, as the trainer does it."""

from __future__ import annotations

from contextlib import ExitStack

from shapes import PAD, Shape, sentences

import minitransformer as mt
from minitransformer.backend import generator
from minitransformer.parallel import ShardedAdam
from minitransformer.parallel.ranks import ALONE, Ranks
from minitransformer.parallel.replicas import default_processes
from minitransformer.system import keep_freed_memory
from minitransformer.training import split_batch
from minitransformer.training.batching import Batch


class Step:
    """One training step at a time, in as many processes as the trainer chooses."""

    def __init__(self, shape: Shape, dropout: float, device: str = "cpu", ranks: Ranks = ALONE) -> None:
        keep_freed_memory()
        config = shape.config(dropout=dropout, dropout_on=("embedding", "residual", "attention"))
        model = mt.Transformer(config, seed=0, device=device)
        tokens = shape.batch * shape.length // ranks.n
        processes = min(default_processes(model, tokens, ranks.n_cores), shape.batch)
        self.replicas = mt.Replicas(model, processes, ranks=ranks)
        self.optimizer = ShardedAdam(model, ranks, betas=(0.9, 0.98), adam_eps=1e-9)
        self.loss_fn = mt.LabelSmoothedCrossEntropy(eps_ls=0.1, pad_id=PAD)
        self.batches = split_batch(Batch(*sentences(shape), 0), ranks.n * processes)
        self.rngs = [generator(0, i) for i in range(len(self.batches))]
        self.running = ExitStack()
        self.running.enter_context(self.replicas.processes())

    def __call__(self) -> float:
        loss, _ = mt.train_step(
            self.replicas, self.loss_fn, self.optimizer, self.batches, 1e-4, None, self.rngs
        )
        return loss
