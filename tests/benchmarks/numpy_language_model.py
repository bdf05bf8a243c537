"""A training step of a decoder alone, and sampling with it, in this project."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import islice

from shapes import PAD, Shape, blocks

import minitransformer as mt
from minitransformer.backend import generator
from minitransformer.inference.continuation import continuation
from minitransformer.inference.sampling import sampler
from minitransformer.models import DecoderOnly
from minitransformer.one_stack_config import OneStackConfig
from minitransformer.parallel.replicas import default_processes
from minitransformer.system import keep_freed_memory, single_blas_thread
from minitransformer.tasks import Chars
from minitransformer.training import split_batch
from minitransformer.training.batching import OneStackBatch


def model_of(shape: Shape) -> DecoderOnly:
    """The model of task chars in these sizes."""
    sizes = {
        "n_layers": shape.n_layers, "d_model": shape.d_model, "n_heads": shape.n_heads, "d_ff": shape.d_ff,
        "max_len": shape.length, "src_vocab_size": shape.vocab_size, "tgt_vocab_size": shape.vocab_size,
    }  # fmt: skip
    return DecoderOnly(OneStackConfig(**{**Chars.model, **sizes}))


class Step:
    """One training step at a time, in as many processes as the trainer chooses."""

    def __init__(self, shape: Shape) -> None:
        keep_freed_memory()
        model = model_of(shape)
        processes = default_processes(model, shape.batch * shape.length)
        self.replicas = mt.Replicas(model, processes)
        self.optimizer = mt.Adam(model, (0.9, 0.99), 1e-9, weight_decay=0.1)
        self.loss_fn = mt.LabelSmoothedCrossEntropy(0.0, PAD)
        ids, answers = blocks(shape)
        self.batches = split_batch(OneStackBatch(ids, answers, answers.size), processes)
        self.running = ExitStack()
        self.running.enter_context(self.replicas.processes())

    def __call__(self) -> float:
        return mt.train_step(self.replicas, self.loss_fn, self.optimizer, self.batches, 1e-4, 1.0)[0]


class Sample:
    """Characters after a prompt, one sequence, each drawn from its distribution, on one thread as in the command."""

    def __init__(self, shape: Shape, n: int) -> None:
        self.running = ExitStack()
        self.running.enter_context(single_blas_thread())
        self.model, self.n = model_of(shape), n
        self.prompt = blocks(shape)[0][0, :16].tolist()

    def __call__(self) -> int:
        return len(list(islice(continuation(self.model, self.prompt, sampler(generator(0))), self.n)))
