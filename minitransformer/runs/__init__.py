"""Training runs, which can be started, watched, stopped, resumed and measured, and are kept in a folder.

trainer.py      the training loop
settings.py     the settings of a run: its task, model and training
state.py        the state of a run, as a checkpoint holds it
run_folder.py   the files of a run
checkpoint.py   files that are either whole or not there
estimate.py     how much memory a training will take
weights.py      a model from a run, and the mean of several checkpoints
evaluation.py   loss and score of a model on held-out pairs
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
