"""The model of each family: the paper's encoder-decoder, an encoder alone, a decoder alone."""

from __future__ import annotations

from typing import Any, TypeAlias

from minitransformer.backend import DTypeLike, Seed
from minitransformer.config import TransformerConfig
from minitransformer.models.decoder_only import DecoderOnly
from minitransformer.models.encoder_only import EncoderOnly
from minitransformer.models.transformer import Transformer
from minitransformer.one_stack_config import family_of

Model: TypeAlias = Transformer | EncoderOnly | DecoderOnly
Writer: TypeAlias = Transformer | DecoderOnly  # a model that writes its answer token by token

MODELS: dict[str, Any] = {
    "encoder-decoder": Transformer,
    "encoder-only": EncoderOnly,
    "decoder-only": DecoderOnly,
}


def build(
    config: TransformerConfig, seed: Seed = 0, dtype: DTypeLike = "float32", device: str = "cpu"
) -> Model:
    """The model that a config describes, with the initial weights that `seed` determines."""
    model: Model = MODELS[family_of(config)](config, seed, dtype, device)
    return model
