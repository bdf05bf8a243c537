"""Adam divided among ranks: each keeps m and v for its share of the numbers, and updates only that share.

Elsewhere this is called a sharded optimizer, or stage 1 of ZeRO (Rajbhandari et al. 2020).
"""

from __future__ import annotations

from collections.abc import Mapping

from minitransformer.backend import Array, to_host, zeros
from minitransformer.errors import CheckpointError, describe
from minitransformer.memory import Flat
from minitransformer.module import Module
from minitransformer.parallel.ranks import Ranks
from minitransformer.training.optimizer import Adam


class ShardedAdam(Adam):
    """Adam for this rank's share of the parameters; with a single rank, for all of them.

    All ranks call each method; the update is complete after an all-gather of the weights.
    """

    def __init__(
        self,
        model: Module,
        ranks: Ranks,
        betas: tuple[float, float] = (0.9, 0.98),
        adam_eps: float = 1e-9,
        weight_decay: float = 0.0,
    ) -> None:
        self.ranks = ranks
        super().__init__(model, betas, adam_eps, weight_decay)

    def numbers(self) -> Flat:
        """This rank's share of the numbers, and their gradients."""
        data, grad = super().numbers()
        share = self.ranks.share(data.size)
        return Flat(data[share], grad[share])

    def matrices(self) -> list[slice]:
        """Where the matrices W, or parts of them, lie in this rank's share."""
        first = self.ranks.share(self.model.flatten().data.size).start
        return [slice(max(w.start - first, 0), max(w.stop - first, 0)) for w in super().matrices()]

    def state_dict(self) -> dict[str, Array]:
        """Adam's state_dict, with m and v gathered from all ranks."""
        return {**super().state_dict(), "m": self._gathered(self.m), "v": self._gathered(self.v)}

    def _gathered(self, own: Array) -> Array:
        """The shares `own` of all ranks as one array, on the CPU."""
        size = self.model.flatten().data.size
        whole = zeros((size,), own.dtype)
        whole[self.ranks.share(size)] = to_host(own)
        self.ranks.all_gather(whole)
        return whole

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Continue from this rank's share of a `state_dict`, saved on this or another number of ranks."""
        if isinstance(state, Mapping):
            state = {name: self._own(name, x) if name in ("m", "v") else x for name, x in state.items()}
        super().load_state_dict(state)

    def _own(self, name: str, x: Array) -> Array:
        """This rank's share of `x`. Raises CheckpointError if `x` does not have one number per parameter entry."""
        size = self.model.flatten().data.size
        if getattr(x, "shape", None) != (size,):
            raise CheckpointError(f"Adam: {name}: expected {size} numbers, got {describe(x)}")
        return x[self.ranks.share(size)]
