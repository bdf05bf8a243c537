"""§5: the loss, the optimiser, the schedule, batching, and the loop that uses them."""

from minitransformer.training.averaging import average_checkpoints
from minitransformer.training.batching import Batch, BatchStream, by_length, make_batch, shared
from minitransformer.training.evaluation import evaluate, translate
from minitransformer.training.loss import LabelSmoothedCrossEntropy
from minitransformer.training.optimizer import Adam, clip_grad_norm
from minitransformer.training.ranks import Ranks
from minitransformer.training.replicas import Replicas, processes_that_pay, train_step
from minitransformer.training.run_folder import RunFolder, RunSettings
from minitransformer.training.schedule import cosine_schedule, noam_schedule
from minitransformer.training.trainer import Trainer, load_model

__all__ = [
    "Adam",
    "Batch",
    "BatchStream",
    "LabelSmoothedCrossEntropy",
    "Ranks",
    "Replicas",
    "RunFolder",
    "RunSettings",
    "Trainer",
    "average_checkpoints",
    "by_length",
    "clip_grad_norm",
    "cosine_schedule",
    "evaluate",
    "load_model",
    "make_batch",
    "noam_schedule",
    "processes_that_pay",
    "shared",
    "train_step",
    "translate",
]
