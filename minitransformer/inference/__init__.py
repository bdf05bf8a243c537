"""§6.1: from logits to sentences."""

from minitransformer.inference.greedy import greedy_decode

__all__ = ["greedy_decode"]
