"""Random models of one stack, prompts of unequal length for them, and decoding without a cache."""

from __future__ import annotations

from typing import Any

import numpy as np

import minitransformer as mt
from minitransformer.models import build
from minitransformer.one_stack_config import config_of

PAD, BOS, EOS = 0, 1, 2
V, MAX_LEN = 13, 17
DECODERS: dict[str, dict[str, Any]] = {
    "post-norm": {},
    "pre-norm, learned positions": {"norm": "pre", "positions": "learned", "attention_bias": True},
    "post-norm, rotary positions": {"positions": "rotary"},
    "pre-norm, rotary positions, d_v": {"norm": "pre", "positions": "rotary", "d_k": 6, "d_v": 5},
    "embedding norm, masked-lm head": {"embedding_norm": True, "head": "masked-lm", "activation": "gelu"},
    "untied, unscaled, gaps, dropout": {
        "tie_embeddings": False, "scale_embedding": False, "random_gaps": 3, "dropout": 0.4,
    },
}  # fmt: skip


def random_model(family: str, seed: int, dtype: str = "float64", **changes: Any) -> Any:
    """A model none of whose parameters is where training starts; an embedding does not drown its position."""
    sizes = {"n_layers": 2, "d_model": 12, "n_heads": 3, "d_ff": 19, "max_len": MAX_LEN}
    settings = {"src_vocab_size": V, "tgt_vocab_size": V, **sizes, **changes, "family": family}
    model = build(config_of(settings), seed, dtype)
    rng = np.random.default_rng(seed)
    for name, p in model.parameters().items():
        if p.data.ndim == 1:
            p.data = (p.data + 0.1 * rng.normal(size=p.shape)).astype(dtype)
        elif name.endswith(".E"):
            p.data = (0.3 * np.sqrt(12) * rng.normal(size=p.shape) / 2).astype(dtype)
    return model


def random_prompts(seed: int, lengths: Any, vocab_size: int = V) -> np.ndarray:
    """Rows of words, of these lengths, padded on the right to the longest."""
    rng = np.random.default_rng([seed, 1])
    ids = np.full((len(lengths), max(lengths)), PAD)
    for row, n in zip(ids, lengths, strict=True):
        row[:n] = rng.integers(1, vocab_size, n)
    return ids


def naive_greedy(model: mt.models.DecoderOnly, prompt: Any, max_len: int) -> list[int]:
    """One prompt without padding: every step reads all of it again."""
    text = list(prompt)
    for _ in range(max_len):
        logits, _ = model.forward([text])
        text.append(int(logits[0, -1].argmax()))
    return text[len(prompt) :]
