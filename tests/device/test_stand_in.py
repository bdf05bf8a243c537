"""Without a GPU: training, decoding and checkpoints compute all on the device that the parameters are on, with the
functions that CuPy has, and wait for it once a step. On the stand-in for CuPy of stand_in.py."""

from __future__ import annotations

import sys
from itertools import islice
from typing import Any

import numpy as np
import pytest
from one_stack_cases import V, random_prompts
from one_stack_cases import random_model as one_stack_model
from small_runs import small_run
from stand_in import DeviceArray, counts, on_host
from support import T_K, T_Q, V_SRC, B, random_ids, tiny_config

import minitransformer as mt
from minitransformer.inference.continuation import continuation
from minitransformer.inference.greedy import decode
from minitransformer.runs.weights import load_model
from minitransformer.training.batching import Batch, aligned_batch, joined_batch

# no attention_bias: b_K's gradient is 0 but for rounding, which Adam would magnify
CHANGES: list[dict[str, Any]] = [{}, {"norm": "pre", "positions": "learned", "activation": "gelu"}]


@pytest.fixture(params=["formulas", "kernels"])
def somewhere(request) -> str:
    """A device with kernels, and one without."""
    return request.getfixturevalue("device" if request.param == "formulas" else "with_kernels")


def batches(model: mt.Transformer, n: int) -> list[Batch]:
    rng = np.random.default_rng(4)
    V_tgt = model.config.tgt_vocab_size
    sizes = (T_K, V_SRC), (T_Q, V_tgt), (T_Q, V_tgt)
    ids = [[random_ids(rng, B, T, V) for T, V in sizes] for _ in range(n)]
    return [Batch(*rows, int((rows[2] != 0).sum())) for rows in ids]


def train_and_decode(device: str, keep: Any, dropout: float = 0.0, **changes: Any) -> list[np.ndarray]:
    """Three steps with clipping, the last with a restored optimizer; then translations. All that came out."""
    model = mt.Transformer(tiny_config(dropout=dropout, **changes), 3, "float64", device)
    loss_fn, adam, replicas = (
        mt.LabelSmoothedCrossEntropy(0.1),
        mt.Adam(model, weight_decay=0.1),
        mt.Replicas(model, 1, keep),
    )
    rng = np.random.default_rng(5)
    found: list[Any] = []
    for step, batch in enumerate(batches(model, 3), 1):
        waits = counts.waits
        found += mt.train_step(replicas, loss_fn, adam, [batch], 0.01 * step, 0.5, [rng])
        if device == "cuda":
            assert counts.waits == waits + 1
        assert type(model.flatten().grad) is type(adam.m) is (DeviceArray if device == "cuda" else np.ndarray)
        found.append(on_host(model.flatten().grad).copy())
        state = adam.state_dict()
        adam = mt.Adam(model, weight_decay=0.1)
        adam.load_state_dict(state)
    written = mt.greedy_decode(model, batch.src_ids, 1, 2, 9)
    drawn = mt.sample(model, batch.src_ids, rng, 0.8, top_k=7, top_p=0.9, max_len=9)
    found += [on_host(drawn).copy()]
    found += [np.array(h.score) for one in mt.beam_search(model, batch.src_ids, 3, max_len=9) for h in one]
    weights = model.state_dict()
    assert {type(x) for x in weights.values()} == {np.ndarray}
    model.load_state_dict(weights)
    return [*found, on_host(written), *state.values(), *weights.values()]


