"""How much a stack keeps of each block for backward: its cache, only its inputs, or nothing.

Keeping only the inputs trades time for memory (activation checkpointing): backward runs the block's forward a
second time, with the same random numbers, so the gradients are the same to the last bit.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

from minitransformer.backend import Array, Generator, snapshot
from minitransformer.errors import InputError
from minitransformer.module import Module
from minitransformer.validation.training import check_kept

Keep: TypeAlias = Literal["caches", "inputs", "nothing"]


class BlockInputs(NamedTuple):
    """The inputs and the random generator with which to run a block's forward again."""

    inputs: tuple[Any, ...]
    rng: Generator | None  # as it was before the block drew from it


def forward_block(block: Module, *inputs: Any, rng: Generator | None, keep: Keep) -> tuple[Array, Any]:
    """y of block.forward, and what is kept for backward, depending on `keep`: its cache, BlockInputs, or None."""
    if keep == "caches":
        return block.forward(*inputs, rng=rng)
    if keep not in ("inputs", "nothing"):
        raise InputError(f"keep: expected 'caches', 'inputs' or 'nothing', got {keep!r}")
    kept = BlockInputs(inputs, snapshot(rng)) if keep == "inputs" else None
    y, _ = block.forward(*inputs, rng=rng)
    return y, kept


def backward_block(block: Module, dy: Array, kept: Any) -> Any:
    """block.backward; runs the block's forward again first if only its inputs were kept."""
    check_kept([kept])
    if isinstance(kept, BlockInputs):
        _, kept = block.forward(*kept.inputs, rng=snapshot(kept.rng))
    return block.backward(dy, kept)
