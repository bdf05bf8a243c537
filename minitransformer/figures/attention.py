"""Who attends to whom: the weights of every layer and head for one input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from minitransformer.backend import to_host
from minitransformer.figures.canvas import new_figure, save
from minitransformer.models.transformer import Transformer
from minitransformer.tasks.vocabulary import BOS, EOS, Vocabulary
from minitransformer.training.evaluation import translate


def attention_weights(model: Transformer, source: list[int], target: list[int]) -> dict[str, np.ndarray]:
    """Kind -> weights (N, h, T_q, T_k) of one sentence pair, read from the caches of a forward pass.

    Kinds: "encoder self-attention", "decoder self-attention", "cross-attention".
    """
    _, cache = model.forward([[*source, EOS]], [[BOS, *target]])
    encoder, decoder = cache.encoder.layers, cache.decoder.layers
    attentions = {
        "encoder self-attention": [layer.self_attention for layer in encoder],
        "decoder self-attention": [layer.self_attention for layer in decoder],
        "cross-attention": [layer.cross_attention for layer in decoder],
    }
    return {
        kind: np.stack([to_host(cache.attention.weights[0]) for cache in caches])
        for kind, caches in attentions.items()
    }


def attention_figure(model: Transformer, vocabulary: Vocabulary, text: str, out: Path) -> Path:
    """Draw attention.png for the model's own answer to `text`: a row for each layer, a column for each head."""
    source = vocabulary.encode(text)
    target = translate(model, [source])[0]
    weights = attention_weights(model, source, target)
    source_symbols = [*vocabulary.decode(source).split(), "</s>"]
    target_symbols = ["<s>", *vocabulary.decode(target).split()]
    keys = {
        "encoder self-attention": (source_symbols, source_symbols),
        "decoder self-attention": (target_symbols, target_symbols),
        "cross-attention": (target_symbols, source_symbols),
    }
    n_heads, n_rows = model.config.n_heads, len(weights) * model.config.n_layers
    figure = new_figure(2.4 * n_heads + 1, 2.4 * n_rows + 0.8)
    panels = figure.subplots(n_rows, n_heads, squeeze=False)
    rows = [(kind, layer) for kind in weights for layer in range(model.config.n_layers)]
    for row, (kind, layer) in zip(panels, rows, strict=True):
        for head, panel in enumerate(row):
            _draw(panel, weights[kind][layer, head], *keys[kind])
            panel.set_title(f"head {head + 1}", fontsize=8)
        row[0].set_ylabel(f"{kind}\nlayer {layer + 1}", fontsize=8)
    figure.suptitle(f"{text}  →  {vocabulary.decode(target)}\nquery: row, key: column; black is weight 1")
    return save(figure, out / "attention.png")


def _draw(panel: Any, weights: np.ndarray, queries: list[str], keys: list[str]) -> None:
    panel.imshow(weights, cmap="Greys", vmin=0, vmax=1)
    panel.set_xticks(range(len(keys)), keys, fontsize=5, rotation=90)
    panel.set_yticks(range(len(queries)), queries, fontsize=5)
