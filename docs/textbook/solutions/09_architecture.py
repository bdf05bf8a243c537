"""Solutions to the exercises of chapter 9."""

import minitransformer as mt
from minitransformer import layers, models


def n_parameters(d_model, d_ff, N, V):
    attention = 4 * d_model**2
    feed_forward = 2 * d_model * d_ff + d_ff + d_model
    norm = 2 * d_model
    encoder_layer = attention + feed_forward + 2 * norm
    decoder_layer = 2 * attention + feed_forward + 3 * norm
    return V * d_model + N * (encoder_layer + decoder_layer)


class LanguageModel(mt.Module):
    """The logits of each next word: E[ids] plus positions, a stack under the causal mask, times Eᵀ."""

    def __init__(self, config, rng, dtype):
        V = config.tgt_vocab_size
        self.embedding = models.InputEmbedding(config, V, E=None, rng=rng, dtype=dtype)
        self.stack = models.Encoder(config, rng=rng, dtype=dtype)
        E = self.embedding.embedding.E
        self.output = layers.OutputProjection(V, config.d_model, E=E, dtype=dtype)

    def forward(self, ids, rng=None):
        x, cache_embedding = self.embedding.forward(ids, rng)
        x, cache_stack = self.stack.forward(x, layers.causal_mask(ids), rng)
        logits, cache_output = self.output.forward(x)
        return logits, (cache_embedding, cache_stack, cache_output)

    def backward(self, dlogits, cache):
        cache_embedding, cache_stack, cache_output = cache
        dx = self.output.backward(dlogits, cache_output)
        dx = self.stack.backward(dx, cache_stack)
        self.embedding.backward(dx, cache_embedding)


def one_layer_for_all(config, seed, dtype):
    encoder = models.Encoder(config, rng=seed, dtype=dtype)
    encoder.layers = [encoder.layers[0]] * config.n_layers
    return encoder
