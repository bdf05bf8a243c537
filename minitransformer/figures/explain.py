"""One HTML page with the forward and the backward pass of a model on one sentence pair, every number of both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from minitransformer.backend import Array, generator, silent_overflow, to_host
from minitransformer.errors import InputError
from minitransformer.figures.boxes import SIDES, Box, Pair, boxes_of, steps_of
from minitransformer.figures.page import Arrays, Page
from minitransformer.figures.recording import Recording, copy_of, record
from minitransformer.inference.translation import decode
from minitransformer.memory import converted
from minitransformer.models.transformer import Transformer
from minitransformer.training.batching import BOS, EOS, PAD
from minitransformer.training.loss import LabelSmoothedCrossEntropy
from minitransformer.validation.settings import as_integer, as_list

LIKELIEST = 5  # next tokens that are shown for each position


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

    src_ids, tgt_ids   ids of the symbols alone: start and end are added; without a target, the model's own answer
    symbols            how each id is written, as a vocabulary's `symbols`
    layers             the numbers of the layers whose matrices are shown, from 1 on; by default all
    check              compare the gradient of each parameter with a complex step, too

    The loss is the mean cross-entropy of the target, without label smoothing and dropout. Raises InputError for ids
    that the model does not have, for too many of them, and for a page that would have more than MOST_NUMBERS numbers.
    """
    config = copy_of(model).config
    src_ids = symbols_only("src_ids", src_ids, config.src_vocab_size, config.pad_id)
    [answer] = decode(model, [src_ids])  # with its end, unless it has reached the maximum length
    if tgt_ids is None:
        tgt_out = answer
        if set(answer) == {config.pad_id}:
            raise InputError("the model's answer is padding alone, which has no loss; choose a target")
    else:
        tgt_out = [*symbols_only("tgt_ids", tgt_ids, config.tgt_vocab_size, config.pad_id), EOS]
    tgt_in = [BOS, *tgt_out[:-1]]
    shown = layers_to_show(layers, config.n_layers)
    recording = record(model, [*src_ids, EOS], tgt_in, tgt_out)
    names = _names(symbols, max(config.src_vocab_size, config.tgt_vocab_size))
    p = np.exp(to_host(recording.log_p[0]))
    likeliest = np.argsort(-p, axis=-1, kind="stable")[:, :LIKELIEST]
    columns = sorted({*likeliest.ravel().tolist(), *tgt_out})
    arrays = Arrays()
    kept: set[int] = set()
    boxes = [_box(box, arrays, kept) for box in boxes_of(recording, shown, columns)]
    checked = gradient_errors(model, [*src_ids, EOS], tgt_in, tgt_out) if check else {}
    data = {
        "model": {
            "n_layers": config.n_layers,
            "n_heads": config.n_heads,
            "d_model": config.d_model,
            "norm": config.norm,
            "norm_layer": config.norm_layer,
            "n_parameters": recording.model.n_parameters(),
            "dtype": str(recording.dlogits.dtype),
        },
        "layers": shown,
        "tokens": {
            "source": [names(i) for i in [*src_ids, EOS]],
            "target": [names(i) for i in tgt_in],
            "written": [names(i) for i in tgt_out],
            "answer": [names(i) for i in answer],
            "vocabulary": [names(i) for i in columns],
        },
        "loss": recording.loss,
        "losses": [
            -float(recording.log_p[0, t, i]) if i != config.pad_id else 0.0 for t, i in enumerate(tgt_out)
        ],
        "likeliest": [[[names(i), float(p[t, i])] for i in row] for t, row in enumerate(likeliest.tolist())],
        "boxes": boxes,
        "strip": list(strip(recording)),
        "parameters": [
            _parameter(name, to_host(q.data), to_host(q.grad), checked.get(name), names)
            for name, q in recording.model.parameters().items()
        ],
        "arrays": arrays.texts,
    }
    return Page(data)


def symbols_only(name: str, ids: Sequence[int], vocab_size: int, pad_id: int) -> list[int]:
    """`ids` as a list. Raises InputError unless they are ids of symbols, at least one."""
    expected = f"ids 0 … {vocab_size - 1}"
    ids = [as_integer(name, i, 0, vocab_size - 1, expected) for i in as_list(name, ids, expected)]
    if not ids:
        raise InputError(f"{name}: expected at least one id, got none")
    if added := sorted({PAD, BOS, EOS, pad_id} & set(ids)):
        raise InputError(
            f"{name}: expected symbols alone, got {added[0]}; start and end are added, nothing is padded"
        )
    return ids


