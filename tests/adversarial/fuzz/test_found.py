"""What the fuzz tests found, each as a plain test: values that got past a door, or through it with a traceback."""

from __future__ import annotations

import json
import math
import os
import zipfile

import numpy as np
import pytest
from hostile import TINY
from support import tiny_config

import minitransformer as mt
from minitransformer.cli import main
from minitransformer.parallel.job import LAUNCHERS, place_in_job
from minitransformer.runs.checkpoint import load_checkpoint
from minitransformer.runs.progress import Progress

HUGE = 10**400  # an integer that no float can hold
SMALL = {"src_vocab_size": 13, "tgt_vocab_size": 13, "d_model": 8, "n_heads": 2}
FEW = {"steps": 2, "warmup_steps": 1, "log_every": 1, "evaluate_every": 1, "batch_tokens": 30}
TASK = mt.tasks.Sort(n_symbols=6, min_length=2, max_length=4, epoch_size=5, test_size=3)
IDS = np.array([[3, 4, 5], [6, 7, 0]])


@pytest.fixture
def model():
    return mt.Transformer(tiny_config())


@pytest.fixture
def run(tmp_path):
    """The folder of a finished run."""
    mt.Trainer(mt.RunSettings.of(TASK, {**TINY, **FEW}), mt.RunFolder(tmp_path / "run")).run(
        Progress(2, quiet=True)
    )
    return tmp_path / "run"


# --- settings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"d_model": 10**30},  # NumPy has no array of that size, and says so deep inside
        {"max_len": 2**40},
        {"d_k": 2**62, "d_v": 2},
        {"eps": HUGE},
        {"eps": math.inf},  # LayerNorm then forgets its input
        {"eps": 1e-60},  # 0 in float32: a constant row would be 0 / 0
        {"dropout_on": [np.zeros(2)]},
    ],
    ids=repr,
)
def test_model_settings_that_cannot_be_computed_with(settings):
    with pytest.raises(mt.ConfigError, match=next(iter(settings))) as raised:
        mt.TransformerConfig(**{**SMALL, **settings})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "settings",
    [{"warmup_steps": HUGE}, {"learning_rate": HUGE}, {"adam_eps": 1e-60}, {"clip_norm": 1e300}],
    ids=repr,
)
def test_training_settings_that_cannot_be_computed_with(settings):
    with pytest.raises(mt.ConfigError, match=next(iter(settings))):
        mt.TrainingConfig(**settings)


@pytest.mark.parametrize(
    "settings",
    [{"n_symbols": 10**12}, {"first_symbol": 2**62}, {"longest": 2**40}],
    ids=repr,
)
def test_tasks_too_large_for_memory(settings):
    with pytest.raises(mt.ConfigError, match=next(iter(settings))):
        mt.tasks.Reverse(**settings)


# --- the model ------------------------------------------------------------------------------------------


def test_a_model_of_something_else_than_a_config():
    with pytest.raises(mt.ConfigError, match="config: expected a TransformerConfig"):
        mt.Transformer(SMALL)


@pytest.mark.parametrize("dtype", [None, "f4,(", {"names": ["a"], "formats": []}], ids=repr)
def test_a_dtype_that_numpy_does_not_know_or_takes_for_another(dtype):
    with pytest.raises(mt.ConfigError, match="dtype"):
        mt.Transformer(tiny_config(), dtype=dtype)


@pytest.mark.parametrize("seed", ["one", 1.5, math.inf, [1], np.timedelta64(3, "s")], ids=repr)
def test_a_seed_that_is_no_integer(seed):
    with pytest.raises(mt.ConfigError, match="seed"):
        mt.Transformer(tiny_config(), seed)


def test_an_rng_that_is_a_seed(model):
    with pytest.raises(mt.InputError, match="rng: expected a random generator"):
        model.forward(IDS, IDS, rng=0)


@pytest.mark.parametrize(
    "change", [np.transpose, np.ravel, lambda x: x.tolist(), lambda x: x * 1j, lambda x: x.astype(str)]
)
def test_gradients_that_are_not_those_of_the_logits(model, change):
    """Transposed, they used to be added up at the wrong positions."""
    logits, cache = model.forward(IDS, IDS[:, :2])
    with pytest.raises(mt.InputError, match="dlogits"):
        model.backward(change(logits), cache)
    assert not model.flatten().grad.any()


