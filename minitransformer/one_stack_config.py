"""Not in the paper: the settings of models with one stack only, an encoder as in BERT or a decoder as in GPT."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minitransformer.config import TransformerConfig
from minitransformer.validation.settings import SIZES_BELOW, from_settings, one_of, require

FAMILIES = ("encoder-decoder", "encoder-only", "decoder-only")


@dataclass(frozen=True)
class OneStackConfig(TransformerConfig):
    """The shape of an encoder-only or a decoder-only model. Raises ConfigError for a model that cannot be built.

    `src_vocab_size` is the size of the vocabulary that it reads, `tgt_vocab_size` of the one in which it answers. All
    other settings mean the same as in TransformerConfig, for the only stack.
    """

    family: str = "decoder-only"  # or "encoder-only"
    scale_embedding: bool = True  # rows of E times sqrt(d_model), as in §3.4; BERT and GPT-2 do not
    n_segments: int = 0  # BERT's token types, such as question and answer: each adds a learned vector
    embedding_norm: bool = False  # BERT's LayerNorm of the sum of embedding, position and segment
    pooling: str = "none"  # an answer at each position; or one for all: of their "mean", or of the "first"
    head: str = "projection"  # logits = x Eᵀ; or "masked-lm", BERT's; or "none": the stack's output itself

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("family", self.family, FAMILIES[1:])
        require(0 <= self.n_segments < SIZES_BELOW, "n_segments", "0 or more", self.n_segments)
        one_of("pooling", self.pooling, ("none", "mean", "first"))
        one_of("head", self.head, ("projection", "masked-lm", "none"))
        tie = self.tie_embeddings
        require(isinstance(tie, bool), "tie_embeddings", "True or False, in a model of one stack", tie)
        if self.family == "decoder-only":
            for name, only in (("count_source_from", "start"), ("n_segments", 0), ("pooling", "none")):
                value = getattr(self, name)
                require(value == only, name, f"{only!r} in a decoder-only model", value)
            require(self.head != "none", "head", "one that gives logits, in a decoder-only model", self.head)
            V, answers = self.src_vocab_size, self.tgt_vocab_size
            require(answers == V, "tgt_vocab_size", f"src_vocab_size={V}, in a decoder-only model", answers)


def config_of(settings: Mapping[str, Any]) -> TransformerConfig:
    """The config of the family that the settings name, "encoder-decoder" if they name none.

    Raises ConfigError for a setting that this family does not have.
    """
    family = settings.get("family", "encoder-decoder")
    one_of("family", family, FAMILIES)
    if family != "encoder-decoder":
        return from_settings(OneStackConfig, settings)
    return from_settings(TransformerConfig, {name: x for name, x in settings.items() if name != "family"})


def family_of(config: TransformerConfig) -> str:
    """The family of a config, one of FAMILIES."""
    return config.family if isinstance(config, OneStackConfig) else "encoder-decoder"
