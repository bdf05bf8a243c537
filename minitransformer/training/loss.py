"""§5.4: cross-entropy with label smoothing."""

from __future__ import annotations

from typing import NamedTuple

from minitransformer import kernels
from minitransformer.backend import Array, array_module, silent_overflow, sum_last
from minitransformer.kernels import fused
from minitransformer.layers.activations import shifted_logits
from minitransformer.layers.linear import rows
from minitransformer.parts import in_parts
from minitransformer.validation import checked
from minitransformer.validation.settings import INT64, as_integer, between, require
from minitransformer.validation.training import loss_inputs


@fused(kernels.cross_entropy)
@in_parts
@silent_overflow()
def cross_entropy(logits: Array, target: Array, weight: Array, eps_ls: float) -> tuple[Array, Array]:
    """The loss of each row, - Σ q · log softmax(logits), and its gradient softmax(logits) - q, both times `weight`.

    q = eps_ls / V, and 1 - eps_ls more at the target. With z = logits - max(logits), log softmax(logits) is
    z - log Σ exp(z), and since Σ q = 1 the loss is log Σ exp(z) - Σ q · z.
    logits, the gradient: (N, V); target, weight, the losses: (N, 1).
    """
    xp, V = array_module(logits), logits.shape[-1]
    z = shifted_logits(logits)
    exps = xp.exp(z)
    total = sum_last(exps)
    at_target = xp.arange(len(z)), target[:, 0]
    sum_q_z = (z @ xp.full(V, eps_ls / V, z.dtype) + (1 - eps_ls) * z[at_target])[:, None]
    dlogits = (exps / total - eps_ls / V) * weight
    dlogits[at_target] -= (1 - eps_ls) * weight[:, 0]
    return (xp.log(total) - sum_q_z) * weight, dlogits


class LossCache(NamedTuple):
    dlogits: Array  # (B, T_tgt, V)


class LabelSmoothedCrossEntropy:
    """Cross-entropy with label smoothing, its mean over the target tokens that are not padding, in nats per token.

    The target distribution is not one-hot but q = (1 - eps_ls) · onehot + eps_ls / V.

    forward   loss = - Σ q · log softmax(logits) / n_tokens        n_tokens: target tokens that are not padding
    backward  dlogits = (softmax(logits) - q) / n_tokens           0 at padding

    logits: (B, T_tgt, V), tgt_out: (B, T_tgt) integers. Forward computes loss and dlogits, from the same exponentials.
    `n_tokens` replaces the batch's own count if the batch is a part of a larger one: the losses and gradients of the
    parts then add up to those of the whole.
    Raises InputError if shapes do not fit, a target is outside the vocabulary, or all targets are padding.
    """

    def __init__(self, eps_ls: float = 0.1, pad_id: int = 0) -> None:
        require(between(eps_ls, 0, 1), "eps_ls", "a number 0 <= eps_ls < 1", eps_ls)
        self.eps_ls = float(eps_ls)
        self.pad_id = as_integer("pad_id", pad_id, -INT64, INT64, "an integer")

    @checked(loss_inputs)
    def forward(self, logits: Array, tgt_out: Array, n_tokens: int | None = None) -> tuple[Array, LossCache]:
        weight = (tgt_out != self.pad_id).astype(logits.dtype) / n_tokens
        losses, dlogits = cross_entropy(
            rows(logits), tgt_out.reshape(-1, 1), weight.reshape(-1, 1), self.eps_ls
        )
        return losses.sum(), LossCache(dlogits.reshape(logits.shape))

    def backward(self, cache: LossCache) -> Array:
        return cache.dlogits
