"""One HTML page with the forward and the backward pass of a model on one sentence pair, every number of both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from minitransformer.backend import Array, generator, silent_overflow, to_host
from minitransformer.errors import InputError, describe
from minitransformer.figures.attention import numbers_to_show
from minitransformer.figures.boxes import SIDES, Box, boxes_of, steps_of
from minitransformer.figures.page import Arrays, Page
from minitransformer.figures.recording import Recording, record
from minitransformer.inference.translation import decode
from minitransformer.memory import converted
from minitransformer.models.transformer import Transformer
from minitransformer.parameter import Parameter
from minitransformer.training.batching import BOS, EOS, PAD
from minitransformer.training.loss import LabelSmoothedCrossEntropy
from minitransformer.validation.settings import as_integer, as_list

LIKELIEST = 5  # next tokens that are shown for each position
# the settings of the model that the page shows, or on which its formulas depend
FACTS = ("n_layers", "n_heads", "d_model", "norm", "norm_layer", "positions", "activation", "attention_bias")


@silent_overflow()
def explain(
    model: Transformer,
    src_ids: Sequence[int],
    tgt_ids: Sequence[int] | None = None,
    symbols: Sequence[str] | None = None,
    layers: Iterable[int] | None = None,
    check: bool = False,
) -> Page:
    """A page that shows what the model does with a sentence, and the gradients of its loss, number by number.

    src_ids, tgt_ids   ids of the symbols, to which start and end are added; the default target is the model's answer
    symbols            how each id is written, as a vocabulary's `symbols`
    layers             the numbers of the layers whose matrices are shown, from 1 on; by default all
    check              compare the gradient of each parameter with a complex step, too

    The loss is the mean cross-entropy of the target, without label smoothing and dropout. Raises InputError for ids
    that the model does not have, for too many of them, and for a page that would have more than MOST_NUMBERS numbers.
    """
    if not isinstance(model, Transformer):
        raise InputError(f"model: expected a Transformer, got {describe(model)}")
    config = model.config
    name = name_of(symbols, max(config.src_vocab_size, config.tgt_vocab_size))
    shown = numbers_to_show("layers", layers, config.n_layers)
    sentence = sentence_of(model, src_ids, tgt_ids)
    recording = record(model, sentence.src_ids, sentence.tgt_in, sentence.tgt_out)
    errors = gradient_errors(model, sentence) if check else {}
    p = np.exp(to_host(recording.log_p[0]))
    likeliest = np.argsort(-p, axis=-1, kind="stable")[:, :LIKELIEST].tolist()
    columns = sorted({i for row in likeliest for i in row} | set(sentence.tgt_out))
    arrays, kept = Arrays(), set[int]()
    tokens = dict(
        zip(("source", "target", "written", "answer", "vocabulary"), (*sentence, columns), strict=True)
    )
    return Page(
        {
            "model": {fact: getattr(config, fact) for fact in FACTS}
            | {"n_parameters": recording.model.n_parameters(), "dtype": str(recording.dlogits.dtype)},
            "layers": shown,
            "tokens": {axis: [name(i) for i in ids] for axis, ids in tokens.items()},
            "loss": recording.loss,
            "losses": [
                0.0 if i == config.pad_id else -float(recording.log_p[0, t, i])
                for t, i in enumerate(sentence.tgt_out)
            ],
            "likeliest": [[[name(i), float(p[t, i])] for i in row] for t, row in enumerate(likeliest)],
            "boxes": [_box(box, arrays, kept) for box in boxes_of(recording, shown, columns)],
            "strip": list(strip(recording)),
            "parameters": [
                _parameter(path, q, errors.get(path), name)
                for path, q in recording.model.parameters().items()
            ],
            "arrays": arrays.texts,
        }
    )


class Sentence(NamedTuple):
    """The ids of a source and of the target that it is explained with."""

    src_ids: list[int]  # with its end
    tgt_in: list[int]  # with its start
    tgt_out: list[int]  # with its end, unless it is an answer of the maximum length
    answer: list[int]  # the model's own


def sentence_of(model: Transformer, src_ids: Sequence[int], tgt_ids: Sequence[int] | None) -> Sentence:
    """The source and the target, which is the model's answer if it is None. Raises InputError as `explain` says."""
    config = model.config
    source = symbols_only("src_ids", src_ids, config.src_vocab_size, config.pad_id)
    [answer] = decode(model, [source])
    if tgt_ids is not None:
        tgt_out = [*symbols_only("tgt_ids", tgt_ids, config.tgt_vocab_size, config.pad_id), EOS]
    elif set(answer) == {config.pad_id}:
        raise InputError("the model's answer is only padding, which has no loss; choose a target")
    else:
        tgt_out = answer
    return Sentence([*source, EOS], [BOS, *tgt_out[:-1]], tgt_out, answer)


