"""§5: the loss, the optimiser, the schedule, and batching."""

from minitransformer.renamed import old_names
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

__getattr__ = old_names(
    __name__,
    {
        "Ranks": "minitransformer.parallel.Ranks",
        "Replicas": "minitransformer.parallel.Replicas",
        "RunFolder": "minitransformer.runs.RunFolder",
        "RunSettings": "minitransformer.runs.RunSettings",
        "Trainer": "minitransformer.runs.Trainer",
        "average_checkpoints": "minitransformer.runs.average_checkpoints",
        "evaluate": "minitransformer.runs.evaluate",
        "load_model": "minitransformer.runs.load_model",
        "processes_that_pay": "minitransformer.parallel.default_processes",
        "shared": "minitransformer.training.split_batch",
        "train_step": "minitransformer.parallel.train_step",
        "translate": "minitransformer.inference.translate",
    },
)
