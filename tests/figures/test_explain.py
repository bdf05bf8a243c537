"""The page of a model: its data are what the library computes for this sentence pair."""

import base64
import json

import numpy as np
import pytest
from drawn_models import TASK, model_that_ends, random_model

import minitransformer as mt
from minitransformer.figures import explain
from minitransformer.figures.boxes import steps_of
from minitransformer.figures.recording import record

SOURCE, TARGET = [3, 8, 5, 9, 3], [6, 7, 8]


def data_of(page):
    return json.loads(page.text.split('id="data">')[1].split("</script>")[0])


def numbers(data, index):
    content = np.frombuffer(base64.b64decode(data["arrays"][index]), "u1").reshape(-1, 3)
    return np.pad(content, ((0, 0), (1, 0))).view("<f4").ravel()


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_the_pages_numbers_are_the_librarys(norm):
    model = random_model(1, norm=norm)
    data = data_of(mt.figures.explain(model, SOURCE, TARGET))
    recording = record(model, [*SOURCE, 2], [1, *TARGET], [*TARGET, 2])
    boxes = {box["path"]: {pair["name"]: pair for pair in box["pairs"]} for box in data["boxes"]}
    for layer in range(2):
        path = f"decoder.layers.{layer}.cross_attention"
        for name, side, expected in (
            ("weights", "forward", recording.call(f"{path}.attention").cache.weights),
            ("K", "backward", recording.call(f"{path}.attention").dinputs[1]),
            ("out", "backward", recording.call(path).dy),
        ):
            pair = boxes[path][name]
            assert pair["shape"] == list(expected.shape[1:])
            np.testing.assert_allclose(numbers(data, pair[side]), expected.ravel(), rtol=2**-16)
    assert data["loss"] == recording.loss
    assert np.mean(data["losses"]) == pytest.approx(recording.loss, rel=1e-12)
    for got, (name, parameter) in zip(data["parameters"], recording.model.parameters().items(), strict=True):
        assert got["name"] == name and got["shape"] == list(parameter.shape)
        assert got["norm"] == pytest.approx(np.linalg.norm(parameter.grad.ravel()), rel=1e-12)
        assert got["largest"] == parameter.grad[tuple(got["at"])]
        assert abs(got["largest"]) == abs(parameter.grad).max()
        assert got["error"] is None
        assert got["token"] == (str(got["at"][0]) if name == "src_embedding.embedding.E" else None)


def test_the_likeliest_tokens_are_the_largest_probabilities():
    model = random_model(1)
    data = data_of(explain(model, SOURCE, TARGET, TASK.vocabulary.symbols))
    logits, _ = model.forward([[*SOURCE, 2]], [[1, *TARGET]])
    p = np.exp(logits[0]) / np.exp(logits[0]).sum(-1, keepdims=True)
    for t, likeliest in enumerate(data["likeliest"]):
        expected = sorted(zip(p[t], TASK.vocabulary.symbols, strict=True), reverse=True)[:5]
        assert [text for text, _ in likeliest] == [text for _, text in expected]
        np.testing.assert_allclose([x for _, x in likeliest], [x for x, _ in expected], rtol=1e-12)
        assert data["losses"][t] == pytest.approx(-np.log(p[t, [*TARGET, 2][t]]), rel=1e-12)


def test_the_strip_leads_from_the_loss_to_both_embeddings():
    for norm in ("post", "pre"):
        strip = data_of(explain(random_model(1, norm=norm), SOURCE, TARGET))["strip"]
        places = [step["place"] for step in strip]
        assert places[:2] == ["loss", "output"] and places[-1] == "src_embedding.embedding"
        assert places.index("memory") == places.index("tgt_embedding.embedding") + 1
        branches = [step for step in strip if "branch" in step]
        assert len(branches) == 2 * (2 + 3)
        for step in branches:  # the triangle inequality, from both sides
            assert abs(step["skip"] - step["branch"]) <= step["total"] * (1 + 1e-12)
            assert step["total"] <= (step["skip"] + step["branch"]) * (1 + 1e-12)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_the_strip_has_the_norms_of_each_step(norm):
    model = random_model(1, norm=norm)
    found = {s["place"]: s for s in data_of(explain(model, SOURCE, TARGET))["strip"] if "branch" in s}
    recording = record(model, [*SOURCE, 2], [1, *TARGET], [*TARGET, 2])
    steps = [step for stack in ("decoder", "encoder") for step in steps_of(recording, stack)]
    assert found.keys() == {step.path for step in steps}
    for step in steps:
        of_step = found[step.path]
        assert of_step["skip"] == pytest.approx(np.linalg.norm(step.skip)) != of_step["branch"]
        assert of_step["branch"] == pytest.approx(np.linalg.norm(step.branch))


def test_the_page_knows_what_its_formulas_depend_on():
    model = data_of(explain(random_model(1, positions="rotary", d_k=4), SOURCE, TARGET))["model"]
    assert (model["positions"], model["activation"], model["attention_bias"]) == ("rotary", "relu", False)


def test_without_a_target_it_is_the_models_answer():
    model = model_that_ends("3 1 4")
    source = TASK.vocabulary.encode("3 1 4")
    data = data_of(explain(model, source, symbols=TASK.vocabulary.symbols))
    answer = TASK.vocabulary.decode(mt.translate(model, [source])[0]).split()
    assert data["tokens"]["written"] == data["tokens"]["answer"] == [*answer, "</s>"]
    assert data["tokens"]["source"] == ["3", "1", "4", "</s>"]
    assert data["tokens"]["target"] == ["<s>", *answer]
    other = data_of(explain(model, source, TARGET, TASK.vocabulary.symbols))["tokens"]
    assert other["answer"] == [*answer, "</s>"] != other["written"] == ["3", "4", "5", "</s>"]


