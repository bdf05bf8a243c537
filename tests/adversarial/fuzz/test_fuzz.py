"""Hostile input at every public door: it is used rightly, or refused with a documented exception.

The doors are the configurations, the model, decoding, the loss, the optimiser and the schedule, tasks, run folders
and the command line. Whatever value one of them is given, it raises nothing but a MinitransformerError (the
command line: one line on standard error, status 2), and what it accepts gives finite numbers. Warnings count as
errors. What is not promised: anything for objects that only this package makes and passes back (caches, decoder
states, models), and anything but Python's own TypeError for wrong argument names.

Of a layer is promised: sizes that make no sense raise something; finite numbers of moderate size (MODERATE below) give
finite numbers, forward and backward; softmax, log-softmax and the loss do so for finite numbers of any size. What is
given to a layer's forward is the matter of test_fuzz_layers.py, broken layers that of test_fuzz_gradcheck.py, strangers
in a run folder, streams and jobs that of test_fuzz_files.py.

Here each group of doors gets a few examples; HYPOTHESIS_PROFILE=fuzz gives it many, tests/adversarial/fuzz/run.py as
many as fit into the time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import io
import json
import math
import os
import pickle
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gradient_cases import CASES
from hostile import (
    ANYTHING,
    ARRAYS,
    HUGE,
    REFUSED,
    SCALARS,
    SMALL,
    TALLY,
    TEXT,
    TINY,
    VALUES,
    any_ids,
    attempt,
    finite,
    masks,
    mostly,
    numbers,
)
from hypothesis import given
from hypothesis import strategies as st
from support import V_SRC, V_TGT, randomise, tiny_config

import minitransformer as mt
from minitransformer.backend import silent_overflow
from minitransformer.cli import main
from minitransformer.config import DROPOUT_PLACES, PRESETS
from minitransformer.training.schedule import learning_rate
from minitransformer.validation.settings import between

MODERATE = {"float32": 1e8, "float64": 1e60}  # of the inputs of a layer: it multiplies up to four of them
FLOATS = st.sampled_from(["float32", "float64"])
MAX_LEN = 7


WORD = st.sampled_from(["pre", "learned", "target_output", "source_target", "cosine", "float64", "relu"])
OF_TYPE = {
    "int": st.integers(1, 12),
    "float": st.one_of(st.floats(0, 1), st.sampled_from([1e-30, 1e30])),
    "bool": st.booleans(),
    "str": WORD,
    "None": st.none(),
    "tuple[str, ...]": st.lists(st.sampled_from(DROPOUT_PLACES)),
}


@st.composite
def some_settings(draw: Any, *configs: type, hostile: st.SearchStrategy = VALUES) -> dict[str, Any]:
    """A few settings of these configs, most of them of the right type."""
    types = {field.name: field.type for config in configs for field in dataclasses.fields(config)}
    names = draw(st.lists(st.sampled_from([*types]), max_size=4, unique=True))
    good = {name: st.one_of(*[OF_TYPE[kind] for kind in types[name].split(" | ")]) for name in names}
    return {name: draw(mostly(good[name], mostly(hostile, HUGE))) for name in names}


# --- settings -------------------------------------------------------------------------------------------

SMALL_MODEL = {
    "src_vocab_size": 13,
    "tgt_vocab_size": 13,
    "n_layers": 1,
    "d_model": 8,
    "n_heads": 2,
    "d_ff": 5,
    "max_len": MAX_LEN,
}


def model_runs(config: mt.TransformerConfig, dtype: str) -> None:
    """The model is built, and its numbers are finite both ways."""
    model = mt.Transformer(config, 0, dtype)
    ids = np.full((2, min(3, config.max_len)), min(config.src_vocab_size, config.tgt_vocab_size) - 1)
    logits, cache = model.forward(ids, ids[:, :2], np.random.default_rng(0))
    model.backward(logits, cache)
    assert finite(logits, model.flatten().grad)


@given(some_settings(mt.TransformerConfig), FLOATS)
def test_model_settings(settings, dtype):
    config = attempt("TransformerConfig", lambda: mt.TransformerConfig(**{**SMALL_MODEL, **settings}))
    if config is not REFUSED:
        assert mt.TransformerConfig(**json.loads(json.dumps(dataclasses.asdict(config)))) == config
        model_runs(config, dtype)


@given(
    mostly(st.sampled_from([*PRESETS]), VALUES),
    mostly(st.integers(3, 50), VALUES),
    st.one_of(some_settings(mt.TransformerConfig), st.dictionaries(TEXT, VALUES, max_size=2)),
)
def test_presets(name, vocab_size, changes):
    changes.pop("name", None)
    config = attempt(
        "TransformerConfig.preset", lambda: mt.TransformerConfig.preset(name, vocab_size, **changes)
    )
    for preset in (mt.TransformerConfig.base, mt.TransformerConfig.big):
        attempt("TransformerConfig.base, .big", functools.partial(preset, vocab_size, **changes))
    assert config is REFUSED or name in PRESETS


@given(some_settings(mt.TrainingConfig), SMALL)
def test_training_settings(settings, step):
    config = attempt("TrainingConfig", lambda: mt.TrainingConfig(**{"learning_rate": 0.1, **settings}))
    if config is not REFUSED:
        steps = {1, config.warmup_steps, config.steps, min(max(1, step), config.steps)}
        assert all(0 <= learning_rate(t, 8, config) < math.inf for t in steps)


# --- the model ------------------------------------------------------------------------------------------


@functools.cache
def model_of(name: str, dtype: str) -> mt.Transformer:
    changes = {
        "post": {},
        "pre": {"norm": "pre", "positions": "learned", "tie_embeddings": False, "n_layers": 1},
        "bias": {"attention_bias": True, "dropout": 0.0, "n_layers": 1, "pad_id": 3},
    }
    return mt.Transformer(tiny_config(max_len=MAX_LEN, **changes[name]), 1, dtype)


MODELS = st.builds(model_of, st.sampled_from(["post", "pre", "bias"]), FLOATS)


@given(
    mostly(st.builds(mt.TransformerConfig, **{k: st.just(v) for k, v in SMALL_MODEL.items()}), VALUES),
    mostly(st.integers(0, 2**70), ANYTHING),
    mostly(FLOATS, ANYTHING),
    mostly(st.just("cpu"), VALUES),
)
def test_a_new_model(config, seed, dtype, device):
    model = attempt("Transformer", lambda: mt.Transformer(config, seed, dtype, device))
    if model is not REFUSED:
        logits, _ = model.forward([[3, 4]], [[1, 2, 3]])
        assert finite(logits) and logits.shape == (1, 3, 13)


@given(st.data(), MODELS, st.integers(1, 3), st.integers(1, MAX_LEN), st.integers(1, MAX_LEN))
def test_forward_and_backward(data, model, B, T_src, T_tgt):
    src_ids, tgt_in = data.draw(any_ids(V_SRC, (B, T_src))), data.draw(any_ids(V_TGT, (B, T_tgt)))
    generators = st.one_of(st.none(), st.builds(np.random.default_rng, st.integers(0, 9)))
    rng = data.draw(mostly(generators, VALUES))
    keep = data.draw(mostly(st.sampled_from(["caches", "inputs", "nothing"]), VALUES))
    answer = attempt("Transformer.forward", lambda: model.forward(src_ids, tgt_in, rng, keep))
    if answer is REFUSED:
        return
    logits, cache = answer
    assert logits.shape == (*np.shape(tgt_in), V_TGT) and logits.dtype == model.output.E.data.dtype
    assert finite(logits)
    model.zero_grad()
    good = numbers(logits.dtype, logits.shape, 1e6)
    kinds = st.sampled_from(["c8", "i4", "O", "U8", "?"])
    dlogits = data.draw(mostly(mostly(good, kinds.map(np.ones_like(logits).astype)), ANYTHING))
    if attempt("Transformer.backward", lambda: model.backward(dlogits, cache)) is REFUSED:
        assert not model.flatten().grad.any()
    else:
        assert np.shape(dlogits) == logits.shape and dlogits.dtype.kind in "bif"
        assert not finite(dlogits) or finite(model.flatten().grad)


@given(st.data(), MODELS, st.integers(1, 3), st.integers(1, MAX_LEN))
def test_decoding_by_steps(data, model, B, T_src):
    src_ids = data.draw(any_ids(V_SRC, (B, T_src)))
    max_len = data.draw(mostly(st.integers(1, MAX_LEN), ANYTHING))
    state = attempt("start_decoding", lambda: model.start_decoding(src_ids, max_len))
    if state is REFUSED:
        return
    for _ in range(3):
        ids = data.draw(any_ids(V_TGT, (data.draw(mostly(st.just(B), st.integers(1, 3))),)))
        length = state.length
        logits = attempt("decode_step", functools.partial(model.decode_step, ids, state))
        if logits is REFUSED:
            assert state.length == length
        else:
            assert state.length == length + 1 <= max_len
            assert finite(logits) and logits.shape == (len(np.asarray(src_ids)), V_TGT)


@given(st.data(), MODELS, st.integers(1, 3), st.integers(1, MAX_LEN))
def test_greedy_decode(data, model, B, T_src):
    src_ids = data.draw(any_ids(V_SRC, (B, T_src)))
    bos_id, eos_id = (data.draw(mostly(st.integers(0, V_TGT - 1), ANYTHING)) for _ in range(2))
    max_len = data.draw(mostly(st.integers(1, MAX_LEN), ANYTHING))
    ids = attempt("greedy_decode", lambda: mt.greedy_decode(model, src_ids, bos_id, eos_id, max_len))
    if ids is not REFUSED:
        assert ids.dtype.kind == "i" and len(ids) == len(np.asarray(src_ids)) and ids.shape[1] <= max_len
        assert 0 <= ids.min() <= ids.max() < V_TGT


@given(st.data(), MODELS, st.integers(1, 3), st.integers(1, MAX_LEN))
def test_beam_search(data, model, B, T_src):
    src_ids = data.draw(any_ids(V_SRC, (B, T_src)))
    beam, alpha = (data.draw(mostly(good, ANYTHING)) for good in (st.integers(1, 9), st.floats(0, 5)))
    bos_id, eos_id = (data.draw(mostly(st.integers(0, V_TGT - 1), ANYTHING)) for _ in range(2))
    max_len = data.draw(mostly(st.integers(1, MAX_LEN), ANYTHING))
    found = attempt(
        "beam_search", lambda: mt.beam_search(model, src_ids, beam, alpha, bos_id, eos_id, max_len)
    )
    if found is not REFUSED:
        assert len(found) == len(np.asarray(src_ids)) and all(1 <= len(of_one) <= beam for of_one in found)
        for of_one in found:
            assert [h.score for h in of_one] == sorted((h.score for h in of_one), reverse=True)
            assert finite([h.score for h in of_one])
            longest = np.max(np.asarray([*max_len] if hasattr(max_len, "__len__") else max_len))
            assert all(1 <= len(h.ids) <= longest and set(h.ids) <= set(range(V_TGT)) for h in of_one)


@given(st.data(), MODELS, st.integers(1, 3), st.integers(1, MAX_LEN))
def test_sample(data, model, B, T_src):
    src_ids = data.draw(any_ids(V_SRC, (B, T_src)))
    rng = data.draw(mostly(st.builds(np.random.default_rng, st.integers(0, 9)), VALUES))
    positive = st.floats(1e-37, 1e38)
    temperature, top_p = (data.draw(mostly(good, ANYTHING)) for good in (positive, st.floats(0.01, 1)))
    top_k, max_len = (data.draw(mostly(st.integers(1, MAX_LEN), ANYTHING)) for _ in range(2))
    ids = attempt(
        "sample", lambda: mt.sample(model, src_ids, rng, temperature, top_k, top_p, max_len=max_len)
    )
    if ids is not REFUSED:
        assert ids.dtype.kind == "i" and len(ids) == len(np.asarray(src_ids)) and ids.shape[1] <= max_len
        assert 0 <= ids.min() <= ids.max() < V_TGT


def hashable(x: Any) -> bool:
    try:
        return isinstance(hash(x), int)
    except TypeError:
        return False


@np.errstate(over="ignore")
def cast(x: Any, kind: str) -> Any:
    """x as another dtype; what is too large for it becomes infinite."""
    return x.astype(kind)


def changed(draw: Any, state: dict[str, Any]) -> Any:
    """`state` with an entry missing, one added, and some of another shape, type or value; or something else."""
    if draw(st.integers(0, 9)) == 0:
        return draw(ANYTHING)
    new = dict(state)
    for name in draw(st.lists(st.sampled_from([*state]), max_size=2)):
        x = np.asarray(state[name])
        casts = st.sampled_from("?bBeqfdgDOU").map(lambda kind, x=x: cast(x, kind))
        shapes = st.sampled_from([x[None], x.T, x.ravel(), x.tolist(), -x])
        new[name] = draw(st.one_of(casts, shapes, ANYTHING))
    for name in draw(mostly(st.just([]), st.lists(st.sampled_from([*new]), min_size=1, max_size=1))):
        del new[name]
    return new | draw(mostly(st.just({}), st.dictionaries(VALUES.filter(hashable), ANYTHING, max_size=1)))


@given(st.data(), MODELS)
def test_the_state_of_a_model(data, model):
    before = model.state_dict()
    state = changed(data.draw, before)
    if attempt("Transformer.load_state_dict", lambda: model.load_state_dict(state)) is REFUSED:
        expected = before
    else:
        expected = {name: np.asarray(state[name]).astype(x.dtype) for name, x in before.items()}
    for name, x in model.state_dict().items():
        np.testing.assert_array_equal(x, expected[name])
    model.load_state_dict(before)


# --- the loss -------------------------------------------------------------------------------------------


@given(st.data(), FLOATS, st.integers(1, 3), st.integers(1, 4), st.integers(1, 6))
def test_loss(data, dtype, B, T, V):
    """Logits of any finite size, up to the largest numbers of their type on both sides of zero."""
    eps_ls = data.draw(mostly(st.floats(0, 1, exclude_max=True), ANYTHING))
    pad_id = data.draw(mostly(st.integers(0, V), ANYTHING))
    loss_fn = attempt("LabelSmoothedCrossEntropy", lambda: mt.LabelSmoothedCrossEntropy(eps_ls, pad_id))
    if loss_fn is REFUSED:
        return
    logits = data.draw(mostly(numbers(dtype, (B, T, V)), ARRAYS))
    tgt_out = data.draw(any_ids(V, (B, T)))
    n_tokens = data.draw(mostly(st.none(), ANYTHING))
    with np.errstate(invalid="ignore"):  # where logits are not finite; where they are, NaN is seen below
        answer = attempt(
            "LabelSmoothedCrossEntropy.forward", lambda: loss_fn.forward(logits, tgt_out, n_tokens)
        )
    if answer is not REFUSED and finite(logits):
        loss, cache = answer
        dlogits = loss_fn.backward(cache)
        assert finite(loss, dlogits) and loss >= 0 and dlogits.dtype == loss.dtype == logits.dtype
        assert abs(dlogits).max() <= 1


# --- layers ---------------------------------------------------------------------------------------------


@given(st.data(), FLOATS, st.integers(1, 4), st.integers(1, 5))
def test_softmax_of_finite_scores_of_any_size(data, dtype, T_q, T_k):
    scores = data.draw(numbers(dtype, (T_q, T_k)))
    mask = data.draw(st.one_of(st.none(), masks((T_q, T_k))))
    weights = attempt("softmax", lambda: mt.layers.softmax(scores, mask))
    total = weights.sum(-1)
    allowed = np.ones(T_q, bool) if mask is None else np.broadcast_to(mask, (T_q, T_k)).any(-1)
    np.testing.assert_allclose(total, allowed, rtol=1e-6)
    dweights = data.draw(numbers(dtype, (T_q, T_k), 1e30))
    assert finite(attempt("softmax_backward", lambda: mt.layers.softmax_backward(dweights, weights)))
    log_p = attempt("log_softmax", lambda: mt.layers.log_softmax(scores))
    assert finite(log_p) and log_p.max() <= 0
    np.testing.assert_allclose(np.exp(log_p).sum(-1), 1, rtol=1e-6)


@given(st.data(), FLOATS, st.sampled_from([*CASES]))
def test_layers_of_finite_numbers(data, dtype, layer_class):
    """Every Module, on inputs in which huge, tiny and constant rows meet."""
    seed = data.draw(st.integers(0, 2**32 - 1))
    make = data.draw(st.sampled_from(CASES[layer_class]))
    rng = np.random.default_rng(seed)
    layer, inputs = make(rng)
    randomise(layer, rng).to(dtype=dtype)
    inputs = [
        data.draw(numbers(dtype, x.shape, MODERATE[dtype])) if x.dtype.kind == "f" else x for x in inputs
    ]
    entry = layer_class.__name__
    dropout = data.draw(st.sampled_from([None, np.random.default_rng(seed)]))
    y, cache = attempt(entry, lambda: layer.forward(*inputs, rng=dropout))
    assert finite(y) and y.dtype == dtype
    dy = rng.normal(size=y.shape).astype(dtype)
    dxs = attempt(f"{entry}.backward", lambda: layer.backward(dy, cache))
    assert finite(*([] if dxs is None else dxs if isinstance(dxs, tuple) else [dxs]))
    assert finite(*(p.grad for p in layer.parameters().values()))


@given(st.data(), FLOATS)
def test_attention_masks(data, dtype):
    Q, K, V = (np.ones(shape, dtype) for shape in ((2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 6)))
    mask = data.draw(mostly(masks((2, 3, 5, 7)), ANYTHING))
    attention = mt.layers.ScaledDotProductAttention()
    answer = attempt("ScaledDotProductAttention, mask", lambda: attention.forward(Q, K, V, mask))
    assert answer is REFUSED or finite(answer[0])
    assert answer is REFUSED or mask is None or mask.dtype == bool


LAYERS = [
    getattr(mt.layers, name) for name in mt.layers.__all__ if isinstance(getattr(mt.layers, name), type)
]


@given(st.data(), st.sampled_from(LAYERS))
def test_sizes_of_layers(data, layer_class):
    """Something is raised, or there is a layer of finite numbers."""
    size = mostly(st.integers(1, 9), st.one_of(SMALL, HUGE, st.floats(), st.none(), TEXT))
    parameters = list(inspect.signature(layer_class).parameters.values())
    arguments = [
        data.draw(size) for p in parameters if p.kind == p.POSITIONAL_OR_KEYWORD and p.name != "dtype"
    ]
    refusals = (TypeError, ValueError, ArithmeticError, MemoryError)
    layer = attempt(f"{layer_class.__name__}, sizes", lambda: layer_class(*arguments), refusals)
    if layer is not REFUSED:
        assert finite(*(p.data for p in layer.parameters().values()))


# --- optimiser and schedule -----------------------------------------------------------------------------


def linear(dtype: str) -> mt.Module:
    return mt.layers.Linear(3, 5, rng=0, dtype=dtype)


@given(st.data(), FLOATS)
def test_adam(data, dtype):
    model = linear(dtype)
    share = st.floats(0, 1, exclude_max=True)
    betas = data.draw(mostly(st.tuples(share, share), ANYTHING))
    adam_eps = data.draw(mostly(st.floats(1e-12, 1e3), ANYTHING))
    adam = attempt("Adam", lambda: mt.Adam(model, betas, adam_eps))
    if adam is REFUSED:
        return
    for _ in range(3):
        model.flatten().grad[...] = data.draw(numbers(dtype, (20,), 1e17))
        lr = data.draw(mostly(st.floats(0, 1e3), ANYTHING))
        before, t = model.flatten().data.copy(), adam.t
        wild = adam_eps < 1e-12 or between(lr, 1e3, math.inf)  # such a step may lead anywhere
        with silent_overflow() if wild else contextlib.nullcontext():
            if attempt("Adam.step", functools.partial(adam.step, lr)) is REFUSED:
                assert adam.t == t and np.array_equal(before, model.flatten().data)
            elif wild:
                return
        assert finite(model.flatten().data, adam.m, adam.v)


@given(st.data(), FLOATS)
def test_the_state_of_adam(data, dtype):
    model = linear(dtype)
    adam = mt.Adam(model)
    before = adam.state_dict()
    state = changed(data.draw, before)
    if attempt("Adam.load_state_dict", lambda: adam.load_state_dict(state)) is REFUSED:
        assert all(np.array_equal(x, before[name]) for name, x in adam.state_dict().items())
    elif finite(adam.m, adam.v):
        adam.step(0.1)
        assert finite(model.flatten().data)


@given(st.data(), FLOATS)
def test_clip_grad_norm(data, dtype):
    model = linear(dtype)
    before = data.draw(numbers(dtype, (20,), 1e17))
    model.flatten().grad[...] = before
    max_norm = data.draw(mostly(st.floats(1e-6, 1e6), ANYTHING))
    norm = attempt("clip_grad_norm", lambda: mt.clip_grad_norm(model, max_norm))
    after = model.flatten().grad
    if norm is REFUSED:
        np.testing.assert_array_equal(after, before)
    else:
        assert math.isfinite(norm) and finite(after)
        assert (np.sign(after) * np.sign(before) >= 0).all()
        assert max_norm is None or np.linalg.norm(after.astype(float)) <= max_norm * 1.0001


@given(*[mostly(st.integers(1, 2**40), ANYTHING)] * 3)
def test_noam_schedule(step, d_model, warmup_steps):
    lr = attempt("noam_schedule", lambda: mt.noam_schedule(step, d_model, warmup_steps))
    assert lr is REFUSED or 0 < lr <= 1


# --- gradcheck ------------------------------------------------------------------------------------------


@given(st.data())
def test_gradcheck(data):
    """Of inputs that the layer itself cannot take, whatever its forward raises is passed on."""
    layer, x = mt.layers.Linear(3, 2, rng=0), np.ones((2, 3))
    inputs = data.draw(mostly(st.just([x]), st.lists(ANYTHING, max_size=2)))
    of_layer = () if [*map(id, inputs)] == [id(x)] else (Exception,)
    options = {
        "method": mostly(st.sampled_from(["central", "complex"]), VALUES),
        "directional": mostly(st.sampled_from([None, True, False]), VALUES),
        "dropout_seed": mostly(st.integers(0, 9), VALUES),
        "seed": mostly(st.integers(0, 9), VALUES),
        "tolerance": mostly(st.none(), VALUES),
    }
    chosen = {name: data.draw(options[name]) for name in data.draw(st.lists(st.sampled_from([*options])))}
    report = attempt("gradcheck", lambda: mt.gradcheck(layer, *inputs, **chosen), of_layer)
    assert report is REFUSED or str(report)
    assert report is REFUSED or "tolerance" in chosen or of_layer or report.ok


# --- tasks ----------------------------------------------------------------------------------------------


@given(
    st.data(),
    st.sampled_from(
        [task for task in mt.tasks.TASKS.values() if task is not mt.tasks.Text]
    ),  # which needs files
)
def test_tasks(data, task_class):
    small = {"epoch_size": 7} | ({"text": __file__} if task_class is mt.tasks.Chars else {"test_size": 5})
    if issubclass(task_class, mt.tasks.SequenceTask):
        small |= {"min_length": 1, "max_length": 4, "longest": 0, "n_symbols": 9}
    settings = data.draw(some_settings(task_class))
    entry = task_class.__name__
    task = attempt(entry, lambda: task_class(**{**small, **settings}))
    if task is REFUSED:
        return
    V = attempt(f"{entry}.vocabulary", lambda: len(task.vocabulary))
    if V is REFUSED:
        return
    rng = np.random.default_rng(0)
    pairs = attempt(f"{entry}.training_pairs", lambda: task.training_pairs(rng))
    sets = attempt(f"{entry}.evaluation_sets", lambda: task.evaluation_sets(rng))
    for some in ([] if pairs is REFUSED else [pairs]) + ([] if sets is REFUSED else [*sets.values()]):
        if isinstance(task, mt.tasks.SequenceTask):
            longest = max(task.max_length, task.longest)
            assert all(task.min_length <= len(source) <= longest for source, _ in some)
        assert all(3 <= i < V for pair in some for side in pair for i in side)


@given(st.one_of(st.text(), VALUES, st.lists(st.sampled_from(["a", "b", "ü", "</s>", "7"])).map(" ".join)))
def test_encode(text):
    vocabulary = mt.tasks.Vocabulary(["a", "b", "ü"])
    ids = attempt("Vocabulary.encode", lambda: vocabulary.encode(text))
    assert ids is REFUSED or vocabulary.decode(ids).split() == text.split()


@given(st.one_of(st.lists(st.integers(0, 5)), st.lists(SCALARS), ANYTHING))
def test_decode(ids):
    text = attempt("Vocabulary.decode", lambda: mt.tasks.Vocabulary("abc").decode(ids))
    assert text is REFUSED or set(text.split()) <= {"<pad>", "<s>", "a", "b", "c"}


@given(st.data(), MODELS)
def test_translate(data, model):
    good = st.lists(st.lists(st.integers(0, V_SRC - 1), max_size=MAX_LEN), max_size=4)
    bad = st.one_of(st.lists(st.lists(SCALARS, max_size=4), max_size=4), ANYTHING)
    sources = data.draw(mostly(good, bad))
    answers = attempt("translate", lambda: mt.translate(model, sources))
    assert answers is REFUSED or len(answers) == len(sources)


# --- run folders ----------------------------------------------------------------------------------------

TASK = mt.tasks.Sort(n_symbols=6, min_length=2, max_length=4, epoch_size=5, test_size=3)
FEW = {"steps": 2, "warmup_steps": 1, "log_every": 1, "evaluate_every": 1, "batch_tokens": 30}


@functools.cache
def run_files() -> dict[str, bytes]:
    """The files of a finished run."""
    with tempfile.TemporaryDirectory() as path:
        mt.Trainer(mt.RunSettings.of(TASK, {**TINY, **FEW}), mt.RunFolder(path)).run(quiet())
        return {file.name: file.read_bytes() for file in Path(path).iterdir()}


def quiet() -> Any:
    from minitransformer.runs.progress import Progress

    return Progress(1, quiet=True)


@contextlib.contextmanager
def folder_of(files: dict[str, bytes]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as path:
        for name, content in files.items():
            Path(path, name).write_bytes(content)
        yield Path(path)


def read(path: Path) -> None:
    """All that reads a run folder."""
    run = mt.RunFolder(path)
    model = attempt("load_model", lambda: mt.load_model(run))
    if model is not REFUSED:
        with np.errstate(all="ignore"):  # weights that were damaged may have any size
            model.forward([[3]], [[1]])
    settings = attempt("RunFolder.settings", run.settings)
    attempt("RunFolder.metrics", run.metrics)
    if settings is not REFUSED and settings.training.steps <= 2:
        trainer = attempt("Trainer", lambda: mt.Trainer(settings, run))
        if trainer is not REFUSED and attempt("Trainer.resume", trainer.resume) is not REFUSED:
            attempt("Trainer.run, resumed", lambda: trainer.run(quiet()))


TOO_MUCH = st.sampled_from([b"[" * 99_999, b"9" * 9_999, b'{"a":' * 99_999, b""])  # for a JSON parser


def damaged(draw: Any, content: bytes) -> bytes:
    """Bytes of a file, some of them flipped, cut out or put in."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        kind = draw(st.sampled_from(["flip", "cut", "truncate", "insert", "random"]))
        if kind == "flip" and content:
            content = content[:at] + bytes([content[at] ^ 1 << draw(st.integers(0, 7))]) + content[at + 1 :]
        elif kind == "cut":
            content = content[:at] + content[at + draw(st.integers(1, 40)) :]
        elif kind == "truncate":
            content = content[:at]
        elif kind == "insert":
            content = content[:at] + draw(st.binary(min_size=1, max_size=8)) + content[at:]
        elif kind == "random":
            content = draw(st.one_of(st.binary(max_size=200), TOO_MUCH))
    return content


