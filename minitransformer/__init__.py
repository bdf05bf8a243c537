"""The Transformer of "Attention Is All You Need" (Vaswani et al. 2017) in NumPy, forward and backward by hand.

The paper's table of contents, as modules:

    §3      the model, figure 1                    models/transformer.py
    §3.1    encoder and decoder stacks             models/encoder.py  models/decoder.py
            Add & Norm                             layers/add_norm.py  layers/normalization.py
    §3.2    attention, figure 2                    layers/attention.py  layers/masks.py
                                                   layers/multi_head_attention.py
    §3.3    position-wise feed-forward networks    layers/feed_forward.py  layers/activations.py
    §3.4    embeddings and softmax                 layers/embedding.py  layers/activations.py
    §3.5    positional encoding                    layers/positional_encoding.py
    §5.1    training data and batching             training/batching.py  tasks/
    §5.3    optimizer                              training/optimizer.py  training/schedule.py
    §5.4    regularization                         layers/dropout.py  training/loss.py
    §6.1    decoding                               inference/greedy.py  inference/beam.py
                                                   inference/sampling.py
            averaged checkpoints                   training/averaging.py
    §6.2    model variations, table 3              config.py

The package also has what the paper leaves to the reader: training steps on several processes (parallel/), training runs
(runs/), and the command line (commands/). And it has later models made of the same layers: an encoder alone
(models/encoder_only.py), a decoder alone (models/decoder_only.py), and BERT and GPT-2, read from the files in which
others publish them (published/).

Every layer keeps the contract of `module.py`; `gradcheck` compares a backward pass, yours included, with numerical
derivatives, and `testing` has the laws that hold for every layer.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minitransformer import figures, layers, models, tasks
    from minitransformer.config import TrainingConfig, TransformerConfig
    from minitransformer.errors import CheckpointError, ConfigError, InputError, MinitransformerError
    from minitransformer.gradcheck import GradcheckReport, gradcheck, gradcheck_function
    from minitransformer.inference import Hypothesis, beam_search, greedy_decode, sample, translate
    from minitransformer.models import DecoderOnly, EncoderOnly, Transformer
    from minitransformer.module import Module, Parameter
    from minitransformer.one_stack_config import OneStackConfig
    from minitransformer.parallel import Replicas, train_step
    from minitransformer.published import load_published, load_tokenizer
    from minitransformer.runs import (
        RunFolder,
        RunSettings,
        Trainer,
        average_checkpoints,
        evaluate,
        load_model,
    )
    from minitransformer.training import Adam, LabelSmoothedCrossEntropy, clip_grad_norm, noam_schedule

__version__ = "0.1.0"

# Where each public name is. A module is loaded when a name in it is first used, so using the gradient checker loads no
# model.
_PLACES = {
    "TrainingConfig": "config",
    "TransformerConfig": "config",
    "CheckpointError": "errors",
    "ConfigError": "errors",
    "InputError": "errors",
    "MinitransformerError": "errors",
    "GradcheckReport": "gradcheck",
    "gradcheck_function": "gradcheck",
    "Hypothesis": "inference",
    "beam_search": "inference",
    "greedy_decode": "inference",
    "sample": "inference",
    "translate": "inference",
    "DecoderOnly": "models",
    "EncoderOnly": "models",
    "Transformer": "models",
    "OneStackConfig": "one_stack_config",
    "Module": "module",
    "Parameter": "parameter",
    "load_published": "published",
    "load_tokenizer": "published",
    "Replicas": "parallel",
    "train_step": "parallel",
    "RunFolder": "runs",
    "RunSettings": "runs",
    "Trainer": "runs",
    "average_checkpoints": "runs",
    "evaluate": "runs",
    "load_model": "runs",
    "Adam": "training",
    "LabelSmoothedCrossEntropy": "training",
    "clip_grad_norm": "training",
    "noam_schedule": "training",
}

__all__ = [
    "Adam",
    "CheckpointError",
    "ConfigError",
    "DecoderOnly",
    "EncoderOnly",
    "GradcheckReport",
    "Hypothesis",
    "InputError",
    "LabelSmoothedCrossEntropy",
    "MinitransformerError",
    "Module",
    "OneStackConfig",
    "Parameter",
    "Replicas",
    "RunFolder",
    "RunSettings",
    "Trainer",
    "TrainingConfig",
    "Transformer",
    "TransformerConfig",
    "average_checkpoints",
    "beam_search",
    "clip_grad_norm",
    "evaluate",
    "figures",
    "gradcheck",
    "gradcheck_function",
    "greedy_decode",
    "layers",
    "load_model",
    "load_published",
    "load_tokenizer",
    "models",
    "noam_schedule",
    "sample",
    "tasks",
    "train_step",
    "translate",
]


def __getattr__(name: str) -> Any:
    """A public name, or a module of the package, loaded on first use."""
    if name in _PLACES:
        found: Any = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    else:
        found = _module(name)
    globals()[name] = found
    return found


def _module(name: str) -> Any:
    full = f"{__name__}.{name}"
    try:
        if not name.startswith("_"):
            return import_module(full)
    except ModuleNotFoundError as error:
        if error.name != full:
            raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
