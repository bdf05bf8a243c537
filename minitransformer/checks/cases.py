"""For each layer, how to build it and its inputs at given sizes.

The tests run these cases at many sizes, and fail for a Module without one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from minitransformer import layers, models
from minitransformer.backend import Generator
from minitransformer.checks.inputs import (
    DROPOUT,
    Sizes,
    away_from_zero,
    cross,
    decoder_inputs,
    encoder_inputs,
    heads,
    logits_and_targets,
    masked_heads,
    of_one_vocabulary,
    placed_heads,
    positions,
    rows,
    scores,
    sentences,
    sentences_and_targets,
    source,
    source_and_segments,
    source_and_targets,
    tiny_config,
    tiny_stack,
)
from minitransformer.checks.wrapped import (
    Loss,
    PlacedAttention,
    Softmax,
    TiedEmbedding,
    TransformerWithLoss,
)
from minitransformer.config import TransformerConfig
from minitransformer.module import Module

Build: TypeAlias = Callable[[Sizes, Generator], Module]
Case: TypeAlias = Callable[[Sizes, Generator], "tuple[Module, tuple[Any, ...]]"]


def case(build: Build, *inputs: Callable[[Sizes, Generator], Any]) -> Case:
    """A case: the layer that `build` makes, and its inputs, each made by a function of its own, or all by one."""

    def make(s: Sizes, rng: Generator) -> tuple[Module, tuple[Any, ...]]:
        made = [function(s, rng) for function in inputs]
        return build(s, rng), made[0] if isinstance(made[0], tuple) else tuple(made)

    return make


def input_embedding(positions: str) -> Build:
    """A function that builds an InputEmbedding with these positions."""

    def build(s: Sizes, rng: Generator) -> Module:
        config = tiny_config(s, positions=positions)
        return models.InputEmbedding(config, s.V_src, E=None, rng=rng, dtype="float64")

    return build


def whole_model(**changes: Any) -> Build:
    """A function that builds the model with its loss, with some settings changed."""
    return lambda s, rng: TransformerWithLoss(tiny_config(s, **changes), rng)


def stack_input(**changes: Any) -> Build:
    """A function that builds the embedding of a model of one stack, with some settings changed."""
    return lambda s, rng: models.OneStackEmbedding(
        tiny_stack(s, "encoder-only", **changes), rng=rng, dtype="float64"
    )


def one_stack(family: str, **changes: Any) -> Build:
    """A function that builds a model of one stack, with some settings changed."""
    return lambda s, rng: models.build(tiny_stack(s, family, **changes), rng)


def with_loss(family: str, **changes: Any) -> Build:
    """A function that builds a model of one stack with its loss, with some settings changed."""
    return lambda s, rng: TransformerWithLoss(tiny_stack(s, family, **changes), rng)


CASES: Mapping[str, Sequence[Case]] = {
    "Linear": [
        case(lambda s, r: layers.Linear(s.d_model, s.d_ff, rng=r), positions),
        case(lambda s, r: layers.Linear(s.d_model, s.d_ff, rng=r, bias=False), rows),
    ],
    "ReLU": [case(lambda s, r: layers.ReLU(), away_from_zero)],
    "GELU": [case(lambda s, r: layers.GELU(), positions)],
    "GELUTanh": [case(lambda s, r: layers.GELUTanh(), positions)],
    "softmax": [case(lambda s, r: Softmax(), scores)],
    "Dropout": [case(lambda s, r: layers.Dropout(DROPOUT), positions)],
    "LayerNorm": [
        case(lambda s, r: layers.LayerNorm(s.d_model), positions),
        case(lambda s, r: layers.LayerNorm(s.d_model, eps=0.5), rows),
    ],
    "RMSNorm": [
        case(lambda s, r: layers.RMSNorm(s.d_model), positions),
        case(lambda s, r: layers.RMSNorm(s.d_model, eps=0.5), rows),
    ],
    "BatchNorm": [case(lambda s, r: layers.BatchNorm(s.d_model), positions)],
    "InstanceNorm": [case(lambda s, r: layers.InstanceNorm(s.d_model), positions)],
    "GroupNorm": [case(lambda s, r: layers.GroupNorm(s.d_model, 2), positions)],
    "AddNorm": [
        case(lambda s, r: layers.AddNorm(s.d_model, DROPOUT), positions, positions),
        case(lambda s, r: layers.AddNorm(s.d_model, DROPOUT, Norm=layers.RMSNorm), positions, positions),
    ],
    "FeedForward": [
        case(lambda s, r: layers.FeedForward(s.d_model, s.d_ff, DROPOUT, rng=r), positions),
        case(
            lambda s, r: layers.FeedForward(s.d_model, s.d_ff, DROPOUT, Activation=layers.GELU, rng=r),
            positions,
        ),
    ],
    "ScaledDotProductAttention": [
        case(lambda s, r: layers.ScaledDotProductAttention(DROPOUT), masked_heads),
        case(lambda s, r: layers.ScaledDotProductAttention(), heads),
    ],
    "AttentionInBlocks": [
        case(lambda s, r: layers.AttentionInBlocks(DROPOUT, rows=2), masked_heads),
        case(lambda s, r: layers.AttentionInBlocks(DROPOUT), masked_heads),
    ],
    "RotaryAttention": [
        case(lambda s, r: PlacedAttention(layers.AttentionInBlocks(DROPOUT, rows=2)), placed_heads),
        case(lambda s, r: PlacedAttention(layers.ScaledDotProductAttention()), placed_heads),
    ],
    "MultiHeadAttention": [
        case(
            lambda s, r: layers.MultiHeadAttention(s.d_model, s.h, s.d_k, s.d_v, DROPOUT, bias=True, rng=r),
            cross,
        ),
        case(lambda s, r: layers.MultiHeadAttention(s.d_model, 2, rng=r), cross),
    ],
    "Embedding": [case(lambda s, r: layers.Embedding(s.V_src, s.d_model, rng=r), source)],
    "OutputProjection": [case(lambda s, r: layers.OutputProjection(s.V_tgt, s.d_model, rng=r), positions)],
    "TiedEmbedding": [case(lambda s, r: TiedEmbedding(s.V_src, s.d_model, rng=r), source)],
    "SinusoidalPositions": [case(lambda s, r: layers.SinusoidalPositions(19, s.d_model), positions)],
    "FixedPositions": [case(lambda s, r: layers.FixedPositions(layers.fractions(19, s.d_model)), positions)],
    "LearnedPositions": [case(lambda s, r: layers.LearnedPositions(19, s.d_model, rng=r), positions)],
    "InputEmbedding": [
        case(input_embedding("sinusoidal"), source),
        case(input_embedding("learned"), source),
        case(input_embedding("none"), source),
    ],
    "EncoderLayer": [case(lambda s, r: models.EncoderLayer(tiny_config(s), rng=r), encoder_inputs)],
    "PreNormEncoderLayer": [
        case(lambda s, r: models.PreNormEncoderLayer(tiny_config(s), rng=r), encoder_inputs)
    ],
    "DecoderLayer": [case(lambda s, r: models.DecoderLayer(tiny_config(s), rng=r), decoder_inputs)],
    "PreNormDecoderLayer": [
        case(lambda s, r: models.PreNormDecoderLayer(tiny_config(s), rng=r), decoder_inputs)
    ],
    "Encoder": [
        case(lambda s, r: models.Encoder(tiny_config(s), rng=r), encoder_inputs),
        case(lambda s, r: models.Encoder(tiny_config(s, norm="pre"), rng=r), encoder_inputs),
    ],
    "Decoder": [
        case(lambda s, r: models.Decoder(tiny_config(s), rng=r), decoder_inputs),
        case(lambda s, r: models.Decoder(tiny_config(s, norm="pre"), rng=r), decoder_inputs),
    ],
    "Transformer": [
        case(lambda s, r: models.Transformer(tiny_config(s, dropout=0.0), seed=r), sentences),
        case(
            lambda s, r: models.Transformer(
                tiny_config(s, attention_bias=True, tie_embeddings=False), seed=r
            ),
            sentences,
        ),
    ],
    "OneStackEmbedding": [
        case(stack_input(), source),
        case(
            stack_input(n_segments=2, embedding_norm=True, positions="learned", scale_embedding=False),
            source_and_segments,
        ),
    ],
    "MaskedLMHead": [
        case(
            lambda s, r: models.MaskedLMHead(
                tiny_stack(s, "encoder-only", activation="gelu"), None, rng=r, dtype="float64"
            ),
            positions,
        )
    ],
    "EncoderOnly": [
        case(one_stack("encoder-only", n_layers=1, pooling="mean"), source),
        case(one_stack("encoder-only", n_layers=1, pooling="first", head="none"), source),
        case(one_stack("encoder-only", n_layers=1, n_segments=2, head="masked-lm"), source_and_segments),
        case(
            one_stack("encoder-only", n_layers=1, positions="rotary", count_source_from="both", d_k=4), source
        ),
    ],
    "DecoderOnly": [
        case(one_stack("decoder-only", norm="pre"), source),
        case(one_stack("decoder-only", positions="rotary", d_k=4), source),
    ],
    "OneStackWithLoss": [
        case(with_loss("decoder-only", norm="pre", activation="gelu_tanh"), source_and_targets),
        case(
            with_loss("encoder-only", n_layers=1, activation="gelu", embedding_norm=True), source_and_targets
        ),
    ],
    "LabelSmoothedCrossEntropy": [
        case(lambda s, r: Loss(eps_ls=0.1), logits_and_targets),
        case(lambda s, r: Loss(eps_ls=0.0), logits_and_targets),
    ],
    "TransformerWithLoss": [
        case(whole_model(n_layers=1, dropout_on=("residual",)), sentences_and_targets),
        case(whole_model(), sentences_and_targets),
        case(whole_model(norm="pre", positions="learned"), sentences_and_targets),
        case(whole_model(norm_layer="rms", positions="fractions"), sentences_and_targets),
        case(whole_model(norm_layer="rms", norm="pre", positions="none"), sentences_and_targets),
        case(whole_model(activation="gelu_tanh"), sentences_and_targets),
        case(whole_model(count_source_from="both", positions="learned"), sentences_and_targets),
        case(
            whole_model(count_source_from="both", positions="rotary", d_k=4),
            sentences_and_targets,
        ),
        case(whole_model(positions="rotary", d_k=4, norm="pre"), sentences_and_targets),
        case(lambda s, r: whole_model(tie_embeddings=True)(s._replace(V_tgt=s.V_src), r), of_one_vocabulary),
        case(
            lambda s, r: whole_model(tie_embeddings="source_target")(s._replace(V_tgt=s.V_src), r),
            of_one_vocabulary,
        ),
    ],
}


def base_model(s: Sizes, rng: Generator) -> tuple[Module, tuple[Any, ...]]:
    """The paper's base model, with 37,000 tokens and 63 million parameters, from ids to the loss."""
    config = TransformerConfig.base()
    few = s._replace(V_src=config.src_vocab_size, V_tgt=config.tgt_vocab_size, T_k=3)
    return TransformerWithLoss(config, rng), sentences_and_targets(few, rng)


BASE_MODEL: Mapping[str, Sequence[Case]] = {"base model with loss": [base_model]}
