"""The layers of section 3, dropout (§5.4), and some that are not in the paper, which say so.

Each has a `forward` and a hand-derived `backward`. Masks and tables of positions are plain functions.
"""

from minitransformer.layers.activations import ReLU, log_softmax, softmax, softmax_backward
from minitransformer.layers.add_norm import AddNorm
from minitransformer.layers.attention import ScaledDotProductAttention
from minitransformer.layers.attention_in_blocks import AttentionInBlocks
from minitransformer.layers.dropout import Dropout
from minitransformer.layers.embedding import Embedding, OutputProjection
from minitransformer.layers.feed_forward import FeedForward
from minitransformer.layers.gelu import GELU, GELUTanh
from minitransformer.layers.linear import Linear
from minitransformer.layers.masks import causal_mask, padding_mask
from minitransformer.layers.multi_head_attention import MultiHeadAttention
from minitransformer.layers.normalization import LayerNorm, RMSNorm
from minitransformer.layers.other_norms import BatchNorm, GroupNorm, InstanceNorm
from minitransformer.layers.positional_encoding import (
    FixedPositions,
    LearnedPositions,
    SinusoidalPositions,
    binary,
    fractions,
    integers,
    no_positions,
    sinusoids,
)
from minitransformer.layers.rotary import RotaryAttention

__all__ = [
    "GELU",
    "AddNorm",
    "AttentionInBlocks",
    "BatchNorm",
    "Dropout",
    "Embedding",
    "FeedForward",
    "FixedPositions",
    "GELUTanh",
    "GroupNorm",
    "InstanceNorm",
    "LayerNorm",
    "LearnedPositions",
    "Linear",
    "MultiHeadAttention",
    "OutputProjection",
    "RMSNorm",
    "ReLU",
    "RotaryAttention",
    "ScaledDotProductAttention",
    "SinusoidalPositions",
    "binary",
    "causal_mask",
    "fractions",
    "integers",
    "log_softmax",
    "no_positions",
    "padding_mask",
    "sinusoids",
    "softmax",
    "softmax_backward",
]