@given(st.data(), st.sampled_from(["config.json", "checkpoint-00000002.npz", "metrics.jsonl"]))
def test_damaged_files(data, name):
    files = run_files()
    content = damaged(data.draw, files[name])
    with folder_of({**files, name: content}) as path:
        read(path)


def npz(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def npy(x: Any) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(x))
    return file.getvalue()


HUGE_ARRAY = npy(np.zeros(100_000)).replace(b"(100000,), }   ", b"(10000000000000,), }")


NAME = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0"), max_size=10
)  # that a zip file can hold


@given(st.data())
def test_checkpoints_whole_but_wrong(data):
    """Well-formed files that hold something else: other arrays, pickles, no arrays at all, other numbers."""
    files = run_files()
    with np.load(io.BytesIO(files["checkpoint-00000002.npz"])) as checkpoint:
        arrays = dict(checkpoint)
    meta = json.loads(arrays.pop("meta.json").tobytes())
    meta = {**meta, "step": 1, "epoch": data.draw(SMALL), "index": data.draw(SMALL)}  # so that a step is left
    numbers_of_run = changed_json(data.draw, meta) if data.draw(st.booleans()) else meta
    members = {name + ".npy": npy(x) for name, x in arrays.items()}
    members["meta.json.npy"] = npy(np.frombuffer(json.dumps(numbers_of_run).encode(), np.uint8))
    for name in data.draw(st.lists(st.sampled_from([*members]), max_size=2, unique=True)):
        kind = data.draw(st.sampled_from(["array", "pickle", "text", "missing", "renamed", "huge"]))
        content = members.pop(name)
        if kind == "array":
            members[name] = npy(data.draw(ARRAYS))
        elif kind == "pickle":
            members[name] = pickle.dumps([1, 2])
        elif kind == "text":
            members[name] = damaged(data.draw, content)
        elif kind == "renamed":
            members["x" + data.draw(NAME) + ".npy"] = content
        elif kind == "huge":
            members[name] = HUGE_ARRAY
    with folder_of({**files, "checkpoint-00000003.npz": npz(members)}) as path:
        read(path)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), SMALL, HUGE, st.floats(), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=4,
)


