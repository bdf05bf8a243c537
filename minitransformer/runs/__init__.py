"""A training run, as a user has it: begun, watched, stopped, resumed, measured, kept in a folder.

trainer.py      the training loop
settings.py     the task, the model and the training of a run
state.py        how far a run has come: what a checkpoint holds
run_folder.py   the files of a run
checkpoint.py   files that are either whole or not there
weights.py      a model from a run, and the mean of several checkpoints
evaluation.py   how good a model is on held-out pairs
progress.py     lines and a bar on the terminal
interrupt.py    Ctrl-C and SIGTERM
"""

from minitransformer.runs.evaluation import evaluate
from minitransformer.runs.interrupt import Interrupted
from minitransformer.runs.progress import Progress
from minitransformer.runs.run_folder import RunFolder
from minitransformer.runs.settings import RunSettings
from minitransformer.runs.trainer import Trainer
from minitransformer.runs.weights import average_checkpoints, load_model

__all__ = [
    "Interrupted",
    "Progress",
    "RunFolder",
    "RunSettings",
    "Trainer",
    "average_checkpoints",
    "evaluate",
    "load_model",
]
