"""The command, called in this process: its status, what it prints, what it leaves on disk."""

import json
import sys

from minitransformer.cli import main

PROGRAM = [sys.executable, "-m", "minitransformer"]  # the command in a process of its own

TINY = """
n_layers=1 d_model=8 n_heads=2 d_ff=12 max_len=16 steps=12 batch_tokens=60 warmup_steps=4 learning_rate=0.01 log_every=3
evaluate_every=6 solved_at=none epoch_size=30 test_size=5 n_symbols=6 min_length=2 max_length=5
""".split()  # noqa: SIM905


TINY_CHARS = """
n_layers=1 d_model=8 n_heads=2 d_ff=12 max_len=16 block=8 steps=6 batch_tokens=60 warmup_steps=2 log_every=2
evaluate_every=3 epoch_size=30 processes=1
""".split()  # noqa: SIM905


def contents(path):
    """Every file below `path` with its bytes, and every folder."""
    return {str(p.relative_to(path)): p.read_bytes() if p.is_file() else "folder" for p in path.rglob("*")}


def call(*arguments):
    """Exit status; what argparse does by SystemExit counts too."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code


def assert_refused(capsys, tmp_path, arguments, *parts):
    """Status 2, one line that holds `parts`, nothing on standard output, nothing changed on disk."""
    before = contents(tmp_path)
    capsys.readouterr()
    assert call(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1 and err.endswith("\n") and len(err) < 8_000, err[:8_000]
    assert "Traceback" not in err
    for part in parts:
        assert part in err
    assert contents(tmp_path) == before


def the_object(capsys):
    """Standard output, which must be exactly one JSON object on one line."""
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    answer = json.loads(out)
    assert isinstance(answer, dict)
    return answer
