"""An estimate of the memory that a training run will take, made from its settings before anything is allocated."""

from __future__ import annotations

import math

from minitransformer.backend import dtype_of
from minitransformer.config import TrainingConfig, TransformerConfig
from minitransformer.errors import ConfigError
from minitransformer.one_stack_config import family_of
from minitransformer.system import memory_mb
from minitransformer.validation.settings import head_widths

ITSELF = 40.0  # MB of Python, NumPy and this package
WORKER = 35.0  # MB of each process, most of it for evaluation


def weights_mb(config: TransformerConfig, dtype: str) -> float:
    """Memory of a model's matrices, in MB (10^6 bytes). Vectors are too small to count."""
    d, two_stacks = config.d_model, family_of(config) == "encoder-decoder"
    d_k, d_v = head_widths(d, config.n_heads, config.d_k, config.d_v)
    attention, feed_forward = 2 * d * config.n_heads * (d_k + d_v), 2 * d * config.d_ff
    layer = 3 * attention + 2 * feed_forward if two_stacks else attention + feed_forward
    untied = {True: 0, "source_target": 1, "target_output": 1, False: 1 + two_stacks}[config.tie_embeddings]
    embeddings = (config.src_vocab_size + untied * config.tgt_vocab_size) * d
    positions = (config.last_position + 1) * (d // config.n_source_positions + d * two_stacks)
    numbers = config.n_layers * layer + embeddings + positions * (config.positions == "learned")
    return numbers * dtype_of(dtype).itemsize / 1e6


def training_mb(config: TransformerConfig, training: TrainingConfig, processes: int) -> float:
    """An estimate of the memory that a training run takes on a CPU, in MB, right to within a factor of 2.

    It counts weights, gradients, Adam's two moments, and what a checkpoint copies of these; another gradient for each
    further process; and what the layers keep for backward on the longest batches.
    """
    weights, size = weights_mb(config, training.dtype), dtype_of(training.dtype).itemsize / 1e6
    parts = math.ceil(processes / training.accumulate)
    tokens = training.batch_tokens / parts * min(processes, parts * training.accumulate)
    d, d_ff = config.d_model, config.d_ff
    # counted in the caches: Q, K, V, context, dropped and normalized numbers; and both sides of the ReLU
    layer = 17 * d + 4 * d_ff if family_of(config) == "encoder-decoder" else 6 * d + 2 * d_ff
    kept = layer + 3 * d * config.n_layers if training.recompute else layer * config.n_layers
    logits = 2.2 * config.tgt_vocab_size  # and their gradient
    each_process = weights + WORKER
    return ITSELF + 7 * weights + processes * each_process + tokens * (kept + logits) * size


def require_memory(config: TransformerConfig, training: TrainingConfig) -> None:
    """Raise ConfigError if the machine has less memory than weights, gradients and Adam's moments take."""
    needed, there = 4 * weights_mb(config, training.dtype), memory_mb()
    if there is not None and needed > there:
        raise ConfigError(
            f"the model: expected at most {in_words(there)}, this machine's memory, for weights, gradients and Adam's "
            f"moments, got {in_words(needed)}; make n_layers, d_model, d_ff or the vocabulary smaller"
        )


def in_words(mb: float) -> str:
    """Megabytes with two significant digits, as "150 MB", "1.6 GB"."""
    for unit in ("MB", "GB", "TB"):
        if mb < 995 or unit == "TB":
            break
        mb /= 1000
    return f"{mb:.1f} {unit}" if mb < 9.95 else f"{float(f'{mb:.2g}'):,.0f} {unit}"
