"""Solutions to the exercises of chapter 2."""

import numpy as np

import minitransformer as mt


def solution_2(target, ids, rows):
    """target[ids[n]] += rows[n] for every n, duplicates included.  ids: (...), rows: (..., d)"""
    ids, rows = ids.ravel(), rows.reshape(-1, rows.shape[-1])
    order = np.argsort(ids, kind="stable")
    unique, starts = np.unique(ids[order], return_index=True)
    target[unique] += np.add.reduceat(rows[order], starts, axis=0)


def solution_3(E, a, b, c):
    """The row nearest, by cosine, to E[a] - E[b] + E[c], the rows a, b and c left out."""
    wanted = E[a] - E[b] + E[c]
    cosines = E @ wanted / np.linalg.norm(E, axis=1)  # times a number that is the same for all rows
    cosines[[a, b, c]] = -np.inf
    return int(cosines.argmax())


def solution_4(logits, x, v):
    """dE[v] of the mean cross-entropy for a word v that is nowhere right.  logits: (N, V), x: (N, d)"""
    p = mt.layers.softmax(logits)[:, v]
    return p @ x / len(x)


def solution_5(d_model, scaled, rng, vocab_size=1000, length=200):
    """The share of tokens that the nearest row of E tells from word plus position."""
    embedding = mt.layers.Embedding(vocab_size, d_model, rng=rng, dtype="float64")
    ids = rng.integers(vocab_size, size=(1, length))
    words, _ = embedding.forward(ids)
    if not scaled:
        words = words / np.sqrt(d_model)
    vectors = words + mt.layers.sinusoids(length, d_model)
    guesses = (vectors @ embedding.E.data.T).argmax(-1)
    return (guesses == ids).mean()
