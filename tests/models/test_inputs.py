"""§3.4, §3.5: what enters the stacks."""

from __future__ import annotations

import numpy as np
import pytest
from support import D_MODEL, T_Q, V_SRC, B, random_ids, tiny_config

import minitransformer as mt
from minitransformer import layers


@pytest.mark.parametrize(
    ("positions", "table"),
    [("sinusoidal", "sinusoids"), ("none", "no_positions")]
    + [(x, x) for x in ("integers", "fractions", "binary")],
)
def test_a_model_adds_the_table_its_config_names(positions, table):
    model = mt.Transformer(tiny_config(positions=positions), dtype="float64")
    ids = random_ids(np.random.default_rng(8), B, T_Q, V_SRC)
    x, _ = model.src_embedding.forward(ids, start=2)
    words, _ = model.src_embedding.embedding.forward(ids)
    PE = getattr(layers, table)(model.config.max_len, D_MODEL)[2 : 2 + T_Q]
    np.testing.assert_array_equal(x, words + PE)
