"""Where a model that translates looks: the cross-attention behind each word that it writes.

    python examples/look_at_translations.py RUN [--weights average] [--out FILE] "a sentence" ["another" ...]

RUN is the folder of a run of task text or translate. Rows are what the model has written, from its start symbol on,
columns what it reads; each row shows where the decoder looks to write the next symbol. The picture shows the mean over
the heads of the layer whose attention is sharpest.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import minitransformer as mt
from minitransformer.figures import save
from minitransformer.figures.attention import attention_weights
from minitransformer.figures.canvas import new_figure


def sharpest(weights: np.ndarray) -> np.ndarray:
    """(N, h, T_q, T_k) -> (T_q, T_k): the mean over the heads of the layer with the largest weights."""
    of_layers = weights.mean(1)
    return of_layers[of_layers.max(-1).mean(-1).argmax()]


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("run", type=Path)
    options.add_argument("sentences", nargs="+")
    options.add_argument("--weights", default="last")
    options.add_argument("--out", type=Path, default=Path("translations.png"))
    chosen = options.parse_args()
    vocabulary = mt.RunFolder(chosen.run).settings().task.vocabulary
    model = mt.load_model(chosen.run, weights=chosen.weights)
    sources = [vocabulary.encode(sentence) for sentence in chosen.sentences]
    figure = new_figure(5.2 * len(sources), 5.6)
    for panel, source, target in zip(
        figure.subplots(1, len(sources), squeeze=False)[0],
        sources,
        mt.translate(model, sources, beam=4),
        strict=True,
    ):
        weights = sharpest(attention_weights(model, source, target)["cross"])
        read, written = ([vocabulary.symbols[i] for i in ids] for ids in (source, target))
        panel.imshow(weights, cmap="Blues", vmin=0)
        panel.set_xticks(range(len(read) + 1), [*read, "</s>"], rotation=90, parse_math=False)
        panel.set_yticks(range(len(written) + 1), ["<s>", *written], parse_math=False)
        print(f"{vocabulary.decode(source)}\n→ {vocabulary.decode(target)}")
    print(save(figure, chosen.out))


if __name__ == "__main__":
    main()
