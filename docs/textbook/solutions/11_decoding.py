"""Solutions to the exercises of chapter 11."""

import numpy as np

import minitransformer as mt


def crowding_table():
    """A table in which a beam of 2 loses the sentence that a beam of 1 finds."""
    return {
        "<s>": {"a": 0.51, "b": 0.49},
        # greedy takes a, then c, with 0.51 · 0.4 = 0.204, and is sure of the rest
        "a": {"c": 0.4, "d": 0.3, "e": 0.3},
        "c": {"</s>": 1.0},
        "d": {"</s>": 1.0},
        "e": {"</s>": 1.0},
        # b has two children with 0.49 · 0.5 = 0.245 each, which fill a beam of 2, and split up afterwards
        "b": {"f": 0.5, "g": 0.5},
        "f": {"h": 0.5, "i": 0.5},
        "g": {"h": 0.5, "i": 0.5},
        "h": {"</s>": 1.0},
        "i": {"</s>": 1.0},
    }


def nucleus(logits, p):
    """The probabilities that nucleus sampling draws from: (B, V) -> (B, V)."""
    probabilities = mt.layers.softmax(logits)
    order = np.argsort(-probabilities, axis=-1)
    ordered = np.take_along_axis(probabilities, order, -1)
    before = ordered.cumsum(-1) - ordered
    kept = np.zeros_like(probabilities)
    np.put_along_axis(kept, order, np.where(before < p, ordered, 0), -1)
    return kept / kept.sum(-1, keepdims=True)


def state_size(config, B, T_src, max_len, beam=1):
    """How many numbers the keys and values kept while decoding are."""
    return 2 * config.n_layers * B * (beam * max_len + T_src) * config.d_model
