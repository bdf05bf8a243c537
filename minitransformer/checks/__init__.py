"""A gradient check for every layer and for the whole model: what `minitransformer gradcheck` runs.

cases.py     for each layer, how to build it and its inputs
inputs.py    random inputs at which a wrong formula shows
wrapped.py   functions and models that are not layers (softmax, the loss, the model with its loss), as layers
own.py       a layer or a pair of functions in a user's file
run.py       the checks, by both methods
"""

from minitransformer.checks.cases import CASES, Case
from minitransformer.checks.inputs import Sizes, random_ids, random_mask, tiny_config
from minitransformer.checks.run import Outcome, check_gradients

__all__ = ["CASES", "Case", "Outcome", "Sizes", "check_gradients", "random_ids", "random_mask", "tiny_config"]
