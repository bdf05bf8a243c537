"""Random models and sources for decoding, and greedy decoding without a cache."""

import numpy as np

import minitransformer as mt

PAD, BOS, EOS = 0, 1, 2
CONFIGS = {
    "post-norm": {},
    "pre-norm": {"norm": "pre"},
    "learned positions": {"positions": "learned"},
    "odd width": {"positions": "learned", "d_model": 15},
    "untied": {"tie_embeddings": False, "tgt_vocab_size": 11},
    "source and target tied": {"tie_embeddings": "source_target"},
    "target and output tied": {"tie_embeddings": "target_output", "tgt_vocab_size": 17},
    "attention bias": {"attention_bias": True, "norm": "pre"},
    "d_k and d_v": {"d_k": 5, "d_v": 7},
    "one layer, dropout": {"n_layers": 1, "dropout": 0.5, "dropout_on": ("embedding", "attention", "relu")},
}


def random_model(seed, dtype="float64", **changes):
    """A model with random gains and biases, in which a token's embedding does not drown its position."""
    settings = {
        "src_vocab_size": 13,
        "tgt_vocab_size": 13,
        "n_layers": 2,
        "d_model": 12,
        "n_heads": 3,
        "d_ff": 19,
        "max_len": 23,
        **changes,
    }
    model = mt.Transformer(mt.TransformerConfig(**settings), seed, dtype)
    rng = np.random.default_rng(seed)
    for name, p in model.parameters().items():
        if p.data.ndim == 1:
            p.data = p.data + 0.1 * rng.normal(size=p.shape)
        elif name.endswith(".E"):
            p.data = 0.3 * p.data
    return model


def random_sources(seed, lengths, vocab_size=13):
    """Rows of these lengths, ended by EOS, padded to the longest."""
    rng = np.random.default_rng(seed)
    src_ids = np.full((len(lengths), max(lengths)), PAD)
    for row, length in zip(src_ids, lengths, strict=True):
        row[: length - 1] = rng.integers(3, vocab_size, length - 1)
        row[length - 1] = EOS
    return src_ids


def naive_greedy(model, src_ids, bos_id, eos_id, max_len):
    """Every step reads all that was written so far, of all rows, whether they have ended or not."""
    written = np.full((len(src_ids), 1), bos_id)
    ended = np.zeros(len(src_ids), bool)
    for _ in range(max_len):
        logits, _ = model.forward(src_ids, written)
        token = np.where(ended, model.config.pad_id, logits[:, -1].argmax(-1))
        ended |= token == eos_id
        written = np.concatenate([written, token[:, None]], 1)
        if ended.all():
            break
    return written[:, 1:]
