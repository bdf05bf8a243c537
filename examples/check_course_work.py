"""Check the gradients of a NumPy assignment: a loss that returns (loss, gradients), as courses ask for it.

    python examples/check_course_work.py

As a test, with pytest:  def test_my_loss(gradcheck): gradcheck.function(lambda p: loss(p, X, y), None, parameters)
"""

import numpy as np

import minitransformer as mt


def loss(parameters, X, y):
    """The cross-entropy of a network with one hidden layer, and its gradients. Something in them is wrong."""
    W1, b1, W2, b2 = (parameters[name] for name in ("W1", "b1", "W2", "b2"))
    hidden = np.maximum(X @ W1 + b1, 0)
    scores = hidden @ W2 + b2
    scores = scores - scores.max(-1, keepdims=True)
    log_p = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
    rows = np.arange(len(y))

    dscores = np.exp(log_p)
    dscores[rows, y] -= 1
    dscores /= len(y)
    dhidden = dscores @ W2.T * (hidden > 0)
    gradients = {"W1": X.T @ dhidden, "b1": dhidden.sum(0), "W2": hidden.T @ dscores, "b2": dscores.mean(0)}
    return -log_p[rows, y].mean(), gradients


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(7, 5)), rng.integers(3, size=7)
    parameters = {
        "W1": rng.normal(size=(5, 11)),
        "b1": rng.normal(size=11),
        "W2": rng.normal(size=(11, 3)),
        "b2": rng.normal(size=3),
    }
    # X and y have no gradient, so they are bound beforehand.
    print(mt.gradcheck_function(lambda parameters: loss(parameters, X, y), None, parameters))
