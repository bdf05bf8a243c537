"""Who attends to whom: the attention weights of every layer and head for one input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minitransformer.backend import to_host
from minitransformer.figures.canvas import new_figure
from minitransformer.inference.translation import translate
from minitransformer.models.transformer import Transformer
from minitransformer.tasks.vocabulary import Symbols
from minitransformer.training.batching import BOS, EOS

KINDS = ("encoder", "decoder", "cross")  # self-attention of the encoder, of the decoder, and cross-attention


def attention_weights(model: Transformer, source: list[int], target: list[int]) -> dict[str, np.ndarray]:
    """Kind -> weights (N, h, T_q, T_k) of one sentence pair, from the caches of a forward pass."""
    tgt_in = [BOS, *target][: model.config.max_len]  # an answer that never ended fills max_len by itself
    _, cache = model.forward([[*source, EOS]], [tgt_in])
    attentions = {
        "encoder": [layer.self_attention for layer in cache.encoder.layers],
        "decoder": [layer.self_attention for layer in cache.decoder.layers],
        "cross": [layer.cross_attention for layer in cache.decoder.layers],
    }
    return {
        kind: np.stack([to_host(cache.attention.all_weights()[0]) for cache in caches])
        for kind, caches in attentions.items()
    }


def attention_figure(model: Transformer, vocabulary: Symbols, text: str, kinds: Sequence[str] = KINDS) -> Any:
    """The attention behind the model's own answer to `text`: a row of panels for each layer, a column for each head."""
    source = vocabulary.encode(text)
    target = translate(model, [source])[0]
    weights = attention_weights(model, source, target)
    source_symbols = [*(vocabulary.symbols[i] for i in source), "</s>"]
    target_symbols = ["<s>", *(vocabulary.symbols[i] for i in target)][: model.config.max_len]
    queries_and_keys = {
        "encoder": (source_symbols, source_symbols),
        "decoder": (target_symbols, target_symbols),
        "cross": (target_symbols, source_symbols),
    }
    rows = [(kind, layer) for kind in kinds for layer in range(model.config.n_layers)]
    n_heads = model.config.n_heads
    figure = new_figure(2.4 * n_heads + 0.6, 2.4 * len(rows) + 0.8)
    panels = figure.subplots(len(rows), n_heads, squeeze=False)
    for row, (kind, layer) in zip(panels, rows, strict=True):
        for head, panel in enumerate(row):
            _draw(panel, weights[kind][layer, head], *queries_and_keys[kind])
            panel.set_title(f"head {head + 1}", fontsize=8)
        attention = "cross-attention" if kind == "cross" else f"{kind} self-attention"
        row[0].set_ylabel(f"{attention}\nlayer {layer + 1}", fontsize=8)
    answer = vocabulary.decode(target)
    figure.suptitle(f"{text}\n→  {answer}\nwho (row) looks at whom (column)", fontsize=9, parse_math=False)
    return figure


def _draw(panel: Any, weights: np.ndarray, queries: list[str], keys: list[str]) -> None:
    panel.imshow(weights, cmap="Blues", vmin=0, vmax=1)
    panel.set_xticks(range(len(keys)), keys, fontsize=6, rotation=90, parse_math=False)
    panel.set_yticks(range(len(queries)), queries, fontsize=6, parse_math=False)
