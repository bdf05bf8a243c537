"""GPT-2 (Radford et al. 2019) as it is published: names and settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minitransformer.one_stack_config import OneStackConfig
from minitransformer.published.layout import Layout, layer_norm, linear, numbers, supported

ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu", "relu": "relu"}
NUMBERS = {
    "vocab_size": "src_vocab_size",
    "n_layer": "n_layers",
    "n_embd": "d_model",
    "n_head": "n_heads",
    "n_positions": "max_len",
    "layer_norm_epsilon": "eps",
    "eos_token_id": "pad_id",  # GPT-2 has no symbol of its own for padding
}
NAMES = {
    "wte.weight": "embedding.embedding.E",
    "lm_head.weight": "embedding.embedding.E",
    "wpe.weight": "embedding.positions.P",
    **layer_norm("h.*.ln_1", "stack.layers.*.norm_1"),
    **linear("h.*.attn.c_attn", " ".join(f"stack.layers.*.self_attention.{{0}}_{x}" for x in "QKV")),
    **linear("h.*.attn.c_proj", "stack.layers.*.self_attention.{0}_O"),
    **layer_norm("h.*.ln_2", "stack.layers.*.norm_2"),
    **linear("h.*.mlp.c_fc", "stack.layers.*.feed_forward.{0}_1"),
    **linear("h.*.mlp.c_proj", "stack.layers.*.feed_forward.{0}_2"),
    **layer_norm("ln_f", "stack.norm"),
    "h.*.attn.bias": "",  # the causal mask
    "h.*.attn.masked_bias": "",
}


def config(settings: Mapping[str, Any]) -> OneStackConfig:
    """The model that GPT-2's config.json describes. Raises ConfigError if it is not supported."""
    supported(settings, "architectures", ["GPT2LMHeadModel"], ["GPT2Model"])
    supported(settings, "scale_attn_weights", True)
    supported(settings, "scale_attn_by_inverse_layer_idx", False)
    supported(settings, "add_cross_attention", False)
    supported(settings, "tie_word_embeddings", True)
    found = numbers(settings, NUMBERS)
    d_ff = settings.get("n_inner")
    return OneStackConfig(
        **found,
        tgt_vocab_size=settings["vocab_size"],
        d_ff=4 * found["d_model"] if d_ff is None else d_ff,
        activation=ACTIVATIONS[supported(settings, "activation_function", *ACTIVATIONS)],
        family="decoder-only",
        positions="learned",
        norm="pre",
        scale_embedding=False,
        attention_bias=True,
        dropout=0.0,
    )


LAYOUT = Layout(config, "transformer.", NAMES, transposed=False)
