"""Sampling: at every position, a token drawn at random according to its probability."""

from __future__ import annotations

from collections.abc import Callable

from minitransformer.backend import Array, Generator, array_module, silent_overflow
from minitransformer.errors import InputError, describe
from minitransformer.inference.greedy import decode
from minitransformer.models.families import Writer
from minitransformer.validation.settings import FLOAT32, INT64, as_integer, between, require


def sample(
    model: Writer,
    src_ids: Array,
    rng: Generator,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    bos_id: int | None = 1,
    eos_id: int | None = 2,
    max_len: int = 30,
) -> Array:
    """Random translations of a batch: ids (B, T) as `greedy_decode` returns them, each token drawn from

        p = softmax(logits / temperature),    0 but for the likeliest tokens, then divided by its sum

    The tokens kept are the `top_k` likeliest (Fan et al. 2018), and of these only the smallest set whose
    probability under p is `top_p` or more (Holtzman et al. 2020). None keeps all. Of equally likely tokens
    those with smaller ids count as likelier, so that top_k=1 writes what `greedy_decode` writes; so does a
    temperature near 0 if no two tokens are equally likely. The same generator, model and batch give the same ids.
    None for `bos_id` or `eos_id` means the same as in `greedy_decode`.
    Raises InputError or ConfigError for ids that the model does not have and for settings out of range.
    """
    return decode(model, src_ids, sampler(rng, temperature, top_k, top_p), bos_id, eos_id, max_len)


def sampler(
    rng: Generator, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Callable[[Array], Array]:
    """The function that draws the next ids, (B,), from logits, (B, V), as `sample` says; raises the same errors."""
    if not isinstance(rng, Generator):
        raise InputError(
            f"rng: expected a generator, such as numpy.random.default_rng(0), got {describe(rng)}"
        )
    expected = "a number above 0 that float32 can hold (greedy_decode is the limit at 0)"
    require(between(temperature, *FLOAT32), "temperature", expected, temperature)
    if top_k is not None:
        top_k = as_integer("top_k", top_k, 1, INT64, "1 or more, or None")
    in_range = top_p is None or (between(top_p, 0, 2) and 0 < top_p <= 1)
    require(in_range, "top_p", "a probability 0 < p <= 1, or None", top_p)

    def choose(logits: Array) -> Array:
        return draw(probabilities(logits, temperature, top_k, top_p), rng)

    return choose


def probabilities(logits: Array, temperature: float, top_k: int | None, top_p: float | None) -> Array:
    """The probabilities that `sample` draws from, in float64, not yet divided by their sum: (B, V) -> (B, V)."""
    xp = array_module(logits)
    logits = logits.astype("float64", copy=False)
    p = weights(logits, logits.max(-1, keepdims=True), temperature)
    if top_k is None and top_p is None:
        return p
    ordered = xp.sort(logits, axis=-1)[:, ::-1]  # likeliest first
    V = p.shape[-1]
    n_kept = xp.full((len(p), 1), V if top_k is None else min(top_k, V))
    if top_p is not None:
        total = weights(ordered, ordered[:, :1], temperature).cumsum(-1)
        too_few = total < top_p * total[:, -1:]  # one more token is kept than there are such totals
        n_kept = xp.minimum(n_kept, too_few.sum(-1, keepdims=True) + 1)
    least = xp.take_along_axis(ordered, n_kept - 1, -1)
    above, equal = logits > least, logits == least
    n_equal = n_kept - above.sum(-1, keepdims=True)  # of the equal ones, the first n_equal are kept
    return xp.where(above | (equal & (equal.cumsum(-1) <= n_equal)), p, 0)


def weights(logits: Array, top: Array, temperature: float) -> Array:
    """exp((logits - top) / temperature), at most 1, since `top` is the largest logit of each row."""
    with silent_overflow():  # to -inf, at a temperature near 0; its exp is 0, as it should be
        return array_module(logits).exp((logits - top) / temperature)


def draw(p: Array, rng: Generator) -> Array:
    """One random index for each row, i with probability p[i] / Σ p: (B, V) -> (B,).

    The first i with p[0] + … + p[i] > u Σ p, u uniform in [0, 1): the inverse of the distribution function.
    """
    total = p.cumsum(-1)
    u = array_module(p).asarray(rng.random((len(p), 1)))
    return (total > u * total[:, -1:]).argmax(-1)
