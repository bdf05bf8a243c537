"""The loss, exact match and token accuracy, against loops over the pairs and the answers."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from messages import message_of
from one_stack_cases import random_model as one_stack_model
from support import V_SRC, V_TGT, randomise, tiny_config

import minitransformer as mt
from minitransformer.inference import translation as translation_module
from minitransformer.runs import evaluation
from minitransformer.runs.evaluation import cross_attention_sharpness
from minitransformer.tasks import BOS, EOS, PAD
from minitransformer.training.batching import make_batch

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


def test_nothing_to_evaluate_is_refused():
    model = mt.Transformer(tiny_config())
    assert (
        message_of(mt.InputError, mt.evaluate, model, [])
        == "expected at least one pair to evaluate, got none"
    )


def test_an_answer_too_few_is_no_matter_of_taste():
    for answers in ([[5, EOS]], [[5, EOS]] * 3):
        with pytest.raises(ValueError, match="zip"):
            evaluation.score(answers, [([3], [5])] * 2)


# ---- all the figures of a set


def model_and_pairs(n: int = 9):
    """Pairs of many lengths, so that much of their batches is padding; a model that knows nothing of them."""
    rng = np.random.default_rng(4)
    model = randomise(mt.Transformer(tiny_config(dropout=0.3)), rng)
    pairs = [
        (
            rng.integers(3, V_SRC, rng.integers(1, 7)).tolist(),
            rng.integers(3, V_TGT, rng.integers(1, 9)).tolist(),
        )
        for _ in range(n)
    ]
    return model, pairs


def nats_per_token(model, pairs) -> float:
    """-log p(token), for one pair after the other and one token after the other."""
    nats = n_tokens = 0
    for source, target in pairs:
        logits, _ = model.forward(np.array([[*source, EOS]]), np.array([[BOS, *target]]))
        for z, token in zip(logits[0].tolist(), [*target, EOS], strict=True):
            nats -= z[token] - math.log(sum(math.exp(z_i) for z_i in z))
            n_tokens += 1
    return nats / n_tokens


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("tokens", [10**6, 25])
def test_the_loss_of_a_set_is_the_mean_over_its_tokens_without_padding(monkeypatch, n, tokens):
    """In one batch, or in many."""
    monkeypatch.setattr(evaluation, "BATCH_TOKENS", tokens)
    model, pairs = model_and_pairs()
    figures = evaluation.measure(mt.Replicas(model, n), mt.tasks.Copy(), "test", pairs)
    assert figures["loss"] == pytest.approx(nats_per_token(model, pairs), rel=1e-12)


def test_padding_is_what_the_model_calls_so():
    model = randomise(mt.Transformer(tiny_config(pad_id=7)), np.random.default_rng(4))
    alone, padded = np.array([[3, 4]]), np.array([[3, 4, 7, 7]])
    losses = [
        evaluation.batch_losses(model, [mt.training.Batch(ids, ids, ids, 2)], 2)[0] for ids in (alone, padded)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-12) and losses[0] > 0


def test_a_batch_has_about_as_many_logits_as_memory_allows(monkeypatch):
    monkeypatch.setattr(evaluation, "LOGITS", 25 * V_TGT)
    model, pairs = model_and_pairs()
    replicas, shapes = mt.Replicas(model), []
    forward = model.forward

    def recorded(src_ids, tgt_in, **how):
        shapes.append(tgt_in.shape)
        assert how == {"keep": "nothing"}  # there will be no backward
        return forward(src_ids, tgt_in, **how)

    monkeypatch.setattr(model, "forward", recorded)
    evaluation.measure(replicas, mt.tasks.Copy(), "test", pairs)
    assert len(shapes) > 1 and max(rows * length for rows, length in shapes) <= 25


@pytest.mark.parametrize("settings", [(), (3,), (3, 0.9)])
def test_the_answers_are_greedy_unless_a_beam_is_asked_for_and_the_task_adds_its_figures(
    monkeypatch, settings
):
    model, pairs = model_and_pairs(2)

    def decode(*arguments):
        assert arguments == (
            model,
            [source for source, _ in pairs],
            *{0: (1, 0.6), 1: (3, 0.6)}.get(len(settings), settings),
        )
        return [[3, EOS], [*pairs[1][1], EOS]]

    class Judged(mt.tasks.Copy):
        def figures(self, name, answers):
            return {"judged": (name, answers)}

    monkeypatch.setattr(evaluation, "decode", decode)
    figures = evaluation.measure(mt.Replicas(model), Judged(), "valid", pairs, *settings)
    answers = [[3, EOS], [*pairs[1][1], EOS]]
    assert figures["judged"] == ("valid", answers) and figures["exact_match"] == 0.5
    assert figures.keys() == {"loss", "judged", *evaluation.score(answers, pairs)}


# ---- the sets of a task


@pytest.mark.parametrize(
    ("names", "expected"),
    [(["valid"], ["valid"]), (["valid", "test"], ["test"]), (["a", "valid", "b"], ["a", "b"])],
)
def test_the_sets_that_measure_a_model_are_those_that_did_not_steer_its_training(names, expected):
    assert evaluation.final_sets({name: [([3], [4])] for name in names}) == expected


class Sets(mt.tasks.Copy):
    """A task whose evaluation sets are given."""

    def evaluation_sets(self, rng):
        self.drawn.append(rng.random())
        return self.sets


def task_of(sets):
    task = Sets()
    object.__setattr__(task, "sets", sets)
    object.__setattr__(task, "drawn", [])
    return task


def test_the_held_out_sets_are_the_same_for_every_run():
    task = task_of({"valid": [([3], [4])], "test": [([3], [5])]})
    assert evaluation.held_out(task) is evaluation.held_out(task) is task.sets
    assert task.drawn == [mt.backend.generator(0).random()] * 2


@pytest.mark.parametrize(
    ("sets", "name"),
    [
        ({"test": [([3], [4])]}, "valid"),
        ({"valid": []}, "valid"),
        ({"valid": [([3], [4])], "test": []}, "test"),
    ],
)
def test_a_set_without_pairs_is_refused(sets, name):
    expected = f"task copy: expected pairs in the evaluation set {name!r}, got none"
    assert message_of(mt.InputError, evaluation.held_out, task_of(sets)) == expected


def sharpness_of(model, pairs):
    batch = make_batch(pairs)
    _, cache = model.forward(batch.src_ids, batch.tgt_in)
    return cross_attention_sharpness(cache, batch), cache, batch


def test_attention_to_all_tokens_alike_has_sharpness_0_and_to_one_alone_1():
    model = mt.Transformer(tiny_config(), 3, "float64")
    pairs = [([5, 6, 7], [5, 6]), ([8, 5], [6, 7, 8, 9]), ([5], [6])]
    for layer in model.decoder.layers:
        layer.cross_attention.W_Q.data[...] = 0
    assert sharpness_of(model, pairs)[0] == pytest.approx(0, abs=1e-12)
    for layer in model.decoder.layers:
        layer.cross_attention.W_Q.data = np.random.default_rng(1).normal(size=layer.cross_attention.W_Q.shape)
        layer.cross_attention.W_K.data = 1e6 * layer.cross_attention.W_K.data
    assert sharpness_of(model, pairs)[0] == pytest.approx(1, abs=1e-3)


def test_sharpness_is_one_minus_entropy_over_its_largest_value():
    """Token by token, head by head, in plain loops."""
    model = mt.Transformer(tiny_config(), 3, "float64")
    for layer in model.decoder.layers:
        layer.cross_attention.W_K.data = 4 * layer.cross_attention.W_K.data
    got, cache, batch = sharpness_of(model, [([5, 6, 7], [5, 6]), ([8], [6, 7, 8, 9])])
    found = []
    for layer in cache.decoder.layers:
        weights = layer.cross_attention.attention.all_weights()
        for b, h, t in np.ndindex(weights.shape[:3]):
            if batch.tgt_out[b, t] != 0:
                p = weights[b, h, t][weights[b, h, t] > 0]
                found.append(1 + (p * np.log(p)).sum() / np.log((batch.src_ids[b] != 0).sum()))
    assert 0.01 < got == pytest.approx(np.mean(found), rel=1e-12)


# ---- models of one stack


def one_stack_figures(family, pairs, n=1, seed=3, **changes):
    model = one_stack_model(family, seed, **changes)
    replicas = mt.Replicas(model, n)
    with replicas.processes():
        return model, evaluation.measure(replicas, mt.tasks.Sort(), "valid", pairs)


@pytest.mark.parametrize("n", [1, 2])
def test_figures_of_a_decoder_alone(n):
    rng = np.random.default_rng(4)
    pairs = [tuple(rng.integers(3, 13, rng.integers(1, 7)).tolist() for _ in range(2)) for _ in range(9)]
    model = one_stack_model("decoder-only", 1)
    pairs[:4] = [(source, mt.translate(model, [source])[0]) for source, _ in pairs[:4]]  # which are right
    model, figures = one_stack_figures("decoder-only", pairs, n, seed=1)
    nats = n_tokens = n_right = 0
    for source, target in pairs:
        read = [*source, EOS, BOS]
        logits = model.forward([[*read, *target]])[0][0, len(read) - 1 :]
        p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        nats -= np.log(p[range(len(p)), [*target, EOS]]).sum()
        n_tokens += len(target) + 1
        n_right += mt.translate(model, [source])[0] == target
    assert figures["loss"] == pytest.approx(nats / n_tokens, rel=1e-10)
    assert n_right == 4
    assert figures["exact_match"] == n_right / 9 and figures["n"] == 9


@pytest.mark.parametrize("n", [1, 2])
def test_figures_of_an_encoder_alone(n):
    """Answers are right by construction, but for one symbol in each of some."""
    rng = np.random.default_rng(4)
    sources = [rng.integers(3, 13, length).tolist() for length in (1, 4, 4, 9, 16, 2)]
    model = one_stack_model("encoder-only", 3)
    pairs, nats, wrong = [], 0.0, {1, 3}
    for i, source in enumerate(sources):
        logits = model.forward([source])[0][0]
        target = np.where(logits.argmax(-1) == 0, 5, logits.argmax(-1)).tolist()
        if i in wrong:
            target[-1] = 3 + target[-1] % 10
        p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        nats -= np.log(p[range(len(p)), target]).sum()
        pairs.append((source, target))
    _, figures = one_stack_figures("encoder-only", pairs, n)
    answers = mt.translate(model, sources)
    right = [answer == target for answer, (_, target) in zip(answers, pairs, strict=True)]
    assert 0 < sum(right) <= 4
    assert figures["exact_match"] == sum(right) / 6
    assert figures["loss"] == pytest.approx(nats / 36, rel=1e-10)
    equal = sum(
        a == b
        for answer, (_, target) in zip(answers, pairs, strict=True)
        for a, b in zip(answer, target, strict=True)
    )
    assert figures["token_accuracy"] == (equal + 6) / (36 + 6)  # each end is right
