"""Translations, one by one and together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minitransformer as mt
from minitransformer.inference import translation as translation_module
from minitransformer.tasks import BOS, EOS, PAD


def random_model(seed, max_len=80):
    config = mt.TransformerConfig(
        11, 11, n_layers=1, d_model=8, n_heads=2, d_ff=10, max_len=max_len, tie_embeddings=False, norm="pre"
    )
    model = mt.Transformer(config, seed, "float64")
    flat = model.flatten().data
    flat += 0.3 * np.random.default_rng(seed).normal(size=flat.shape)
    model.output.E.data[PAD] = 0
    return model


@given(seed=st.integers(0, 2**32 - 1))
def test_a_translation_does_not_depend_on_the_others(seed):
    """Neither on their padding nor on how much longer than its own source it may get (§6.1: 50 tokens)."""
    rng = np.random.default_rng(seed)
    model = random_model(seed)
    sources = [rng.integers(3, 11, n).tolist() for n in rng.permutation([1, 2, 5, 7, 14])]
    together = mt.translate(model, sources)
    for source, translation in zip(sources, together, strict=True):
        assert mt.translate(model, [source]) == [translation]


def test_translations_are_those_of_greedy_decoding_in_order():
    model = random_model(4, max_len=20)
    rng = np.random.default_rng(4)
    sources = [rng.integers(3, 11, n).tolist() for n in (9, 1, 5, 9, 3)]
    for source, translation in zip(sources, mt.translate(model, sources), strict=True):
        ids = mt.greedy_decode(model, [[*source, EOS]], BOS, EOS, 20)[0].tolist()
        assert translation == (ids[: ids.index(EOS)] if EOS in ids else ids)


def test_many_sources_are_translated_in_several_batches(monkeypatch):
    model = random_model(5, max_len=6)
    monkeypatch.setattr(translation_module, "LONGER_THAN_SOURCE", 1)
    rng = np.random.default_rng(5)
    sources = [rng.integers(3, 11, rng.integers(1, 6)).tolist() for _ in range(41)]
    expected = mt.translate(model, sources)
    monkeypatch.setattr(translation_module, "BATCH_TOKENS", 30)
    calls = []
    decode = translation_module.greedy_decode
    monkeypatch.setattr(
        translation_module, "greedy_decode", lambda *arguments: calls.append(1) or decode(*arguments)
    )
    assert mt.translate(model, sources) == expected
    assert len(calls) > 5


def test_nothing_to_translate_is_no_translation():
    assert mt.translate(random_model(6), []) == []


@pytest.mark.parametrize("source", [[3] * 80, [11], [-1]], ids=["too long", "unknown id", "negative id"])
def test_sources_that_the_model_cannot_read_are_refused(source):
    with pytest.raises(mt.InputError):
        mt.translate(random_model(8), [[3, 4], source])


def ids_without_end(hypothesis):
    return hypothesis.ids[:-1] if hypothesis.ids[-1] == EOS else hypothesis.ids


def test_translations_by_a_beam_are_the_best_hypotheses():
    """Beams and alphas that find different translations, with models whose sentences end, and without an end."""
    rng = np.random.default_rng(9)
    sources, seen = [rng.integers(3, 11, n).tolist() for n in (9, 1, 5, 7)], set()
    for seed in range(6):
        model = random_model(seed, max_len=20)
        for beam, alpha in ((2, 0.6), (3, 0.0), (3, 5.0)):
            expected = [
                ids_without_end(mt.beam_search(model, [[*source, EOS]], beam, alpha, max_len=20)[0][0])
                for source in sources
            ]
            assert mt.translate(model, sources, beam, alpha) == expected
            seen.add(str(expected))
        assert mt.translate(model, sources, 3) == mt.translate(model, sources, 3, 0.6)
        assert mt.translate(model, sources) == mt.translate(model, sources, 1)
    assert len(seen) > 8


@pytest.mark.parametrize("beam", [1, 2])
def test_a_translation_that_does_not_end_is_50_longer_than_its_source(beam):
    """Its end counts, and the model's max_len is the most."""
    model = random_model(3)
    decode_step = model.decode_step

    def never(ids, state):
        logits = decode_step(ids, state)
        logits[:, EOS] = -1e9
        return logits

    model.decode_step = never
    assert [len(row) for row in mt.translate(model, [[3, 4], [5] * 9, [6] * 40], beam)] == [53, 60, 80]


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (3, "sources: expected a list of lists of ids, got 3"),
        ([3], "sources: expected a list of ids, got 3"),
        ([[3, 4.0]], "sources: expected ids, got 4.0"),
        ([[-1]], "sources: expected ids, got -1"),
    ],
)
def test_sources_that_are_no_lists_of_ids_are_named(sources, message):
    with pytest.raises(mt.InputError) as caught:
        mt.translate(random_model(8), sources)
    assert str(caught.value) == message


def test_the_first_id_is_a_source_too():
    """Padding inside a sentence is odd, but an id of the model."""
    assert len(mt.translate(random_model(8, max_len=9), [[3, PAD, 4]])) == 1
