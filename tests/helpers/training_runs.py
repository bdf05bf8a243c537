"""Small runs, and all that one leaves behind."""

import json
import pathlib

import minitransformer as mt
from minitransformer.tasks import Chars, Sort

TASK = Sort(n_symbols=7, min_length=2, max_length=5, epoch_size=23, test_size=4)
TINY = {
    "n_layers": 1,
    "d_model": 6,
    "d_k": 4,  # rotary positions from both ends turn pairs, half of them each way
    "n_heads": 2,
    "d_ff": 10,
    "max_len": 11,
    "steps": 13,
    "batch_tokens": 30,
    "schedule": "noam",
    "warmup_steps": 4,
    "learning_rate": 0.01,
    "log_every": 2,
    "evaluate_every": 5,
    "solved_at": None,
}


# what the models of one stack need besides
ONE_STACK = {
    "encoder-only": {"family": "encoder-only"},
    "decoder-only": {"family": "decoder-only", "max_len": 12, "norm": "pre"},
    "chars": {"last_learning_rate": 0.0, "d_k": 3},
}
TEXT = "".join(f"{i} and {i * i % 7}\r\n" for i in range(30))


def new_run(path, seed=3, task=TASK, **changes):
    """A trainer with its folder, at step 0."""
    settings = mt.RunSettings.of(task, {**TINY, **changes}, seed)
    return mt.Trainer(settings, mt.RunFolder(path))


def one_stack_run(path, kind, **changes):
    """As `new_run`, for one of ONE_STACK; the text of chars lies beside the run."""
    task = TASK
    if kind == "chars":
        text = pathlib.Path(path).parent / "text.txt"
        text.write_bytes(TEXT.encode())
        task = Chars(str(text), block=7, epoch_size=23)
    return new_run(path, task=task, **{**ONE_STACK[kind], **changes})


def resumed_run(path):
    """What --resume does."""
    folder = mt.RunFolder(path)
    trainer = mt.Trainer(folder.settings(), folder)
    trainer.resume()
    return trainer


def without_times(record):
    times = ("seconds", "tokens_per_s", "peak_memory_mb", "run")
    return {name: value for name, value in record.items() if name not in times}


def outcome(path):
    """All that a run leaves behind, but for the clock: weights, moments, counts, metrics, result."""
    folder = mt.RunFolder(path)
    arrays, meta = folder.load()
    meta = {name: value for name, value in meta.items() if name != "seconds"}
    meta["since_report"] = without_times(meta["since_report"])
    result = json.loads((pathlib.Path(path) / "result.json").read_text())
    arrays = {name: (x.dtype.str, x.shape, x.tobytes()) for name, x in arrays.items()}
    return arrays, meta, [without_times(record) for record in folder.metrics()], without_times(result)


def assert_same_outcome(path, reference):
    for got, expected in zip(outcome(path), outcome(reference), strict=True):
        assert got == expected  # bit for bit