def changed_json(draw: Any, value: Any) -> Any:
    """The value with something in it, at any depth, replaced, taken out or added."""
    if not isinstance(value, dict) or not value or draw(st.integers(0, 5)) == 0:
        return draw(JSON)
    new = dict(value)
    name = draw(st.sampled_from([*new]))
    kind = draw(st.sampled_from(["change", "change", "change", "drop", "add"]))
    if kind == "change":
        new[name] = changed_json(draw, new[name])
    elif kind == "drop":
        del new[name]
    else:
        new[draw(TEXT)] = draw(JSON)
    return new


@given(st.data())
def test_config_files_whole_but_wrong(data):
    files = run_files()
    config = changed_json(data.draw, json.loads(files["config.json"]))
    with folder_of({**files, "config.json": json.dumps(config).encode()}) as path:
        read(path)


@given(st.text(st.characters(exclude_characters="\n/"), max_size=20))
def test_paths(text):
    with tempfile.TemporaryDirectory() as path:
        attempt("load_model, path", lambda: mt.load_model(f"{path}/{text}"), (OSError,))


# --- the command line -----------------------------------------------------------------------------------


def command(entry: str, *arguments: str) -> None:
    """Runs the command in the current folder: status 0, or 2 and one line."""
    out, err = io.StringIO(), io.StringIO()

    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(list(arguments))
        except SystemExit as end:
            status = end.code or 0
    TALLY[entry][f"status {status}"] += 1
    assert status in (0, 2), status
    if status == 2:
        assert out.getvalue() == "", arguments
        *progress, line, end = err.getvalue().split("\n")
        assert end == "" and line.startswith("minitransformer: error: "), (arguments, err.getvalue())
        assert "train" in arguments or not progress, (arguments, err.getvalue())


