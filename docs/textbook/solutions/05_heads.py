"""Solutions to the exercises of chapter 5."""

import numpy as np

import minitransformer as mt


def solution_2(weights):
    """How many keys each query looks at, in effect: (..., T_q, T_k) -> (..., T_q)."""
    logs = np.log(np.where(weights > 0, weights, 1.0))
    return np.exp(-(weights * logs).sum(-1))


def solution_3(model, pairs, heads):
    """The exact match of the model with all of `heads` switched off."""
    state, n_heads = model.state_dict(), model.config.n_heads
    for name, head in heads:
        W_O = state[name + ".W_O"]
        d_v = len(W_O) // n_heads
        W_O[head * d_v : (head + 1) * d_v] = 0.0
    twin = mt.Transformer(model.config)
    twin.load_state_dict(state)
    return mt.evaluate(twin, pairs)["exact_match"]


def solution_4(w, V):
    """Other weights with the same output: w (T_k,), V (T_k, d_v), T_k > d_v + 1."""
    equations = np.column_stack([V, np.ones(len(V))]).T
    delta = np.linalg.svd(equations)[2][-1]  # equations @ delta = 0
    falling = delta < 0
    step = (w[falling] / -delta[falling]).min()
    return np.maximum(w + step * delta, 0.0)
