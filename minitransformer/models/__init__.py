"""§3.1: the encoder, the decoder and the Transformer."""

from minitransformer.models.decoder import Decoder, DecoderLayer
from minitransformer.models.decoder_state import DecoderState
from minitransformer.models.encoder import Encoder, EncoderLayer
from minitransformer.models.inputs import InputEmbedding
from minitransformer.models.pre_norm import PreNormDecoderLayer, PreNormEncoderLayer
from minitransformer.models.transformer import Transformer

__all__ = [
    "Decoder",
    "DecoderLayer",
    "DecoderState",
    "Encoder",
    "EncoderLayer",
    "InputEmbedding",
    "PreNormDecoderLayer",
    "PreNormEncoderLayer",
    "Transformer",
]
