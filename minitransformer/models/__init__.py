"""§3.1: the encoder, the decoder and the Transformer; and, not in the paper, models of one stack alone."""

from minitransformer.models.decoder import Decoder, DecoderLayer
from minitransformer.models.decoder_only import DecoderOnly
from minitransformer.models.decoder_state import DecoderState
from minitransformer.models.encoder import Encoder, EncoderLayer
from minitransformer.models.encoder_only import EncoderOnly
from minitransformer.models.families import build
from minitransformer.models.inputs import InputEmbedding
from minitransformer.models.one_stack import MaskedLMHead, OneStackEmbedding
from minitransformer.models.pre_norm import PreNormDecoderLayer, PreNormEncoderLayer
from minitransformer.models.transformer import Transformer

__all__ = [
    "Decoder",
    "DecoderLayer",
    "DecoderOnly",
    "DecoderState",
    "Encoder",
    "EncoderLayer",
    "EncoderOnly",
    "InputEmbedding",
    "MaskedLMHead",
    "OneStackEmbedding",
    "PreNormDecoderLayer",
    "PreNormEncoderLayer",
    "Transformer",
    "build",
]
