"""What a model is worth on a set of sentence pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minitransformer.backend import silent_overflow, sum_in_order, to_floats
from minitransformer.models.transformer import Transformer
from minitransformer.tasks.task import Pair, Task
from minitransformer.training.batching import Batch, by_length, make_batch
from minitransformer.training.evaluation import BATCH_TOKENS, decode, score
from minitransformer.training.loss import LabelSmoothedCrossEntropy
from minitransformer.training.replicas import Replicas

LOGITS = 1 << 22  # numbers in a batch's logits, about: 16 MB


def measure(
    replicas: Replicas, task: Task, name: str, pairs: Sequence[Pair], beam: int = 1, alpha: float = 0.6
) -> dict[str, Any]:
    """The figures of the evaluation set `name`, which holds `pairs`.

    loss: nats a token, the right answer so far being read, without label smoothing (its exponential is the
    perplexity of table 3). The others, of the model's own answers (greedy, or with a beam): those of `score`, and
    what the task adds.
    """
    tokens = min(BATCH_TOKENS, LOGITS // replicas.models[0].config.tgt_vocab_size)
    batches = [make_batch([pairs[i] for i in indices]) for indices in by_length(pairs, tokens)]
    n_tokens = sum(batch.n_tokens for batch in batches)
    answers = replicas.in_shares(decode, [source for source, _ in pairs], beam, alpha)
    return {
        "loss": sum_in_order(replicas.in_shares(batch_losses, batches, n_tokens)),
        **score(answers, pairs),
        **task.figures(name, answers),
    }


def batch_losses(model: Transformer, batches: Sequence[Batch], n_tokens: int) -> list[float]:
    """What each batch adds to the mean loss over `n_tokens`, without dropout and label smoothing."""
    loss_fn = LabelSmoothedCrossEntropy(0, model.config.pad_id)
    losses = []
    for batch in batches:
        with silent_overflow():  # of a model that diverges
            logits, _ = model.forward(batch.src_ids, batch.tgt_in, keep="nothing")
            loss, _ = loss_fn.forward(logits, batch.tgt_out, n_tokens)
        losses += to_floats(loss)
    return losses