def symbols_only(name: str, ids: Sequence[int], vocab_size: int, pad_id: int) -> list[int]:
    """`ids` as a list. Raises InputError unless they are ids of symbols, at least one."""
    expected = f"ids 0 … {vocab_size - 1}"
    ids = [as_integer(name, i, 0, vocab_size - 1, expected) for i in as_list(name, ids, expected)]
    if not ids:
        raise InputError(f"{name}: expected at least one id, got none")
    if added := sorted({PAD, BOS, EOS, pad_id} & set(ids)):
        raise InputError(
            f"{name}: expected symbols only, got {added[0]}; start and end are added, nothing is padded"
        )
    return ids


def strip(recording: Recording) -> Iterator[dict[str, Any]]:
    """The norms of the gradient from the loss down to both embeddings, in the order of the backward pass."""

    def at(place: str, stack: str, **gradients: Array) -> dict[str, Any]:
        return {"place": place, "stack": stack} | {name: _norm(x) for name, x in gradients.items()}

    yield at("loss", "decoder", total=recording.dlogits)
    yield at("output", "decoder", total=recording.call("output").dinputs)
    for stack, (embedding, _) in reversed(SIDES.items()):
        if stack == "encoder":
            yield at("memory", stack, total=recording.call("encoder").dy)
        if recording.model.config.norm == "pre":
            yield at(f"{stack}.norm", stack, total=recording.call(f"{stack}.norm").dinputs)
        for path, skip, branch in steps_of(recording, stack):
            yield at(path, stack, skip=skip, branch=branch, total=skip + branch)
        yield at(f"{embedding}.embedding", stack, total=recording.call(embedding).dy)


def gradient_errors(model: Transformer, sentence: Sentence) -> dict[str, float]:
    """Parameter -> relative error of its gradient, in float64, along a random direction, against a complex step."""
    exact, moved = (converted(model, dtype).to("cpu") for dtype in ("float64", "complex128"))
    loss_fn, rng, h = LabelSmoothedCrossEntropy(0.0, model.config.pad_id), generator(0), 1e-30
    src_ids, tgt_in, tgt_out = sentence[:3]
    logits, cache = exact.forward([src_ids], [tgt_in])
    exact.backward(loss_fn.backward(loss_fn.forward(logits, [tgt_out])[1]), cache)
    errors = {}
    for (name, p), q in zip(exact.parameters().items(), moved.parameters().values(), strict=True):
        direction = rng.choice([-1.0, 1.0], p.shape)
        q.data.imag = h * direction
        loss, _ = loss_fn.forward(moved.forward([src_ids], [tgt_in])[0], [tgt_out])
        q.data.imag = 0
        length = float(np.sqrt((p.grad * p.grad).sum())) or 1.0
        errors[name] = abs(float(loss.imag) / h - float((p.grad * direction).sum())) / length
    return errors


def name_of(symbols: Sequence[str] | None, vocab_size: int) -> Callable[[int], str]:
    """A function from an id to how it is written. Raises InputError if there are too few symbols."""
    if symbols is None:
        return str
    symbols = as_list("symbols", symbols, "texts")
    if len(symbols) < vocab_size:
        raise InputError(f"symbols: expected one for each of {vocab_size} ids, got {len(symbols)}")
    return lambda i: str(symbols[i])


def _box(box: Box, arrays: Arrays, kept: set[int]) -> dict[str, Any]:
    """A box as JSON has it; `kept` are the arrays that the caches of earlier boxes keep."""
    pairs = [
        pair._asdict()
        | {
            "shape": list(pair.forward.shape),
            "forward": arrays.add(pair.forward),
            "backward": None if pair.backward is None else arrays.add(pair.backward),
        }
        for pair in box.pairs
    ]
    facts = {name: x for name, x in box._asdict().items() if name != "call"}
    return facts | {"pairs": pairs, "cache": list(_kept("", box.call.cache, kept)) if box.call else []}


def _kept(name: str, cache: Any, seen: set[int]) -> Iterator[tuple[str, list[int], int]]:
    """Name, shape and bytes of each array in a cache; one that was seen before takes none, and is added to `seen`."""
    if hasattr(cache, "_fields"):
        for field in cache._fields:
            yield from _kept(f"{name}.{field}".lstrip("."), getattr(cache, field), seen)
    elif hasattr(cache, "nbytes"):
        yield name, list(cache.shape), 0 if id(cache) in seen else int(cache.nbytes)
        seen.add(id(cache))


def _parameter(path: str, p: Parameter, error: float | None, name: Callable[[int], str]) -> dict[str, Any]:
    """A parameter as JSON has it: how large its gradient is, and where it is largest."""
    grad = to_host(p.grad)
    at = [int(i) for i in np.unravel_index(int(abs(grad).argmax()), grad.shape)]
    return {
        "name": path,
        "shape": list(p.shape),
        "norm": _norm(grad),
        "size": _norm(p.data),
        "at": at,
        "largest": float(grad[tuple(at)]),
        "token": name(at[0]) if path.endswith(".E") else None,
        "error": error,
    }


def _norm(x: Array) -> float:
    """The Euclidean length of all numbers of `x`, in float64."""
    return float(np.linalg.norm(to_host(x).astype("float64").ravel()))
