"""BERT (Devlin et al. 2018) as it is published, all-MiniLM-L6-v2 for example: names and settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minitransformer.one_stack_config import OneStackConfig
from minitransformer.published.layout import Layout, layer_norm, linear, numbers, supported

ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu"}
HEADS = {"BertModel": "none", "BertForMaskedLM": "masked-lm", "BertForPreTraining": "masked-lm"}
NUMBERS = {
    "vocab_size": "src_vocab_size",
    "num_hidden_layers": "n_layers",
    "hidden_size": "d_model",
    "num_attention_heads": "n_heads",
    "intermediate_size": "d_ff",
    "max_position_embeddings": "max_len",
    "type_vocab_size": "n_segments",
    "layer_norm_eps": "eps",
    "pad_token_id": "pad_id",
}
NAMES = {
    "embeddings.word_embeddings.weight": "embedding.embedding.E",
    "embeddings.position_embeddings.weight": "embedding.positions.P",
    "embeddings.token_type_embeddings.weight": "embedding.segments.E",
    **layer_norm("embeddings.LayerNorm", "embedding.norm"),
    **linear("encoder.layer.*.attention.self.query", "stack.layers.*.self_attention.{0}_Q"),
    **linear("encoder.layer.*.attention.self.key", "stack.layers.*.self_attention.{0}_K"),
    **linear("encoder.layer.*.attention.self.value", "stack.layers.*.self_attention.{0}_V"),
    **linear("encoder.layer.*.attention.output.dense", "stack.layers.*.self_attention.{0}_O"),
    **layer_norm("encoder.layer.*.attention.output.LayerNorm", "stack.layers.*.add_norm_1.norm"),
    **linear("encoder.layer.*.intermediate.dense", "stack.layers.*.feed_forward.{0}_1"),
    **linear("encoder.layer.*.output.dense", "stack.layers.*.feed_forward.{0}_2"),
    **layer_norm("encoder.layer.*.output.LayerNorm", "stack.layers.*.add_norm_2.norm"),
    **linear("cls.predictions.transform.dense", "output.linear.{0}"),
    **layer_norm("cls.predictions.transform.LayerNorm", "output.norm"),
    "cls.predictions.bias": "output.b_V",
    "cls.predictions.decoder.bias": "output.b_V",
    "cls.predictions.decoder.weight": "embedding.embedding.E",
    "embeddings.position_ids": "",
    **linear("pooler.dense", ""),  # the heads for whole sentences
    **linear("cls.seq_relationship", ""),
}


def config(settings: Mapping[str, Any]) -> OneStackConfig:
    """The model that BERT's config.json describes. Raises ConfigError if it is not supported."""
    (architecture,) = supported(settings, "architectures", *([name] for name in HEADS))
    supported(settings, "position_embedding_type", "absolute")
    supported(settings, "is_decoder", False)
    supported(settings, "tie_word_embeddings", True)
    return OneStackConfig(
        **numbers(settings, NUMBERS),
        tgt_vocab_size=settings["vocab_size"],
        activation=ACTIVATIONS[supported(settings, "hidden_act", *ACTIVATIONS)],
        head=HEADS[architecture],
        family="encoder-only",
        positions="learned",
        embedding_norm=True,
        scale_embedding=False,
        attention_bias=True,
        dropout=0.0,
    )


LAYOUT = Layout(config, "bert.", NAMES, transposed=True)