def test_an_answer_of_the_greatest_length_is_shown_without_an_end():
    model = next(m for m in map(random_model, range(40)) if len(mt.translate(m, [[3, 4]])[0]) == 13)
    tokens = data_of(explain(model, [3, 4]))["tokens"]
    assert len(tokens["written"]) == len(tokens["target"]) == 13 and tokens["written"][-1] != "2"


def test_padding_in_an_answer_has_no_loss():
    """A model that has learned little may write padding."""
    model = random_model(19)
    assert mt.translate(model, [SOURCE])[0] == [0] * 13
    with pytest.raises(mt.InputError, match=r"answer is only padding.*choose a target"):
        explain(model, SOURCE)
    some = next(m for m in map(random_model, range(40)) if {0} < set(mt.translate(m, [[3, 4]])[0]))
    data = data_of(explain(some, [3, 4]))
    losses = [
        loss for loss, text in zip(data["losses"], data["tokens"]["written"], strict=True) if text != "0"
    ]
    assert 0 < len(losses) < len(data["losses"]) and sum(data["losses"]) == sum(losses)
    assert data["loss"] == pytest.approx(np.mean(losses), rel=1e-12)


def test_caches_count_an_array_once():
    model = random_model(2)
    data = data_of(explain(model, SOURCE, TARGET))
    kept = {box["path"]: {name: n for name, _, n in box["cache"]} for box in data["boxes"]}
    own = kept["encoder.layers.0.self_attention"]
    assert own["query"] == 6 * 12 * 8 and own["key"] == own["value"] == 0
    assert own["attention.weights"] == 3 * 6 * 6 * 8 and own["attention.dropped"] == 0
    cross = [kept[f"decoder.layers.{i}.cross_attention"]["key"] for i in range(2)]
    assert cross == [6 * 12 * 8, 0]  # the encoder's output, once for all layers


def test_chosen_layers():
    model = random_model(2)
    all_of_them = data_of(explain(model, SOURCE, TARGET))
    some = data_of(explain(model, SOURCE, TARGET, layers=[2, 2]))
    assert all_of_them["layers"] == [0, 1] and some["layers"] == [1]
    assert {box["layer"] for box in some["boxes"]} == {None, 1}
    assert some["strip"] == all_of_them["strip"] and some["parameters"] == all_of_them["parameters"]
    for wrong in ([0], [3], [], ["1"], 1):
        with pytest.raises(mt.InputError, match=r"layers: expected .*numbers of layers, 1 … 2"):
            explain(model, SOURCE, TARGET, layers=wrong)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_checked_gradients_agree_with_complex_steps(norm):
    data = data_of(explain(random_model(4, norm=norm), SOURCE, TARGET, check=True))
    errors = [parameter["error"] for parameter in data["parameters"]]
    assert 0 < max(errors) < 1e-12


def test_a_wrong_gradient_is_not_called_checked(monkeypatch):
    backward = mt.layers.FeedForward.backward

    def wrong(self, dy, cache):
        dx = backward(self, dy, cache)
        self.W_1.grad *= 1.001
        return dx

    monkeypatch.setattr(mt.layers.FeedForward, "backward", wrong)
    errors = {
        p["name"]: p["error"]
        for p in data_of(explain(random_model(4), SOURCE, TARGET, check=True))["parameters"]
    }
    assert errors["decoder.layers.1.feed_forward.W_1"] > 1e-5
    assert errors["decoder.layers.1.feed_forward.W_2"] < 1e-12


@pytest.mark.parametrize("ids", [[], [3, 99], [3, -1], [3, 2], [0, 3], [1], ["3"], 3, [[3, 4]], [3] * 40])
def test_ids_that_cannot_be_used_are_refused(ids):
    model = random_model(4)
    with pytest.raises(mt.InputError):
        explain(model, ids, TARGET)
    with pytest.raises(mt.InputError):
        explain(model, SOURCE, ids)


def test_other_arguments_that_cannot_be_used_are_refused():
    with pytest.raises(mt.InputError, match="symbols: expected one for each of 10 ids, got 2"):
        explain(random_model(4), SOURCE, TARGET, symbols=["a", "b"])
    with pytest.raises(mt.InputError, match="expected a Transformer"):
        explain(mt.layers.Linear(3, 3), SOURCE, TARGET)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_the_page_of_a_toy_model_and_twenty_tokens_is_below_one_and_a_half_megabytes(norm):
    config = mt.TransformerConfig.preset("toy", 13, norm=norm)
    nineteen = list(range(3, 13)) + list(range(3, 12))
    page = explain(mt.Transformer(config, seed=0), nineteen, nineteen, check=True)
    assert 500_000 < len(page.text.encode()) < 1_500_000


def test_explaining_leaves_the_model_alone():
    model = random_model(3)
    before = model.flatten().data.copy(), model.flatten().grad.copy()
    explain(model, SOURCE, TARGET, check=True)
    np.testing.assert_array_equal(model.flatten().data, before[0])
    np.testing.assert_array_equal(model.flatten().grad, before[1])
