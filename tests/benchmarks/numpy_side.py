"""The training step of this project, on the same batch, as the trainer does it."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
from shapes import PAD, Shape, sentences

import minitransformer as mt
from minitransformer.backend import generator, keep_freed_memory
from minitransformer.training.batching import Batch


class Step:
    """One training step at a time, the batch cut into as many parts as there are threads."""

    def __init__(self, shape: Shape, dropout: float, threads: int = 2) -> None:
        keep_freed_memory()
        config = mt.TransformerConfig(
            src_vocab_size=shape.vocab_size,
            tgt_vocab_size=shape.vocab_size,
            n_layers=shape.n_layers,
            d_model=shape.d_model,
            n_heads=shape.n_heads,
            d_ff=shape.d_ff,
            max_len=shape.length,
            dropout=dropout,
            dropout_on=("embedding", "residual", "attention"),
            tie_embeddings=True,
        )
        model = mt.Transformer(config, seed=0)
        self.replicas = mt.Replicas(model, threads)
        self.optimizer = mt.Adam(model, betas=(0.9, 0.98), adam_eps=1e-9)
        self.loss_fn = mt.LabelSmoothedCrossEntropy(eps_ls=0.1, pad_id=PAD)
        parts = [np.array_split(ids, threads) for ids in sentences(shape)]
        self.batches = [Batch(*ids, int((ids[2] != PAD).sum())) for ids in zip(*parts, strict=True)]
        self.rngs = [generator(0, i) for i in range(threads)]
        self.running = ExitStack()
        self.running.enter_context(self.replicas.threads())

    def __call__(self) -> float:
        loss, _ = mt.train_step(
            self.replicas, self.loss_fn, self.optimizer, self.batches, 1e-4, None, self.rngs
        )
        return loss
