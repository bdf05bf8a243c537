"""One forward and one backward pass of a model, recorded call by call while its own layers run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from minitransformer.backend import Array, silent_overflow
from minitransformer.layers.activations import log_softmax
from minitransformer.layers.attention import ScaledDotProductAttention
from minitransformer.layers.attention_in_blocks import AttentionInBlocks
from minitransformer.memory import converted
from minitransformer.models.transformer import Transformer
from minitransformer.module import Module
from minitransformer.training.loss import LabelSmoothedCrossEntropy


@dataclass
class Call:
    """One forward of a layer, and the backward that was given its cache."""

    inputs: tuple[Any, ...]
    output: Any
    cache: Any
    dy: Any = None
    dinputs: Any = None


class Recording(NamedTuple):
    """The inputs and outputs of every layer of a model, forward and backward, for one sentence pair."""

    model: Transformer  # a copy of the one that was explained; its parameters hold the gradients
    calls: dict[str, list[Call]]  # path of a layer -> its calls, in the order of forward
    loss: float  # mean cross-entropy of the target, in nats per token
    dlogits: Array  # (1, T_tgt, V)
    log_p: Array  # (1, T_tgt, V) logarithms of the probabilities

    def call(self, path: str, i: int = 0) -> Call:
        """The i-th call of the layer at `path`; only the dropout of a pre-norm layer has more than one."""
        return self.calls[path][i]


@silent_overflow()
def record(model: Transformer, src_ids: list[int], tgt_in: list[int], tgt_out: list[int]) -> Recording:
    """Run a copy of the model forward and backward, without dropout and label smoothing, and record its layers.

    The copy has the plain attention, whose steps are those of equation 1; the results are the same up to rounding.
    """
    twin = copy_of(model)
    calls: dict[str, list[Call]] = {}
    for path, layer in layers_of(twin):
        attach(layer, calls.setdefault(path, []))
    loss_fn = LabelSmoothedCrossEntropy(0.0, model.config.pad_id)
    logits, cache = twin.forward([src_ids], [tgt_in])
    loss, loss_cache = loss_fn.forward(logits, [tgt_out])
    dlogits = loss_fn.backward(loss_cache)
    twin.backward(dlogits, cache)
    return Recording(twin, calls, float(loss), dlogits, log_softmax(logits))


def copy_of(model: Transformer) -> Transformer:
    """A copy of the model on the CPU, with gradients of its own and the plain attention."""
    twin = converted(model, model.output.E.data.dtype).to("cpu")
    for _, layer in layers_of(twin):
        if isinstance(vars(layer).get("attention"), AttentionInBlocks):
            vars(layer).update(attention=ScaledDotProductAttention())
    return twin


def layers_of(layer: Module, path: str = "") -> Iterator[tuple[str, Module]]:
    """Path and layer, for every layer below `layer`."""
    for name, child in vars(layer).items():
        children = enumerate(child) if isinstance(child, list) else [("", child)]
        for i, part in children:
            if isinstance(part, Module):
                at = f"{path}{name}.{i}".removesuffix(".")
                yield at, part
                yield from layers_of(part, f"{at}.")


def attach(layer: Module, calls: list[Call]) -> None:
    """Have `layer` add every forward to `calls`, and its backward to the forward whose cache it is given."""
    forward, backward = layer.forward, layer.backward

    def recorded_forward(*inputs: Any, **named: Any) -> tuple[Any, Any]:
        output, cache = forward(*inputs, **named)
        calls.append(Call(inputs, output, cache))
        return output, cache

    def recorded_backward(dy: Any, cache: Any) -> Any:
        dinputs = backward(dy, cache)
        call = next(call for call in calls if call.cache is cache)
        call.dy, call.dinputs = dy, dinputs
        return dinputs

    vars(layer).update(forward=recorded_forward, backward=recorded_backward)