@pytest.mark.parametrize("max_len", [2.5, None, "3", True])
def test_a_length_that_is_no_integer(model, max_len):
    with pytest.raises(mt.InputError, match="max_len"):
        model.start_decoding(IDS, max_len)
    with pytest.raises(mt.InputError, match="max_len"):
        mt.greedy_decode(model, IDS, max_len=max_len)


@pytest.mark.parametrize("ids", [3, [[3], [4, 5]], None, "ab"], ids=repr)
def test_a_step_of_something_else_than_a_row_of_ids(model, ids):
    state = model.start_decoding(IDS, 3)
    with pytest.raises(mt.InputError, match="ids"):
        model.decode_step(ids, state)


@pytest.mark.parametrize(
    "options", [{"bos_id": None}, {"bos_id": 1.0}, {"eos_id": 2.5}, {"eos_id": "2"}], ids=repr
)
def test_symbols_that_are_no_integers(model, options):
    """A model would never write 2.5, and never end."""
    with pytest.raises(mt.InputError, match=next(iter(options))):
        mt.greedy_decode(model, IDS, max_len=3, **options)


@pytest.mark.parametrize("state", [None, "lists"], ids=repr)
def test_a_state_of_something_else_than_arrays(model, state):
    state = {name: x.tolist() for name, x in model.state_dict().items()} if state == "lists" else state
    with pytest.raises(mt.CheckpointError):
        model.load_state_dict(state)


# --- layers ---------------------------------------------------------------------------------------------

NORMS = [mt.layers.LayerNorm, mt.layers.RMSNorm, mt.layers.BatchNorm, mt.layers.InstanceNorm]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", [(2, 3, 1), (1,), (2, 3, 7)])
def test_features_that_a_norm_does_not_have(norm, shape):
    """A single one used to be broadcast to all of gamma's, and dx had another shape than x."""
    with pytest.raises(mt.InputError, match="x: expected 8 features on the last axis"):
        norm(8).forward(np.ones(shape))


def test_sums_that_would_broadcast():
    x = np.ones((2, 3, 8))
    for s in (x[:1], x[:, :1], x[..., :1], x[None], np.float64(2)):
        with pytest.raises(mt.InputError, match="x, s: expected two arrays of one shape"):
            mt.layers.AddNorm(8, 0.0).forward(x, s)
    for positions in (mt.layers.SinusoidalPositions(9, 8), mt.layers.LearnedPositions(9, 8)):
        for odd in (x[..., :1], x[None], x[0]):
            with pytest.raises(mt.InputError, match="x: expected"):
                positions.forward(odd)


def test_arrays_that_compute_by_other_rules(model):
    """A masked array used to pass, and to fail in backward."""
    x, ids = np.ma.masked_array(np.ones((2, 3, 8))), np.ma.masked_array(IDS, IDS == 0)
    with pytest.raises(
        mt.InputError, match="x: expected an array of floating-point numbers, got a MaskedArray"
    ):
        mt.layers.LayerNorm(8).forward(x)
    with pytest.raises(mt.InputError, match=r"mask: expected booleans .* got a MaskedArray"):
        mt.layers.softmax(np.ones((2, 3)), np.ma.masked_array(np.ones((2, 3), bool)))
    with pytest.raises(mt.InputError, match="src_ids: expected a plain array, got a MaskedArray"):
        model.forward(ids, IDS)
    with pytest.raises(mt.InputError, match="logits: expected floating-point numbers"):
        mt.LabelSmoothedCrossEntropy().forward(memoryview(np.ones((1, 1, 3))), [[1]])


def test_an_attention_of_complex_queries_and_real_keys():
    Q = np.ones((1, 1, 2, 3))
    for attention in (mt.layers.ScaledDotProductAttention(), mt.layers.AttentionInBlocks()):
        with pytest.raises(mt.InputError, match="Q, K, V: expected all real, or all complex"):
            attention.forward(Q + 0j, Q, Q)