def layers_to_show(layers: Iterable[int] | None, n_layers: int) -> list[int]:
    """The chosen layers in order, counted from 0. Raises InputError for a number that no layer has."""
    expected = f"numbers of layers, 1 … {n_layers}"
    chosen = range(1, n_layers + 1) if layers is None else as_list("layers", layers, expected)
    shown = sorted({as_integer("layers", i, 1, n_layers, expected) - 1 for i in chosen})
    if not shown:
        raise InputError(f"layers: expected {expected}, got none")
    return shown


def strip(recording: Recording) -> Iterator[dict[str, Any]]:
    """The norms of the gradient from the loss down to both embeddings, in the order of the backward pass."""
    final = recording.model.config.norm == "pre"
    yield {"place": "loss", "stack": "decoder", "total": _norm(recording.dlogits)}
    yield {"place": "output", "stack": "decoder", "total": _norm(recording.call("output").dinputs)}
    for stack in reversed(SIDES):
        if stack == "encoder":
            yield {"place": "memory", "stack": stack, "total": _norm(recording.call("encoder").dy)}
        if final:
            yield {
                "place": f"{stack}.norm",
                "stack": stack,
                "total": _norm(recording.call(f"{stack}.norm").dinputs),
            }
        for step in steps_of(recording, stack):
            yield {
                "place": step.path,
                "stack": stack,
                "skip": _norm(step.skip),
                "branch": _norm(step.branch),
                "total": _norm(step.skip + step.branch),
                **({} if step.memory is None else {"memory": _norm(step.memory)}),
            }
        yield {
            "place": f"{SIDES[stack][0]}.embedding",
            "stack": stack,
            "total": _norm(recording.call(SIDES[stack][0]).dy),
        }


def gradient_errors(
    model: Transformer, src_ids: list[int], tgt_in: list[int], tgt_out: list[int]
) -> dict[str, float]:
    """Parameter -> relative error of its gradient, in float64, along a random direction, against a complex step."""
    exact, moved = (converted(model, dtype).to("cpu") for dtype in ("float64", "complex128"))
    loss_fn, rng, h = LabelSmoothedCrossEntropy(0.0, model.config.pad_id), generator(0), 1e-30
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


def _names(symbols: Sequence[str] | None, vocab_size: int) -> Callable[[int], str]:
    """A function from an id to how it is written. Raises InputError if there are too few symbols."""
    if symbols is None:
        return str
    symbols = as_list("symbols", symbols, "texts")
    if len(symbols) < vocab_size:
        raise InputError(f"symbols: expected one for each of {vocab_size} ids, got {len(symbols)}")
    return lambda i: str(symbols[i])


def _box(box: Box, arrays: Arrays, kept: set[int]) -> dict[str, Any]:
    """A box as JSON has it; `kept` are the arrays that the caches of earlier boxes keep."""
    return {
        "path": box.path,
        "kind": box.kind,
        "stack": box.stack,
        "layer": box.layer,
        "sublayer": box.sublayer,
        "pairs": [_pair(pair, arrays) for pair in box.pairs],
        "cache": list(_kept("", box.call.cache, kept)) if box.call else [],
    }


def _pair(pair: Pair, arrays: Arrays) -> dict[str, Any]:
    return {
        "name": pair.name,
        "shape": list(pair.forward.shape),
        "rows": pair.rows,
        "columns": pair.columns,
        "forward": arrays.add(pair.forward),
        "backward": None if pair.backward is None else arrays.add(pair.backward),
    }


def _kept(name: str, cache: Any, seen: set[int]) -> Iterator[tuple[str, list[int], int]]:
    """Name, shape and bytes of each array in a cache; one that was seen before takes none, and is added to `seen`."""
    if hasattr(cache, "_fields"):
        for field in cache._fields:
            yield from _kept(f"{name}.{field}".lstrip("."), getattr(cache, field), seen)
    elif hasattr(cache, "nbytes"):
        yield name, list(cache.shape), 0 if id(cache) in seen else int(cache.nbytes)
        seen.add(id(cache))


def _parameter(
    name: str, data: np.ndarray, grad: np.ndarray, error: float | None, names: Callable[[int], str]
) -> dict[str, Any]:
    largest = np.unravel_index(int(abs(grad).argmax()), grad.shape)
    return {
        "name": name,
        "shape": list(grad.shape),
        "norm": _norm(grad),
        "size": _norm(data),
        "at": [int(i) for i in largest],
        "token": names(int(largest[0])) if name.endswith(".E") else None,
        "largest": float(grad[largest]),
        "error": error,
    }


def _norm(x: Array) -> float:
    """The Euclidean length of all numbers of `x`, in float64."""
    return float(np.linalg.norm(to_host(x).astype("float64").ravel()))