@pytest.mark.parametrize("keep", ["caches", "inputs"])
@pytest.mark.parametrize("changes", CHANGES)
def test_a_device_computes_what_the_cpu_does(somewhere, changes, keep):
    there, here = train_and_decode(somewhere, keep, **changes), train_and_decode("cpu", keep, **changes)
    for a, b in zip(there, here, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("changes", CHANGES)
def test_recomputed_activations_drop_the_same(somewhere, changes):
    caches, inputs = (train_and_decode(somewhere, keep, 0.3, **changes) for keep in ("caches", "inputs"))
    for a, b in zip(caches, inputs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_long_attention_in_blocks(somewhere, monkeypatch):
    monkeypatch.setattr(mt.layers.attention_in_blocks, "BLOCK_ON_GPU", 64)
    monkeypatch.setattr(mt.layers.attention_in_blocks, "QUERIES", 3)
    there, here = train_and_decode(somewhere, "caches"), train_and_decode("cpu", "caches")
    for a, b in zip(there, here, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13)


def test_decoding_waits_a_few_times_a_token(somewhere):
    model = mt.Transformer(tiny_config(), 3, device=somewhere)
    src_ids = random_ids(np.random.default_rng(1), B, T_K, V_SRC)
    counts.waits = 0
    mt.greedy_decode(model, src_ids, max_len=9)
    assert 0 < counts.waits <= 9 * 4
    counts.waits = 0
    mt.beam_search(model, src_ids, max_len=9)
    assert 0 < counts.waits <= 9 * 4


@pytest.mark.parametrize("n_layers", [1, 3])
def test_greedy_decoding_waits_twice_a_token_and_once_when_sentences_leave(somewhere, n_layers):
    """However many layers keep keys and values. Sentence i ends after i + 2 tokens, so each of these leaves."""
    model, cupy = mt.Transformer(tiny_config(n_layers=n_layers), 3, device=somewhere), sys.modules["cupy"]
    left, EOS, WORD = [2, 3, 4], 2, 7

    def choose(logits):
        left[:] = [n - 1 for n in left if n > 0]
        return cupy.asarray([EOS if n == 0 else WORD for n in left])

    src_ids = random_ids(np.random.default_rng(1), 3, T_K, V_SRC)
    counts.waits = 0
    ids = decode(model, src_ids, choose, 1, EOS, 9)
    assert on_host(ids).tolist() == [[7, 2, 0, 0], [7, 7, 2, 0], [7, 7, 7, 2]]
    assert counts.waits == 2 * 4 + 2  # are the tokens words of the vocabulary, how many go on; who leaves


def test_a_run_on_a_gpu_has_one_replica_whatever_its_settings_say(somewhere, tmp_path):
    for device, n in ((somewhere, 1), ("cpu", 2)):
        folder = mt.RunFolder(tmp_path / device)
        trainer = mt.Trainer(small_run(processes=2, steps=2), folder, device)
        trainer.run()
        assert len(trainer.replicas.models) == n
        assert folder.settings().training.processes == n  # where one would look


def test_a_run_on_a_device_resumes_on_the_cpu(somewhere, tmp_path):
    settings = small_run()
    folder = mt.RunFolder(tmp_path / "run")
    result = mt.Trainer(settings, folder, somewhere).run()
    assert result["gpu_memory_mb"] == 1
    here, there = load_model(folder), load_model(folder, somewhere)
    for a, b in zip(here.state_dict().values(), there.state_dict().values(), strict=True):
        np.testing.assert_array_equal(a, b)
    resumed = mt.Trainer(settings, folder)
    resumed.resume()
    assert resumed.step == 4 and type(resumed.model.flatten().data) is np.ndarray


def one_stack_results(family: str, device: str, keep: Any, **changes: Any) -> list[np.ndarray]:
    """Two steps of a model of one stack; then what it answers, and how it goes on from prompts."""
    model = one_stack_model(family, 3, dropout=0.0, **changes)
    model.to(device)
    loss_fn, adam, replicas = mt.LabelSmoothedCrossEntropy(0.1), mt.Adam(model), mt.Replicas(model, 1, keep)
    rng = np.random.default_rng(5)
    sources = [rng.integers(3, V, n).tolist() for n in (2, 6, 4)]
    batch = {"encoder-only": aligned_batch, "decoder-only": joined_batch}[family](
        [(s, s[::-1]) for s in sources]
    )
    if changes.get("pooling", "none") != "none":
        batch = aligned_batch([(source, source[:1]) for source in sources])
    found: list[Any] = []
    for _ in range(2):
        waits = counts.waits
        found += mt.train_step(replicas, loss_fn, adam, [batch], 0.01, 0.5, [rng])
        if device == "cuda":
            assert counts.waits == waits + 1
        assert type(model.flatten().grad) is (DeviceArray if device == "cuda" else np.ndarray)
        found.append(on_host(model.flatten().grad).copy())
    for beam in (1, 3):
        found += [np.array(answer) for answer in mt.translate(model, sources, beam)]
    if family == "decoder-only":
        prompts = random_prompts(4, [3, 6, 1])
        for bos_id, eos_id in ((1, 2), (None, None)):
            found.append(on_host(mt.greedy_decode(model, prompts, bos_id, eos_id, 5)))
            drawn = mt.sample(model, prompts, rng, 0.8, top_k=7, bos_id=bos_id, eos_id=eos_id, max_len=5)
            found.append(on_host(drawn))
            searched = mt.beam_search(model, prompts, 3, 0.6, bos_id, eos_id, 5)
            found += [np.array([*h.ids, h.score]) for one in searched for h in one]
        written = islice(continuation(model, sources[0], lambda logits: logits.argmax(-1)), 20)
        found.append(np.array(list(written)))
    return [*found, *model.state_dict().values()]


ONE_STACK: list[tuple[str, dict[str, Any]]] = [
    ("encoder-only", {"n_segments": 2, "embedding_norm": True, "head": "masked-lm", "activation": "gelu"}),
    ("encoder-only", {"pooling": "mean", "positions": "rotary", "count_source_from": "both"}),
    (
        "decoder-only",
        {"norm": "pre", "positions": "learned", "activation": "gelu_tanh", "scale_embedding": False},
    ),
    ("decoder-only", {"positions": "rotary", "d_k": 6}),
]


@pytest.mark.parametrize(("family", "changes"), ONE_STACK)
def test_a_device_computes_what_the_cpu_does_with_one_stack(somewhere, family, changes):
    there = one_stack_results(family, somewhere, "inputs", **changes)
    here = one_stack_results(family, "cpu", "caches", **changes)
    for a, b in zip(there, here, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("family", ["encoder-only", "decoder-only"])
def test_a_run_of_one_stack_on_a_device_resumes_on_the_cpu(somewhere, tmp_path, family):
    settings = small_run(family=family)
    folder = mt.RunFolder(tmp_path / "run")
    mt.Trainer(settings, folder, somewhere).run()
    here, there = load_model(folder), load_model(folder, somewhere)
    np.testing.assert_array_equal(here.flatten().data, on_host(there.flatten().data))
    resumed = mt.Trainer(settings, folder)
    resumed.resume()
    assert resumed.step == 4 and type(resumed.model.flatten().data) is np.ndarray


def test_decoding_after_prompts_waits_a_few_times_a_token(somewhere):
    model = one_stack_model("decoder-only", 3)
    model.to(somewhere)
    prompts = random_prompts(4, [3, 6, 1])
    for write in (mt.greedy_decode, mt.beam_search):
        counts.waits = 0
        write(model, prompts, bos_id=None, max_len=9)
        assert 0 < counts.waits <= 9 * 4 + 2  # the prompts, once


def test_the_first_weights_do_not_depend_on_the_device(device):
    there, here = (mt.Transformer(tiny_config(), 7, device=d).state_dict() for d in (device, "cpu"))
    for a, b in zip(there.values(), here.values(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_model_stays_on_its_device_in_another_dtype(device):
    here = mt.Transformer(tiny_config(), 7)
    there = mt.Transformer(tiny_config(), 7, device=device).to(dtype="float64")
    ids = random_ids(np.random.default_rng(1), B, T_Q, V_SRC)
    logits, _ = there.forward(ids, ids)
    assert type(logits) is DeviceArray
    np.testing.assert_allclose(on_host(logits), here.to(dtype="float64").forward(ids, ids)[0], rtol=1e-12)


def test_arrays_of_two_devices_are_refused_by_name(device):
    model, far = mt.Transformer(tiny_config(), 7), mt.Transformer(tiny_config(), 7, device=device)
    ids = random_ids(np.random.default_rng(1), B, T_Q, V_SRC)
    logits, cache = model.forward(ids, ids)
    far_logits, far_cache = far.forward(ids, ids)  # ids on the CPU are sent
    calls = {
        "src_ids": lambda: model.forward(sys.modules["cupy"].asarray(ids), ids),
        "tgt_in": lambda: model.forward(ids, sys.modules["cupy"].asarray(ids)),
        "dlogits": lambda: model.backward(far_logits, cache),
        "tgt_out": lambda: mt.LabelSmoothedCrossEntropy().forward(logits, sys.modules["cupy"].asarray(ids)),
    }
    for name, call in calls.items():
        with pytest.raises(mt.InputError, match=rf"^{name}: .*'cpu'.*'cuda'.*model.to\('cuda'\)"):
            call()
    far.backward(on_host(far_logits), far_cache)  # sent, too


def test_there_and_back(device):
    model = mt.Transformer(tiny_config(), 7)
    before = {name: x.copy() for name, x in model.state_dict().items()}
    model.to("cuda")
    assert {type(p.data) for p in model.parameters().values()} == {DeviceArray}
    model.to("cpu")
    assert {type(p.data) for p in model.parameters().values()} == {np.ndarray}
    for name, x in model.state_dict().items():
        np.testing.assert_array_equal(x, before[name])


def test_the_stand_in_refuses_what_cupy_refuses(device):
    cupy = sys.modules["cupy"]
    x = cupy.ones((2, 3))
    for made in (x + x, x @ x.T, cupy.exp(x), x.sum(0), x.sum(), x[0, 0], x.max(-1), 2 * x):
        assert type(made) is DeviceArray
    x += 1
    x[0] = 2.0
    for wrong in (lambda: np.exp(x), lambda: x + np.ones(3), lambda: np.where(x > 0, x, 0),
                  lambda: x.__setitem__(0, np.ones(3)), lambda: np.add(x, x, out=np.ones((2, 3))),
                  lambda: cupy.where(np.ones(3), x, 0), lambda: np.asarray(x), lambda: float(x.sum()),
                  lambda: int(x.sum()), lambda: bool(x.any()), lambda: list(x), lambda: x[np.array([0])],
                  lambda: cupy.zeros(3, like=x), lambda: x.sum(where=x > 0)):  # fmt: skip
        with pytest.raises(TypeError):
            print(wrong())
    assert np.isnan(on_host(cupy.empty((3, 4)))).all()
    for absent in (
        lambda: cupy.unravel_index,
        lambda: x.argsort,
        lambda: cupy.vecdot,
        lambda: x.item,
        lambda: x.tolist,
        lambda: cupy.einsum_path,
    ):
        with pytest.raises(AttributeError):
            absent()
    waits = counts.waits
    cupy.asnumpy(x)
    x[x > 0]
    assert counts.waits == waits + 2
