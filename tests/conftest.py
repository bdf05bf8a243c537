"""Hypothesis profiles: `quick` for everyone, `thorough` (HYPOTHESIS_PROFILE=thorough) for CI, `fuzz` for fuzz tests."""

import os
import shutil
import signal
from pathlib import Path

import pytest

if (
    "PYTEST_XDIST_WORKER" in os.environ
):  # one of several processes (pytest -n), each with one thread for products
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from hypothesis import HealthCheck, Phase, settings

import minitransformer

# Python programs that tests start import the package that the tests import, not another one that is installed, or that
# lies in the current folder.
PACKAGE = str(Path(minitransformer.__file__).parents[1])
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [PACKAGE, os.environ.get("PYTHONPATH")]))
os.environ["PYTHONSAFEPATH"] = "1"
# Their output is buffered, as most people's is: what is left in a buffer can fail when a program ends.
os.environ.pop("PYTHONUNBUFFERED", None)
# A job in the background, or under nohup, starts with these ignored, and so would the processes that are tested.
for name, handler in {"SIGINT": signal.default_int_handler, "SIGHUP": signal.SIG_DFL}.items():
    number = getattr(signal, name, None)  # Windows has no SIGHUP
    if number is not None and signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

settings.register_profile(
    "quick", max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.register_profile("thorough", parent=settings.get_profile("quick"), max_examples=30)
settings.register_profile("fuzz", parent=settings.get_profile("quick"), max_examples=1000)
settings.register_profile(  # for mutation tests: the same few examples each time; what fails is not made smaller
    "mutation",
    parent=settings.get_profile("quick"),
    max_examples=3,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


@pytest.fixture(scope="session")
def translate_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of task translate, of a few steps, which has learned nothing. To be read, not to be changed."""
    from minitransformer.cli import main

    folder = tmp_path_factory.mktemp("translate") / "run"
    settings = "steps=3 warmup_steps=1 epoch_size=20 test_size=4 d_model=8 d_ff=8 max_len=16 processes=1"
    assert main(["train", "translate", "--json", "--out", str(folder), "--set", *settings.split()]) == 0
    return folder


@pytest.fixture
def signal_handlers():
    """`train` installs its own; put back what was there."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run. Not to be written to: see `run`."""
    from command_line import TINY

    from minitransformer.cli import main

    path = tmp_path_factory.mktemp("trained") / "run"
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    assert main(["train", "copy", "--json", "--out", str(path), "--seed", "5", "--set", *TINY]) == 0
    for number, handler in handlers.items():
        signal.signal(number, handler)
    return path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to damage at will."""
    return shutil.copytree(trained, tmp_path / "run")


@pytest.fixture(scope="session")
def trained_on_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of task chars, beside its text. Not to be written to: see `chars_run`."""
    from command_line import TINY_CHARS

    from minitransformer.cli import main

    folder = tmp_path_factory.mktemp("chars")
    (folder / "text.txt").write_bytes("ab cd\r\nefé\n".encode() * 30)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    settings = [*TINY_CHARS, f"text={folder / 'text.txt'}"]
    assert main(["train", "chars", "--json", "--out", str(folder / "run"), "--set", *settings]) == 0
    for number, handler in handlers.items():
        signal.signal(number, handler)
    return folder / "run"


@pytest.fixture
def chars_run(trained_on_text: Path, tmp_path: Path) -> Path:
    """A copy of the finished run of task chars, to damage at will."""
    return shutil.copytree(trained_on_text, tmp_path / "run")