# --- loss, optimiser, schedule --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("eps_ls", [0.0, 0.1])
def test_the_loss_of_the_largest_logits_there_are(dtype, eps_ls):
    largest = np.finfo(dtype).max
    logits = np.array([[[largest, -largest, 0.0], [-largest, largest, largest]]], dtype)
    loss, cache = mt.LabelSmoothedCrossEntropy(eps_ls, pad_id=9).forward(logits, np.array([[1, 2]]))
    assert np.isfinite(loss) and np.isfinite(cache.dlogits).all()
    smooth = (1 - eps_ls) + eps_ls / 3
    expected = np.array([[[1, 0, 0], [0, 0.5, 0.5]]]) - eps_ls / 3
    expected[0, 0, 1] -= smooth - eps_ls / 3
    expected[0, 1, 2] -= smooth - eps_ls / 3
    np.testing.assert_allclose(cache.dlogits, expected / 2, rtol=1e-6, atol=1e-7)


def test_the_softmax_of_the_largest_scores_there_are():
    largest = np.finfo("float32").max
    scores = np.array([[largest, -largest, largest], [-largest, -largest, 0]], "float32")
    np.testing.assert_array_equal(mt.layers.softmax(scores), [[0.5, 0, 0.5], [0, 0, 1]])
    assert np.isfinite(mt.layers.log_softmax(scores)).all()


@pytest.mark.parametrize(
    "settings", [{"eps_ls": "0.1"}, {"eps_ls": None}, {"pad_id": None}, {"pad_id": 0.5}], ids=repr
)
def test_settings_of_the_loss_that_are_no_numbers(settings):
    with pytest.raises(mt.MinitransformerError, match=next(iter(settings))):
        mt.LabelSmoothedCrossEntropy(**settings)


@pytest.mark.parametrize("logits", [[[[1.0, 2.0]]], np.float32(3), np.zeros((1, 1, 2), bool), None], ids=repr)
def test_logits_that_are_none(logits):
    with pytest.raises(mt.InputError, match="logits"):
        mt.LabelSmoothedCrossEntropy().forward(logits, [[1]])


def test_targets_and_counts_that_the_loss_cannot_use():
    loss_fn, logits = mt.LabelSmoothedCrossEntropy(), np.zeros((2, 2, 3), "float32")
    with pytest.raises(mt.InputError, match="tgt_out: expected rows of one length"):
        loss_fn.forward(logits, [[1], [1, 2]])
    for n_tokens in (-3, 2.5, "4"):  # a negative count would turn the gradient around
        with pytest.raises(mt.InputError, match="n_tokens"):
            loss_fn.forward(logits, [[1, 2], [2, 0]], n_tokens)


@pytest.mark.parametrize(
    "settings",
    [{"betas": (1.0, 0.98)}, {"betas": 0.9}, {"betas": (0.9, "x")}, {"adam_eps": 0.0}, {"adam_eps": None}],
    ids=repr,
)
def test_settings_of_adam_that_divide_by_zero(model, settings):
    with pytest.raises(mt.ConfigError, match=next(iter(settings))):
        mt.Adam(model, **settings)


@pytest.mark.parametrize("lr", [math.nan, math.inf, -1.0, None, "0.1", HUGE], ids=str)
def test_a_learning_rate_that_would_spoil_the_weights(model, lr):
    before = model.flatten().data.copy()
    adam = mt.Adam(model)
    with pytest.raises(mt.InputError, match="lr: expected a number, 0 or more"):
        adam.step(lr)
    np.testing.assert_array_equal(model.flatten().data, before)
    assert adam.t == 0


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("m", list),
        ("m", lambda x: x + 1j),
        ("v", lambda x: x - 1),
        ("t", float),
        ("t", lambda t: -1),
        ("t", lambda t: [1, 2]),
    ],
)
def test_a_state_of_adam_that_is_none(model, name, change):
    """A complex moment would lose its imaginary part, a negative mean of squares give NaN."""
    adam = mt.Adam(model)
    state = adam.state_dict()
    with pytest.raises(mt.MinitransformerError, match=f"Adam: (m, )?{name}"):
        adam.load_state_dict({**state, name: change(state[name])})
    with pytest.raises(mt.CheckpointError):
        adam.load_state_dict(None)


@pytest.mark.parametrize("max_norm", [-1.0, 0.0, math.nan, "1"], ids=str)
def test_a_norm_that_no_gradient_can_have(model, max_norm):
    """A negative one would turn every gradient around."""
    model.flatten().grad[...] = 1
    with pytest.raises(mt.InputError, match="max_norm"):
        mt.clip_grad_norm(model, max_norm)
    assert (model.flatten().grad == 1).all()


