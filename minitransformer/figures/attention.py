"""Who attends to whom: the attention weights of every layer and head for one input."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from minitransformer.backend import to_host
from minitransformer.errors import InputError
from minitransformer.figures.canvas import new_figure
from minitransformer.inference.translation import translate
from minitransformer.models.transformer import Transformer
from minitransformer.tasks.vocabulary import Vocabulary
from minitransformer.training.batching import BOS, EOS
from minitransformer.validation.settings import as_integer, as_list, one_of, require

KINDS = ("encoder", "decoder", "cross")  # self-attention of the encoder, of the decoder, and cross-attention
PANEL = 2.0  # inches, the longer side of a panel


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


def attention_figure(
    model: Transformer,
    vocabulary: Vocabulary,
    text: str,
    kinds: Sequence[str] = KINDS,
    layers: Iterable[int] | None = None,
    heads: Iterable[int] | None = None,
) -> Any:
    """The attention behind the model's own answer to `text`: a row for each layer, a panel in it for each head.

    `layers` and `heads` are the numbers of those to show, from 1 on; by default all.
    """
    kinds = as_list("kinds", kinds, "names of kinds")
    require(len(kinds) > 0, "kinds", "one or more of " + ", ".join(KINDS), kinds)
    for kind in kinds:
        one_of("kind", kind, KINDS)
    source = vocabulary.encode(text)
    shown = numbers_to_show("layers", layers, model.config.n_layers)
    shown_heads = numbers_to_show("heads", heads, model.config.n_heads)
    target = translate(model, [source])[0]
    weights = attention_weights(model, source, target)
    read = [*(vocabulary.symbols[i] for i in source), "</s>"]
    written = ["<s>", *(vocabulary.symbols[i] for i in target)][: model.config.max_len]
    queries_and_keys = {"encoder": (read, read), "decoder": (written, written), "cross": (written, read)}
    # In inches. There is one image for a row, and labels of its keys are only in the last row of a kind. With axes
    # and labels for each head, and a layout that measures them all, a hundred panels take a minute.
    cell = PANEL / max(len(read), len(written))
    font_size = min(6, 60 * cell)
    label = 0.1 + 0.011 * font_size * max(map(len, [*read, *written]))
    widest = max(len(queries_and_keys[kind][1]) for kind in kinds)
    answer = vocabulary.decode(target)
    of_title = 0.07 * max(len(text), len(answer) + 3)
    width = max(4.0, of_title, 0.5 + label + len(shown_heads) * (widest + 1) * cell)
    heights = {kind: len(queries_and_keys[kind][0]) * cell + 0.1 for kind in kinds}
    height = 0.7 + sum(len(shown) * heights[kind] + 0.4 + label for kind in kinds)
    figure = new_figure(width, height, layout=None)
    top = height - 0.7
    for kind in kinds:
        queries, keys = queries_and_keys[kind]
        top -= 0.4
        for layer in shown:
            picture = [weights[kind][layer, head] for head in shown_heads]
            size = (len(shown_heads) * (len(keys) + 1) - 1) * cell, len(queries) * cell
            place = 0.5 + label, top - size[1], *size
            row = figure.add_axes([x / whole for x, whole in zip(place, (width, height) * 2, strict=True)])
            _draw(row, picture, queries, keys, font_size, label_keys=layer == shown[-1])
            row.set_ylabel(f"layer {layer + 1}", fontsize=8)
            if layer == shown[0]:
                _write_titles(row, kind, shown_heads, len(keys), cell)
            top -= heights[kind]
        top -= label
    title = f"{text}\n→  {answer}\nwho (row) looks at whom (column)"
    figure.suptitle(title, y=1 - 0.1 / height, fontsize=9, parse_math=False)
    return figure


def numbers_to_show(what: str, chosen: Iterable[int] | None, n: int) -> list[int]:
    """The chosen ones of n layers or heads in order, counted from 0. Raises InputError for a number that none has."""
    expected = f"numbers of {what}, 1 … {n}"
    numbers = range(1, n + 1) if chosen is None else as_list(what, chosen, expected)
    shown = sorted({as_integer(what, i, 1, n, expected) - 1 for i in numbers})
    if not shown:
        raise InputError(f"{what}: expected {expected}, got none")
    return shown


def _write_titles(row: Any, kind: str, heads: list[int], n_keys: int, cell: float) -> None:
    """Write above a row what attention it shows, and over each head its number."""
    attention = "cross-attention" if kind == "cross" else f"{kind} self-attention"
    row.text(-0.5, -0.8 - 0.2 / cell, attention, fontsize=8)
    for i, head in enumerate(heads):
        middle = i * (n_keys + 1) + (n_keys - 1) / 2
        row.text(middle, -0.8, f"head {head + 1}", fontsize=8, ha="center")


def _draw(
    row: Any, heads: list[np.ndarray], queries: list[str], keys: list[str], font_size: float, label_keys: bool
) -> None:
    """Draw the weights of all heads side by side, an empty column between two of them."""
    gap = np.full((len(queries), 1), np.nan)
    picture = np.concatenate([part for weights in heads for part in (gap, weights)][1:], axis=1)
    row.imshow(picture, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    places = (
        [i * (len(keys) + 1) + k for i in range(len(heads)) for k in range(len(keys))] if label_keys else []
    )
    row.set_xticks(
        places, keys * len(heads) if label_keys else [], fontsize=font_size, rotation=90, parse_math=False
    )
    row.set_yticks(range(len(queries)), queries, fontsize=font_size, parse_math=False)
    row.spines[:].set_visible(False)
