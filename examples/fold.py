"""Fold a short RNA, that is, find which of its letters pair: by a network, and by an algorithm that knows the rule.

    python examples/fold.py [SEED ...]

RNA is a chain of letters that folds back on itself: A pairs with U by two hydrogen bonds, C with G by three. "CGAAUACG"
folds to "((....))": brackets are the letters of a pair, dots those without a partner. The network sees chains and
foldings, and has to find the rule. The settings are those of the task sort, except for those below.
"""

import sys
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

import minitransformer as mt

BONDS = {"AU": 2, "UA": 2, "CG": 3, "GC": 3}
SIZES = {"d_model": 32, "d_ff": 128, "norm": "pre", "count_source_from": "start", "random_gaps": 1}
STEPS = {"steps": 1100, "batch_tokens": 832, "accumulate": 1, "learning_rate": 8e-3, "eps_ls": 0.0}
LOOP = 3  # at least this many letters are between the two of a pair, as a chain cannot bend more sharply


def fold(rna: str) -> str:
    """The folding with the most bonds in which no two pairs cross, by the algorithm of Nussinov et al. (1978).

    best[i, j] is how many bonds rna[i:j] can have. Either its first letter is free, which wins among equals, or it has
    a partner k; then what is between the two folds by itself, and so does what comes after k.
    """
    n = len(rna)
    best, partner = np.zeros((n + 1, n + 1), int), np.full((n + 1, n + 1), -1)
    for i in reversed(range(n)):
        for j in range(i + 1, n + 1):
            best[i, j] = best[i + 1, j]
            for k in range(i + LOOP + 1, j):
                bonds = BONDS.get(rna[i] + rna[k], -99) + best[i + 1, k] + best[k + 1, j]
                if bonds > best[i, j]:
                    best[i, j], partner[i, j] = bonds, k
    folded, todo = ["."] * n, [(0, n)]
    while todo:
        i, j = todo.pop()
        if (k := partner[i, j]) >= 0:
            folded[i], folded[k] = "()"
        if i < j:
            todo += [(i + 1, k), (k + 1, j)] if k >= 0 else [(i + 1, j)]
    return "".join(folded)


def bonds_of(rna: str, folded: str) -> int | None:
    """How many bonds a folding has, or None if the chain cannot fold that way."""
    opened, bonds = [], 0
    for j, sign in enumerate(folded[: len(rna)]):
        if sign == "(":
            opened.append(j)
        elif sign == ")":
            i = opened.pop() if opened else j
            bonds += BONDS.get(rna[i] + rna[j], -99) if j - i > LOOP else -99
    return None if bonds < 0 or opened or len(folded) != len(rna) or set(folded) - set("(.)") else bonds


@dataclass(frozen=True)
class Fold(mt.tasks.Task):
    """Random chains of 10 letters -> their foldings. Some are held out, by the sum of their letters' numbers."""

    name: ClassVar[str] = "fold"
    vocabulary: ClassVar[mt.tasks.Vocabulary] = mt.tasks.Vocabulary("ACGU.()")
    model: ClassVar[dict] = mt.tasks.Sort.model | SIZES
    training: ClassVar[dict] = mt.tasks.Sort.training | STEPS | {"clip_norm": 1.0, "evaluate_every": 1100}

    def pairs(self, rng, n: int, held_out: bool) -> list[mt.tasks.Pair]:
        letters = rng.integers(4, size=(20 * n, 10))
        chosen = letters[(letters.sum(1) % 10 == 0) == held_out][:n]
        chains = [" ".join("ACGU"[i] for i in numbers) for numbers in chosen]
        folded = [" ".join(fold(chain.replace(" ", ""))) for chain in chains]
        return [tuple(map(self.vocabulary.encode, pair)) for pair in zip(chains, folded, strict=True)]

    def training_pairs(self, rng):
        return self.pairs(rng, 5000, held_out=False)

    def evaluation_sets(self, rng):
        return {name: self.pairs(rng, 500, held_out=True) for name in ("valid", "test")}


def compared(model: mt.Transformer, pairs: list[mt.tasks.Pair]) -> list[list[str]]:
    """The chain of each pair, its folding by the algorithm, and its folding by the model."""
    answers = mt.translate(model, [source for source, _ in pairs])
    triples = [(*pair, answer) for pair, answer in zip(pairs, answers, strict=True)]
    return [[Fold.vocabulary.decode(ids).replace(" ", "") for ids in triple] for triple in triples]


if __name__ == "__main__":
    for seed in map(int, sys.argv[1:] or ["0"]):
        trainer = mt.Trainer(mt.RunSettings.of(Fold(), seed=seed))
        trainer.run()
        texts = compared(trainer.model, trainer.sets["test"])
        same = sum(wanted == folded for _, wanted, folded in texts)
        best = sum(bonds_of(rna, folded) == bonds_of(rna, wanted) for rna, wanted, folded in texts)
        possible = sum(bonds_of(rna, folded) is not None for rna, _, folded in texts)
        print(f"seed {seed}: of {len(texts)} new chains, {same} right, {best} as good, {possible} possible")
