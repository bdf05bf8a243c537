"""§6.1: from logits to sentences."""

from minitransformer.inference.beam import Hypothesis, beam_search
from minitransformer.inference.greedy import greedy_decode
from minitransformer.inference.sampling import sample
from minitransformer.inference.translation import translate

__all__ = ["Hypothesis", "beam_search", "greedy_decode", "sample", "translate"]
