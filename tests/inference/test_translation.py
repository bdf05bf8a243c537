"""Translations, one by one and together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from one_stack_cases import random_model as one_stack_model

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


# ---- models of one stack


def in_pieces(answer):
    return answer[:-1] if answer[-1:] == [EOS] else answer


@pytest.mark.parametrize("beam", [1, 3])
def test_a_decoder_alone_answers_after_the_source_its_end_and_a_start(beam):
    """Each source by itself, whatever is in its batch; at most 50 more than it, or as many as max_len has left."""
    model = one_stack_model("decoder-only", 5, max_len=70)
    rng = np.random.default_rng(5)
    sources = [rng.integers(3, 13, n).tolist() for n in (2, 9, 1, 60, 9)]
    lengths = []
    for source, answer in zip(sources, mt.translate(model, sources, beam, 0.6), strict=True):
        most = min(len(source) + 51, 69 - len(source))
        found = mt.beam_search(model, [[*source, EOS]], beam, 0.6, BOS, EOS, most)[0][0]
        assert answer == in_pieces(found.ids)
        lengths.append(len(answer))
    assert len(set(lengths)) > 1


def test_a_source_that_leaves_a_decoder_alone_no_room_is_refused():
    """max_len=17: 15 ids, an end, a start."""
    model = one_stack_model("decoder-only", 5)
    assert translation_module.longest_source(model) == 15
    for beam in (1, 2):
        assert len(mt.translate(model, [[3] * 15], beam)[0]) <= 1
        for n in (16, 17, 40):
            with pytest.raises(mt.InputError) as caught:
                mt.translate(model, [[3], [4] * n], beam)
            expected = f"sources: expected at most 15 ids, to leave room for an answer (max_len=17), got {n}"
            assert str(caught.value) == expected


@pytest.mark.parametrize("tokens", [10**6, 12])
@pytest.mark.parametrize("pooling", ["none", "mean", "first"])
def test_an_encoder_alone_answers_with_the_likeliest_symbols(monkeypatch, tokens, pooling):
    """In one batch, or in many: at each position, or one for all; an end follows."""
    monkeypatch.setattr(translation_module, "BATCH_TOKENS", tokens)
    model = one_stack_model("encoder-only", 6, pooling=pooling, positions="learned")
    rng = np.random.default_rng(6)
    sources = [rng.integers(3, 13, n).tolist() for n in (4, 17, 1, 4, 9)]
    expected, scores = [], []
    for source in sources:
        logits = model.forward([source])[0][0]
        expected.append(logits.argmax(-1).tolist())
        p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        scores.append(np.log(p.max(-1)).sum())
    assert {len(answer) for answer in expected} == ({1} if pooling != "none" else {1, 4, 9, 17})
    for beam in (1, 4):  # there is nothing to search
        assert mt.translate(model, sources, beam) == expected
        found = translation_module.n_best(model, sources, beam)
        assert [[h.ids for h in one] for one in found] == [[[*answer, EOS]] for answer in expected]
        np.testing.assert_allclose([one[0].score for one in found], scores, rtol=1e-9)
    assert translation_module.longest_source(model) == 17
    with pytest.raises(mt.InputError, match="expected at most max_len=17 tokens, got 18"):
        mt.translate(model, [[3] * 18])


def test_the_hypotheses_of_a_beam_count_in_a_batch(monkeypatch):
    config = mt.TransformerConfig(11, 11, n_layers=1, d_model=8, n_heads=2, d_ff=10, max_len=20)
    sizes, search = [], translation_module.beam_search

    def noted(model, src_ids, beam, *rest):
        sizes.append(src_ids.size * beam)
        return search(model, src_ids, beam, *rest)

    monkeypatch.setattr(translation_module, "BATCH_TOKENS", 60)
    monkeypatch.setattr(translation_module, "beam_search", noted)
    rng = np.random.default_rng(1)
    sources = [rng.integers(3, 11, rng.integers(1, 6)).tolist() for _ in range(20)]
    translation_module.n_best(mt.Transformer(config, 1), sources, 3)
    assert len(sizes) > 1 and max(sizes) <= 60
