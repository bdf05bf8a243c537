"""Cross-entropy with label smoothing (§5.4): the mean over the words of the target.

What it should do, with q = (1 - eps_ls) · onehot + eps_ls / V the smoothed target of a token:

    forward   loss = the mean of -Σ q · log softmax(logits)        logits: (B, T, V), tgt_out: (B, T) integers
    backward  the gradient of the logits, 0 where the target is padding (pad_id)

What was noticed: a batch of sentences of one length has a higher loss than a batch in which one
long sentence is among short ones, though the model is equally good at both. Sentences sorted
by length have larger gradients.
"""

from typing import NamedTuple

from minitransformer import layers
from minitransformer.backend import Array, array_module


class LossCache(NamedTuple):
    dlogits: Array  # (B, T, V)


class LabelSmoothedCrossEntropy:
    """The loss of the paper; forward computes its gradient as well."""

    def __init__(self, eps_ls: float = 0.1, pad_id: int = 0) -> None:
        self.eps_ls = eps_ls
        self.pad_id = pad_id

    def forward(self, logits: Array, tgt_out: Array) -> tuple[Array, LossCache]:
        xp = array_module(logits)
        V = logits.shape[-1]
        log_p = layers.log_softmax(logits)
        q = xp.full_like(log_p, self.eps_ls / V)
        xp.put_along_axis(q, tgt_out[..., None], 1 - self.eps_ls + self.eps_ls / V, -1)
        is_word = tgt_out != self.pad_id
        weight = is_word[..., None].astype(logits.dtype) / is_word.size
        loss = -(q * log_p * weight).sum()
        return loss, LossCache((xp.exp(log_p) - q) * weight)

    def backward(self, cache: LossCache) -> Array:
        return cache.dlogits
