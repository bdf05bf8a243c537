"""Evaluation of a model on held-out sentence pairs: its loss, and how many of its answers are right."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from minitransformer.backend import array_module, generator, silent_overflow, sum_in_order, to_floats
from minitransformer.errors import InputError
from minitransformer.inference.translation import BATCH_TOKENS, decode
from minitransformer.models.families import Model
from minitransformer.models.transformer import TransformerCache
from minitransformer.one_stack_config import family_of
from minitransformer.parallel.replicas import Replicas
from minitransformer.tasks.task import Task
from minitransformer.training.batching import EOS, PAD, AnyBatch, Batch, Pair, by_length
from minitransformer.training.loss import LabelSmoothedCrossEntropy

# The held-out sets are the same for every training seed.
EVALUATION_SEED = 0
# About how many numbers are in a batch's logits: 16 MB.
LOGITS = 1 << 22


def held_out(task: Task) -> dict[str, list[Pair]]:
    """The task's evaluation sets, by name. Raises InputError if "valid" is not among them, or one of them is empty."""
    sets = task.evaluation_sets(generator(EVALUATION_SEED))
    for name in {"valid", *sets}:
        if not sets.get(name):
            raise InputError(f"task {task.name}: expected pairs in the evaluation set {name!r}, got none")
    return sets


def final_sets(sets: dict[str, list[Pair]]) -> list[str]:
    """The names of the sets that measure a model: all but "valid", if there are others."""
    return [name for name in sets if name != "valid"] or ["valid"]


def evaluate(model: Model, pairs: Sequence[Pair]) -> dict[str, Any]:
    """The share of the model's greedy answers that is right: see `score`."""
    return score(decode(model, [source for source, _ in pairs]), pairs)


def score(answers: Sequence[Sequence[int]], pairs: Sequence[Pair]) -> dict[str, Any]:
    """The share of right ones among `answers`, which `decode` gave to the sources of `pairs`.

    exact_match: answers right to the last symbol and ended in the right place; token_accuracy: positions of
    the right answer (its end included) that hold the right symbol; exact_match_by_length: by source length.
    """
    if not pairs:
        raise InputError("expected at least one pair to evaluate, got none")
    n_exact = n_tokens = n_right = 0
    of_length: dict[int, list[bool]] = defaultdict(list)
    for (source, target), got in zip(pairs, answers, strict=True):
        expected = [*target, EOS]
        exact = got == expected
        n_exact += exact
        n_tokens += len(expected)
        n_right += sum(e == g for e, g in zip(expected, got, strict=False))
        of_length[len(source)].append(exact)
    return {
        "exact_match": n_exact / len(pairs),
        "token_accuracy": n_right / n_tokens,
        "n": len(pairs),
        "exact_match_by_length": {str(k): sum(v) / len(v) for k, v in sorted(of_length.items())},
    }


def cross_attention_sharpness(cache: TransformerCache, batch: Batch) -> float:
    """How sharply cross-attention looks at the source, from 0 (at all tokens alike) to 1 (at one token only).

    1 - H / ln n, with H the entropy of the weights of one query and n the number of tokens in its source, on average
    over heads, layers and target tokens. It stays near 0 while a model does not use the order of its source.
    """
    xp = array_module(cache.src_embedding.embedding.ids)  # the batch itself is on the CPU
    src_ids, tgt_out = xp.asarray(batch.src_ids), xp.asarray(batch.tgt_out)
    n = xp.maximum((src_ids != PAD).sum(1), 2)  # a source of one token leaves no choice where to look
    sharpness = []
    for layer in cache.decoder.layers:
        weights = layer.cross_attention.attention.all_weights()
        H = -(weights * xp.log(xp.where(weights > 0, weights, 1))).sum(-1).mean(1)  # (B, T_tgt)
        sharpness.append((1 - H / xp.log(n)[:, None])[tgt_out != PAD].mean())
    return sum(to_floats(*sharpness)) / len(sharpness)


def measure(
    replicas: Replicas, task: Task, name: str, pairs: Sequence[Pair], beam: int = 1, alpha: float = 0.6
) -> dict[str, Any]:
    """The figures of the evaluation set `name`, which holds `pairs`.

    loss: nats per token with teacher forcing, without label smoothing (its exponential is the perplexity of
    table 3). The other figures measure the model's own answers (greedy, or by beam search): those of `score`, and
    those that the task adds. A task without answers has none of these except n, the number of pairs.
    """
    config = replicas.models[0].config
    tokens = min(BATCH_TOKENS, max(1, LOGITS // config.tgt_vocab_size))
    make_batch = task.families[family_of(config)]
    batches = [make_batch([pairs[i] for i in indices]) for indices in by_length(pairs, tokens)]
    n_tokens = sum(batch.n_tokens for batch in batches)
    loss = {"loss": sum_in_order(replicas.in_shares(batch_losses, batches, n_tokens))}
    if not task.has_answers:
        return {**loss, "n": len(pairs)}
    answers = replicas.in_shares(decode, [source for source, _ in pairs], beam, alpha)
    return {**loss, **score(answers, pairs), **task.figures(name, answers)}


def batch_losses(model: Any, batches: Sequence[AnyBatch], n_tokens: int) -> list[float]:
    """Each batch's part of the mean loss over `n_tokens`, without dropout and label smoothing."""
    loss_fn = LabelSmoothedCrossEntropy(0, model.config.pad_id)
    losses = []
    for batch in batches:
        # The logits of a model that diverges may overflow.
        with silent_overflow():
            logits, _ = model.forward(*batch.inputs, keep="nothing")
            loss, _ = loss_fn.forward(logits, batch.targets, n_tokens)
        losses += to_floats(loss)
    return losses