@pytest.mark.parametrize(
    "arguments", [(math.nan, 8), (1, 0), (1, -4), (1, 8, 0), (1, 8, -9), ("1", 8), (HUGE, 8)], ids=str
)
def test_a_schedule_of_something_else_than_counts(arguments):
    with pytest.raises(mt.InputError, match="1 or more"):
        mt.noam_schedule(*arguments)


# --- tasks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ids", [[-1], [6], [1.5], ["3"], [None], None, 3, np.array(3)], ids=repr)
def test_ids_that_no_symbol_has(ids):
    """-1 used to be the last symbol, 1.5 the first special."""
    with pytest.raises(mt.InputError, match="ids: expected"):
        mt.tasks.Vocabulary("abc").decode(ids)


@pytest.mark.parametrize("text", [None, 3, b"a", ["a"]], ids=repr)
def test_a_text_that_is_none(text):
    with pytest.raises(mt.InputError, match="text of symbols"):
        mt.tasks.Vocabulary("abc").encode(text)


@pytest.mark.parametrize("sources", [None, 3, [3], [[1.5]], [["3"]], [[2**70]], [None]], ids=repr)
def test_sources_that_are_no_ids(model, sources):
    """1.5 and "3" used to be translated as 1 and 3."""
    with pytest.raises(mt.InputError, match="sources"):
        mt.translate(model, sources)


# --- run folders ----------------------------------------------------------------------------------------