@contextlib.contextmanager
def current_folder() -> Iterator[Path]:
    """A folder to work in, with a finished run in `run`."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as path:
        Path(path, "run").mkdir()
        for name, content in run_files().items():
            Path(path, "run", name).write_bytes(content)
        os.chdir(path)
        try:
            yield Path(path)
        finally:
            os.chdir(before)


# what an operating system can pass, without the way out of the folder, and without long numbers
ARGUMENT = st.text(st.characters(exclude_characters="\0/~.", exclude_categories=["Nd"]), max_size=10)
WORDS = [
    "train",
    "evaluate",
    "decode",
    "copy",
    "sort",
    "run",
    "1 2 3",
    "--set",
    "--out",
    "--resume",
    "--seed",
    "--",
]
WORDS += [
    "--config",
    "run/config.json",
    "--json",
    "--device",
    "cuda",
    "-1",
    "--help",
    "--version",
    "new",
    "d_ff=3",
]
TRAINING = [
    "steps=1",
    "epoch_size=5",
    "test_size=3",
    "n_symbols=6",
    "max_length=4",
    "min_length=2",
    "processes=1",
]
TRAINING += [f"{name}={value}" for name, value in {**TINY, **FEW}.items()]


@given(st.lists(st.one_of(st.sampled_from(WORDS), st.sampled_from(WORDS), ARGUMENT), max_size=6))
def test_any_arguments(arguments):
    if any(word in arguments for word in ("copy", "sort")):
        arguments = [*arguments, "--set", *TRAINING]
    with current_folder():
        command("the command line", *arguments)


CONFIGS = mt.TransformerConfig, mt.TrainingConfig, mt.tasks.Copy
SETTING = st.one_of(ARGUMENT, JSON.map(json.dumps), JSON.map(str), st.just("9" * 5000), st.just("[" * 9999))


@given(some_settings(*CONFIGS, hostile=SETTING), mostly(st.just([]), st.lists(ARGUMENT, max_size=2)))
def test_any_settings(settings, more):
    pairs = [
        f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in settings.items()
    ]
    with current_folder():
        command("train --set", "train", "copy", "--set", *TRAINING, *pairs, *more)


@given(st.data())
def test_any_config_file(data):
    settings = {name: value for name, _, value in (pair.partition("=") for pair in TRAINING)}
    changes = changed_json(data.draw, {name: json.loads(value) for name, value in settings.items()})
    raw = data.draw(
        mostly(st.just(json.dumps(changes).encode()), st.one_of(TOO_MUCH, st.binary(max_size=50)))
    )
    with current_folder() as path:
        (path / "settings.json").write_bytes(raw)
        command("train --config", "train", "copy", "--config", "settings.json", "--set", *TRAINING[:3])


@given(st.one_of(ARGUMENT, st.lists(st.sampled_from(["0", "3", "5", "9", "-1", "<s>"])).map(" ".join)))
def test_any_sequence(text):
    with current_folder():
        command("decode RUN SEQUENCE", "decode", "run", "--", text)


@given(st.data(), st.sampled_from(["config.json", "checkpoint-00000002.npz"]))
def test_commands_on_a_damaged_run(data, name):
    content = damaged(data.draw, run_files()[name])
    with current_folder():
        Path("run", name).write_bytes(content)
        command("evaluate a damaged run", "evaluate", "run")
        command("resume a damaged run", "train", "sort", "--out", "run", "--resume")
