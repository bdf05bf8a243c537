"""From words to a picture and back: "a red square left of a green cross", and a picture of 8 x 8 pixels.

    python examples/pictures.py [SEED ...]

trains two small encoder-decoders with each seed (0 without any). One writes the picture that a caption describes, pixel
by pixel, as DALL-E does; the other writes the caption of a picture. Both are tried on captions that training never
shows. It shows each of their words, but never all of them in these places. The settings are those of the task sort,
except for those below.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import numpy as np

import minitransformer as mt
from minitransformer.training.batching import make_batch

COLOURS = ("red", "green", "blue", "yellow")
FORMS = {"square": "111 111 111", "cross": "010 111 010", "ring": "111 101 111", "corner": "100 100 111"}
CORNERS = {"left of": [(2, 0), (2, 5)], "above": [(0, 2), (5, 2)]}  # row and column of the two things
CAPTIONS = [
    f"a {colour} {form} {where} a {other_colour} {other_form}"
    for colour, form, where, other_colour, other_form in product(COLOURS, FORMS, CORNERS, COLOURS, FORMS)
]


def draw(caption: str) -> str:
    """The 64 pixels, row by row, separated by blanks: a letter for the colour, a dot where there is nothing."""
    (where,) = (words for words in CORNERS if words in caption)
    picture = np.full((8, 8), ".")
    for (row, column), thing in zip(CORNERS[where], caption.split(where), strict=True):
        _, colour, form = thing.split()
        filled = np.array([list(line) for line in FORMS[form].split()]) == "1"
        picture[row : row + 3, column : column + 3][filled] = colour[0].upper()
    return " ".join(picture.ravel())


@dataclass(frozen=True)
class Pictures(mt.tasks.Task):
    """Caption -> picture or, with `back`, picture -> caption. One caption in ten is held out."""

    name: ClassVar[str] = "pictures"
    vocabulary: ClassVar[mt.tasks.Vocabulary] = mt.tasks.Vocabulary(
        ["a", "left", "of", "above", *COLOURS, *FORMS, ".", "R", "G", "B", "Y"]
    )
    # `exact` measures the answers, because a picture is longer than the trainer lets the answer to a caption be
    has_answers: ClassVar[bool] = False
    selection_metric: ClassVar[str] = "loss"
    larger_is_better: ClassVar[bool] = False
    model: ClassVar[dict] = mt.tasks.Sort.model | {
        "norm": "pre",
        "tie_embeddings": False,
        "count_source_from": "start",
        "random_gaps": 1,
    }
    training: ClassVar[dict] = (
        mt.tasks.Sort.training
        | {"steps": 400, "batch_tokens": 1040, "accumulate": 1, "warmup_steps": 50, "clip_norm": 1.0}
        | {"evaluate_every": 400, "solved_at": None}
    )
    back: bool = False

    def pairs(self, held_out: bool) -> list[mt.tasks.Pair]:
        order = np.random.default_rng(0).permutation(len(CAPTIONS))
        n = len(CAPTIONS) // 10
        captions = [CAPTIONS[i] for i in (order[:n] if held_out else order[n:])]
        encode = self.vocabulary.encode
        pairs = [(encode(caption), encode(draw(caption))) for caption in captions]
        return [(picture, caption) for caption, picture in pairs] if self.back else pairs

    def training_pairs(self, rng):
        return self.pairs(held_out=False)

    def evaluation_sets(self, rng):
        return {"valid": self.pairs(held_out=True)}


def exact(model: mt.Transformer, pairs: list[mt.tasks.Pair]) -> float:
    """The share of the pairs whose target the model writes without a mistake."""
    batch = make_batch(pairs)
    longest = batch.tgt_out.shape[1]
    answers = mt.greedy_decode(model, batch.src_ids, max_len=longest)
    answers = np.pad(answers, ((0, 0), (0, longest - answers.shape[1])))
    return (answers == batch.tgt_out).all(axis=1).mean()


if __name__ == "__main__":
    for seed in map(int, sys.argv[1:] or ["0"]):
        for task in (Pictures(), Pictures(back=True)):
            trainer = mt.Trainer(mt.RunSettings.of(task, seed=seed))
            trainer.run()
            pairs = task.pairs(held_out=True)
            direction = "pictures -> captions" if task.back else "captions -> pictures"
            print(f"seed {seed}, {direction}: {exact(trainer.model, pairs):.1%} of {len(pairs)} right")
