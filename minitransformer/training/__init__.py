"""§5: the loss, the optimizer, the schedule, and batching; §6.1: averaging."""

from minitransformer.training.averaging import mean_weights
from minitransformer.training.batching import (
    BOS,
    EOS,
    PAD,
    Batch,
    BatchStream,
    Pair,
    by_length,
    make_batch,
    split_batch,
)
from minitransformer.training.loss import LabelSmoothedCrossEntropy
from minitransformer.training.optimizer import Adam, clip_grad_norm
from minitransformer.training.schedule import cosine_schedule, noam_schedule

__all__ = [
    "BOS",
    "EOS",
    "PAD",
    "Adam",
    "Batch",
    "BatchStream",
    "LabelSmoothedCrossEntropy",
    "Pair",
    "by_length",
    "clip_grad_norm",
    "cosine_schedule",
    "make_batch",
    "mean_weights",
    "noam_schedule",
    "split_batch",
]
