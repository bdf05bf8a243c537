"""Exact match and token accuracy, against loops over the answers; translations one by one and together."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minitransformer as mt
from minitransformer.inference import translation as translation_module
from minitransformer.tasks import BOS, EOS, PAD

SYMBOLS = st.integers(3, 6)  # few, so that answers are right by chance
CASES = st.lists(
    st.tuples(
        st.lists(SYMBOLS, min_size=1, max_size=6),  # source
        st.lists(SYMBOLS, max_size=6),  # target
        st.one_of(st.just("right"), st.lists(SYMBOLS, max_size=8)),  # what the model answers
    ),
    min_size=1,
    max_size=12,
)


def a_model_that_answers(monkeypatch, answers, max_len=64):
    """answers: the source as a tuple -> what comes out, EOS included if it is to end."""

    def greedy_decode(model, src_ids, bos_id, eos_id, max_len):
        assert (bos_id, eos_id) == (BOS, EOS)
        rows = [
            answers[tuple(i for i in row if i != PAD)[:-1]][:max_len] for row in np.asarray(src_ids).tolist()
        ]
        ids = np.full((len(rows), max(map(len, rows))), PAD)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
        return ids

    monkeypatch.setattr(translation_module, "greedy_decode", greedy_decode)
    return SimpleNamespace(config=SimpleNamespace(max_len=max_len, pad_id=PAD))


@given(CASES)
def test_figures_are_counted_right(cases):
    answers = {tuple(source): target if answer == "right" else answer for source, target, answer in cases}
    pairs = [(source, target) for source, target, _ in cases]
    with pytest.MonkeyPatch.context() as monkeypatch:
        model = a_model_that_answers(monkeypatch, {key: [*row, EOS] for key, row in answers.items()})
        figures = mt.evaluate(model, pairs)
        assert mt.translate(model, [source for source, _ in pairs]) == [answers[tuple(s)] for s, _ in pairs]
    exact, right, positions, of_length = [], 0, 0, {}
    for source, target in pairs:
        answer = answers[tuple(source)]
        exact.append(answer == target)
        of_length.setdefault(len(source), []).append(answer == target)
        for i in range(len(target) + 1):  # the last position is that of the end
            expected = target[i] if i < len(target) else "end"
            got = answer[i] if i < len(answer) else "end" if i == len(answer) else "nothing"
            right += got == expected
            positions += 1
    assert figures["n"] == len(pairs)
    assert figures["exact_match"] == pytest.approx(sum(exact) / len(exact), rel=1e-12)
    assert figures["token_accuracy"] == pytest.approx(right / positions, rel=1e-12)
    by_length = figures["exact_match_by_length"]
    assert list(by_length) == [str(length) for length in sorted(of_length)]
    for length, values in of_length.items():
        assert by_length[str(length)] == pytest.approx(sum(values) / len(values), rel=1e-12)


def test_an_answer_that_never_ends_is_not_exact(monkeypatch):
    """Right symbols up to the longest output, but no end after them."""
    model = a_model_that_answers(monkeypatch, {(3, 4): [5, 6, 5]}, max_len=3)
    figures = mt.evaluate(model, [([3, 4], [5, 6, 5])])
    assert figures["exact_match"] == 0
    assert figures["token_accuracy"] == pytest.approx(3 / 4)


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


def test_nothing_to_evaluate_is_refused():
    with pytest.raises(mt.InputError):
        mt.evaluate(random_model(7), [])


@pytest.mark.parametrize("source", [[3] * 80, [11], [-1]], ids=["too long", "unknown id", "negative id"])
def test_sources_that_the_model_cannot_read_are_refused(source):
    with pytest.raises(mt.InputError):
        mt.translate(random_model(8), [[3, 4], source])