def rewrite(path, change):
    """The members of an .npz file, changed."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


@pytest.mark.parametrize("name", ["meta.json.npy", "model.encoder.layers.0.feed_forward.W_1.npy"])
def test_a_checkpoint_with_a_member_that_is_no_array(run, name):
    """NumPy hands out the bytes of such a member as they are."""
    rewrite(run / "checkpoint-00000002.npz", lambda members: members.update({name: b"text"}))
    with pytest.raises(mt.CheckpointError):
        mt.load_model(run)


def test_a_checkpoint_that_claims_more_numbers_than_memory_holds(tmp_path):
    path = tmp_path / "checkpoint.npz"
    np.savez(path, x=np.zeros(10_000))
    rewrite(
        path, lambda m: m.update({"x.npy": m["x.npy"].replace(b"(10000,), }     ", b"(10000000000000,), }")})
    )
    with pytest.raises(mt.CheckpointError, match="damaged"):
        load_checkpoint(path)


@pytest.mark.parametrize("text", ["9" * 5000, "[" * 99_999])
def test_a_config_that_no_parser_takes(run, text):
    (run / "config.json").write_text(text)
    with pytest.raises(mt.CheckpointError, match="damaged"):
        mt.load_model(run)
    with pytest.raises(mt.CheckpointError, match="damaged"):
        mt.RunFolder(run).settings()


def test_metrics_that_no_parser_takes(run):
    (run / "metrics.jsonl").write_text("[" * 99_999 + "\n")
    with pytest.raises(mt.CheckpointError, match="damaged"):
        mt.RunFolder(run).metrics()


def test_a_path_that_no_system_has():
    with pytest.raises(mt.CheckpointError):
        mt.load_model("a\0b")


@pytest.mark.parametrize(
    "change",
    [
        {"step": "2"},
        {"epoch": None},
        {"since_report": 3},
        {"since_report": {}},
        {"index": -1},
        {"seconds": "long"},
    ],
    ids=repr,
)
def test_resuming_from_numbers_of_the_wrong_type(run, change):
    path = run / "checkpoint-00000002.npz"
    arrays, meta = load_checkpoint(path)
    text = np.frombuffer(json.dumps({**meta, **change}).encode(), np.uint8)
    np.savez(path, **{"meta.json": text, **arrays})
    trainer = mt.Trainer(mt.RunFolder(run).settings(), mt.RunFolder(run))
    with pytest.raises(mt.CheckpointError, match=next(iter(change))):
        trainer.resume()


def test_resuming_a_run_whose_task_has_become_smaller(run):
    path = run / "checkpoint-00000002.npz"
    arrays, meta = load_checkpoint(path)
    text = np.frombuffer(json.dumps({**meta, "step": 1, "index": 99}).encode(), np.uint8)
    path.unlink()
    np.savez(run / "checkpoint-00000001.npz", **{"meta.json": text, **arrays})
    trainer = mt.Trainer(mt.RunFolder(run).settings(), mt.RunFolder(run))
    trainer.resume()
    with pytest.raises(mt.InputError, match="expected a batch below"):
        trainer.run(Progress(2, quiet=True))


def test_a_last_update_that_goes_too_far_ends_with_the_message_of_a_loss_that_is_not_finite():
    """It used to be measured, with warnings from NumPy, saved, and called a success."""
    few = {**FEW, "steps": 1, "learning_rate": 1e30, "clip_norm": None}
    trainer = mt.Trainer(mt.RunSettings.of(TASK, {**TINY, **few}))
    with pytest.raises(mt.MinitransformerError, match=r"step 1: logits .*learning_rate"):
        trainer.run(Progress(1, quiet=True))


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_lock_that_is_no_file(run, tmp_path, kind):
    """A dangling link used to be followed, and a file made behind it; a pipe was waited for, without end."""
    (run / "lock").unlink()
    make = {
        "link": lambda path: path.symlink_to(tmp_path / "elsewhere"),
        "pipe": os.mkfifo,
        "folder": os.mkdir,
    }
    make[kind](run / "lock")
    trainer = mt.Trainer(mt.RunFolder(run).settings(), mt.RunFolder(run))
    trainer.resume()
    with pytest.raises(mt.ConfigError, match=r"lock: cannot be opened \("):
        trainer.run(Progress(2, quiet=True))
    assert not (tmp_path / "elsewhere").exists()


def test_files_whose_names_only_look_like_ours(run):
    """The first two used to be deleted, the third ended the training, and the last was the newest checkpoint."""
    names = "notes.2017.tmp", "notes.1000000.tmp", "notes.99999999999.tmp", "checkpoint-0000000\u0663.npz"
    for name in names:
        (run / name).write_bytes(b"mine")
    trainer = mt.Trainer(mt.RunFolder(run).settings(), mt.RunFolder(run))
    trainer.resume()
    trainer.run(Progress(2, quiet=True))
    assert [(run / name).read_bytes() for name in names] == [b"mine"] * 4


@pytest.mark.parametrize(("rank", "n"), [("0", "9" * 5000), ("9" * 5000, "2")], ids=["ranks", "rank"])
def test_numbers_of_ranks_that_python_does_not_take(monkeypatch, rank, n):
    for name in sum(LAUNCHERS, ()):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PMI_RANK", rank)
    monkeypatch.setenv("PMI_SIZE", n)
    if n == "2":
        with pytest.raises(mt.ConfigError, match="PMI_RANK: expected a rank 0 … 1"):
            place_in_job()
    else:
        assert place_in_job() == (0, 1)


# --- the command line -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "copy", "--set", "steps=" + "9" * 5000],
        ["train", "copy", "--set", "steps=" + "[" * 99_999],
        ["train", "copy", "--set", "d_model=" + "1" + "0" * 30],
        ["train", "copy", "--config", "digits.json"],
        ["train", "copy", "--config", "nested.json"],
        ["decode", "no\nsuch\nrun", "3"],
        ["decode", "run", "3", "one\nmore"],
    ],
    ids=lambda arguments: " ".join(arguments)[:40],
)
def test_the_command_line_answers_in_one_line(capsys, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits.json").write_text('{"steps": ' + "9" * 5000 + "}")
    (tmp_path / "nested.json").write_text("[" * 99_999)
    try:
        status = main(arguments)
    except SystemExit as end:
        status = end.code
    out, err = capsys.readouterr()
    assert (status, out, err.count("\n"), err[-1]) == (2, "", 1, "\n"), err[:500]
    assert err.startswith("minitransformer: error: ")


def test_a_model_that_has_diverged_can_be_evaluated(model):
    """One update at learning_rate=1e30, then the validation set: overflow is no warning, and no answer is right."""
    for p in model.parameters().values():
        p.data *= 1e25
    figures = mt.evaluate(model, [([3, 4, 5], [3, 4, 5]), ([6, 7], [7, 6])])
    assert 0 <= figures["exact_match"] <= 1


def test_what_came_is_described_on_one_short_line():
    for value in (np.array(10**400, object), "a\nb", list(range(1000)), 10**400, np.zeros((2, 3)), None):
        text = mt.errors.describe(value)
        assert "\n" not in text and len(text) <= 100, text
    assert mt.errors.describe(np.zeros((2, 3))) == "float64 of shape (2, 3)"
