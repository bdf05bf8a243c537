"""The `minitransformer` command. Thin: it reads arguments, calls the package, and prints."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import shlex
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from minitransformer import __version__
from minitransformer.backend import generator, keep_freed_memory
from minitransformer.bench import bench
from minitransformer.checks import CASES, check_gradients
from minitransformer.checks.run import METHODS
from minitransformer.config import PRESETS, TrainingConfig, TransformerConfig, from_settings, one_of, require
from minitransformer.errors import ConfigError, InputError, MinitransformerError
from minitransformer.exercises import EXERCISES, about, check, start
from minitransformer.gradcheck import TOLERANCE, GradcheckReport
from minitransformer.inference.beam import check_search
from minitransformer.models import Transformer
from minitransformer.scaling import RANKS, scaling
from minitransformer.tasks import TASKS, Task, task_class
from minitransformer.training.averaging import average_checkpoints
from minitransformer.training.evaluation import BATCH_TOKENS, translate
from minitransformer.training.job import as_one
from minitransformer.training.lines import Translation, translate_lines
from minitransformer.training.measure import measure
from minitransformer.training.progress import Progress
from minitransformer.training.ranks import Ranks
from minitransformer.training.replicas import Replicas, processes_that_pay
from minitransformer.training.run_folder import WEIGHTS, RunFolder, RunSettings
from minitransformer.training.trainer import EVALUATION_SEED, Interrupted, Trainer, final_sets, load_model

EXIT_WRONG = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns 0, or 1 for a wrong gradient or exercise, 2 for bad input, 130 when interrupted."""
    return as_one(lambda: _run(argv))


def _run(argv: Sequence[str] | None) -> int:
    arguments = parser().parse_args(argv)
    try:
        answer, text = arguments.run(arguments)
    except BrokenPipeError:  # who read the output has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (MinitransformerError, OSError, ImportError) as error:
        print(_error(error), file=sys.stderr)
        return EXIT_BAD_INPUT
    except MemoryError:
        print(_error("not enough memory; try a smaller model, or a smaller batch_tokens"), file=sys.stderr)
        return EXIT_BAD_INPUT
    except Interrupted:
        print("Stopped and saved. Continue with the same command and --resume.", file=sys.stderr)
        return EXIT_INTERRUPTED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    if arguments.json or text is not None:
        print(json.dumps(answer) if arguments.json else text)
    return 0 if answer.get("ok", True) else EXIT_WRONG


def _error(message: object) -> str:
    """One line, whatever the name of a file or an argument holds."""
    return f"minitransformer: error: {' '.join(str(message).split())}"


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments on one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_BAD_INPUT, f"{_error(message)} (see {self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    """The arguments of all commands."""
    top = _Parser(
        prog="minitransformer",
        description="The Transformer of 'Attention Is All You Need' in NumPy, forward and backward by hand.",
    )
    top.add_argument("--version", action="version", version=f"minitransformer {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True)

    def command(
        name: str, run: Callable[..., Any], help: str, epilog: str = "", within: Any = commands
    ) -> argparse.ArgumentParser:
        sub: argparse.ArgumentParser = within.add_parser(
            name,
            help=help,
            description=help[0].upper() + help[1:] + ".",
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
        sub.set_defaults(run=run)
        return sub

    def device(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--device", default="cpu", help="cpu (default) or cuda")

    sub = command("train", train, "train a model on a task", _train_epilog())
    sub.add_argument("task", metavar="TASK", help=", ".join(TASKS))
    sub.add_argument("--config", metavar="FILE", type=Path, help="a JSON object of settings")
    sub.add_argument(
        "--set",
        metavar="KEY=VALUE",
        nargs="+",
        action="extend",
        default=[],
        help="change settings, see below",
    )
    sub.add_argument("--out", metavar="RUN", type=Path, help="the run folder (default: a new runs/TASK)")
    sub.add_argument("--resume", action="store_true", help="continue the run in its folder where it stopped")
    sub.add_argument("--seed", type=int, help="decides the weights, the data and the dropout (default 0)")
    device(sub)

    def trained(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("folder", metavar="RUN", type=Path, help="a run folder")
        sub.add_argument(
            "--weights",
            choices=WEIGHTS,
            default="last",
            help="those after the last step (default), the best on the validation set, or the average of several",
        )

    def search(sub: argparse.ArgumentParser, beam: int) -> None:
        how = "1 is greedy" + ", the default" * (beam == 1)
        sub.add_argument(
            "--beam", metavar="K", type=int, default=beam, help=f"width of the beam search ({how})"
        )
        sub.add_argument(
            "--alpha",
            metavar="A",
            type=float,
            default=0.6,
            help="its length penalty (default: the paper's 0.6)",
        )

    sub = command("evaluate", evaluate_run, "measure a trained model on the held-out sequences")
    trained(sub)
    search(sub, 1)
    device(sub)

    sub = command("decode", decode, "answer a sequence with a trained model")
    trained(sub)
    sub.add_argument("text", metavar="SEQUENCE", help='symbols separated by blanks, e.g. "3 1 4 1 5"')
    search(sub, 1)
    device(sub)

    sub = command(
        "translate",
        translate_input,
        "translate standard input, line by line, with a trained model",
        _translate_epilog(),
    )
    trained(sub)
    search(sub, 4)
    sub.add_argument(
        "--n-best", metavar="N", type=int, help="print the N best of each line, with their scores"
    )
    device(sub)

    sub = command(
        "average", average, "average the weights of a run's last checkpoints (§6.1)", _average_epilog()
    )
    sub.add_argument("folder", metavar="RUN", type=Path, help="a run folder")
    sub.add_argument("--last", metavar="N", type=int, help="how many (default: 5, if there are as many)")

    sub = command("plot", plot, "draw the loss, the learning rate and the attention of a run (extra: app)")
    trained(sub)
    sub.add_argument("--input", metavar="SEQUENCE", help="whose attention to draw (default: a held-out one)")
    sub.add_argument(
        "--attention", nargs="+", choices=("encoder", "decoder", "cross"), help="which to draw (default: all)"
    )

    sub = command(
        "gradcheck", check_all, "compare every backward pass with numerical derivatives", _gradcheck_epilog()
    )
    sub.add_argument(
        "layers", metavar="LAYER", nargs="*", help="which to check (default: all, and the whole model)"
    )
    sub.add_argument(
        "--full", action="store_true", help="also the paper's base model: 63 million parameters, 4 GB"
    )

    sub = command(
        "bench", time_steps, "measure the speed of a training step on this machine", _bench_epilog()
    )
    sub.add_argument("--preset", metavar="NAME", default="toy", help="the model, see below (default: toy)")
    sub.add_argument("--batch", metavar="N", type=int, default=32, help="sentences of a step (default: 32)")
    sub.add_argument(
        "--length", metavar="N", type=int, default=24, help="tokens of the longest of them (default: 24)"
    )
    sub.add_argument(
        "--steps", metavar="N", type=int, help="how many to time, twice (default: for some 4 seconds)"
    )
    sub.add_argument("--dropout", metavar="P", type=float, help="in place of the preset's")
    sub.add_argument(
        "--processes", metavar="N", type=int, help="that share the batch (default: as many as pay)"
    )
    sub.add_argument(
        "--scaling",
        action="store_true",
        help="on 1, 2, 4, … ranks of mpiexec, each with its batch; and on many",
    )

    sub = commands.add_parser("exercises", help="find the bug: ten layers, each with one fault")
    actions = sub.add_subparsers(metavar="ACTION", required=True)
    command("list", list_exercises, "say what the ten layers are", within=actions)
    sub = command("start", start_exercises, "write the ten files into a folder", within=actions)
    sub.add_argument("folder", metavar="FOLDER", type=Path, help="where none of them is yet")
    sub = command("check", check_exercises, "say which faults are fixed", _exercises_epilog(), actions)
    sub.add_argument("folder", metavar="FOLDER", type=Path, help="where the files are")
    sub.add_argument("names", metavar="NAME", nargs="*", help="which to check (default: all ten)")
    return top


def _bench_epilog() -> str:
    unbroken = ", ".join(name.replace(" ", "\0") for name in PRESETS)  # a name stays on one line
    names = textwrap.fill(unbroken, 100, initial_indent="  ", subsequent_indent="  ").replace("\0", " ")
    return (
        f"presets:\n{names}\n"
        "The model trains on random sentences. A second round, in one process with a timer around each layer, says\n"
        "where the time goes: each line is the time in that class without the layers inside it.\n"
        'example:\n  minitransformer bench --preset "C N=2" --batch 16 --length 48\n '
    )


def _gradcheck_epilog() -> str:
    names = textwrap.fill(", ".join(CASES), 100, initial_indent="  ", subsequent_indent="  ")
    return (
        f"layers:\n{names}\n"
        "The complex step is right to the last digits, central differences are independent of it. Small layers are\n"
        "checked number by number; where there are thousands (marked *), one derivative in a random direction of all.\n"
        "Exit status 1 if a gradient is wrong. For a layer of your own: minitransformer.gradcheck in Python.\n "
    )


def _exercises_epilog() -> str:
    names = textwrap.fill(", ".join(EXERCISES), 100, initial_indent="  ", subsequent_indent="  ")
    return (
        f"exercises:\n{names}\n"
        "Exit status 1 if one of them is still wrong. What a file prints goes to standard error.\n "
    )


def _translate_epilog() -> str:
    return (
        "A line of input, as the task's source files have it, becomes a line of output; --n-best prints lines of\n"
        "number, score and translation, with tabs between them.\n"
        "example:\n  minitransformer translate runs/text --weights average < new.en > new.de\n "
    )


def _average_epilog() -> str:
    return (
        "They go into the run folder, where --weights average finds them. A run keeps as many checkpoints as its\n"
        "setting keep_checkpoints says; one that a stop has saved counts, too.\n "
    )


def _train_epilog() -> str:
    def names(config: type) -> str:
        return textwrap.fill(", ".join(_names(config)), 100, subsequent_indent=" " * 29).strip()

    return (
        f"settings of the model:       {names(TransformerConfig)}\n"
        f"settings of the training:    {names(TrainingConfig)}\n"
        + "".join(f"settings of {name + ':':<17}{names(task)}\n" for name, task in TASKS.items())
        + "example:\n  minitransformer train reverse --set d_model=128 steps=4000 --out runs/wide\n "
    )


def train(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Train, print what was reached, and where it lies."""
    ranks = Ranks.of_this_job()
    folder = RunFolder(
        ranks.from_first(lambda: arguments.out or _default_folder(arguments.task, arguments.resume))
    )
    if arguments.resume:
        if arguments.set or arguments.config or arguments.seed is not None:
            raise ConfigError("--resume takes the run's own settings; drop --set, --config and --seed")
        settings = ranks.from_first(folder.settings)
        if settings.task.name != arguments.task:
            raise ConfigError(
                f"{folder.path} holds a run of task {settings.task.name!r}, not {arguments.task!r}"
            )
        trainer = Trainer(settings, folder, arguments.device, ranks)
        trainer.resume()
    else:
        settings = _settings(arguments)
        trainer = Trainer(settings, folder, arguments.device, ranks)
    progress = Progress(settings.training.steps, trainer.step, quiet=arguments.json or ranks.rank > 0)
    with _stop_on_signal() as stop_requested:
        result = trainer.run(progress, stop_requested)
    return {**result, "run": str(folder.path)}, _summary(result["sets"]) + (
        f"\n{result['steps']} steps in {result['seconds']:.1f} s"
        + (f", peak memory {result['peak_memory_mb']:.0f} MB" if result["peak_memory_mb"] else "")
        + f"\ntry:  {_program()} decode {_quoted(str(folder.path))} {_quoted(_example(settings.task))}"
    )


def evaluate_run(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Measure a run's model on its held-out sets."""
    folder = RunFolder(arguments.folder)
    task = folder.settings().task
    model = load_model(folder, arguments.device, arguments.weights)
    sets = task.evaluation_sets(generator(EVALUATION_SEED))
    check_search(arguments.beam, arguments.alpha)
    figures = {}
    with _replicas(model) as replicas:
        for name in sets:
            figures[name] = measure(replicas, task, name, sets[name], arguments.beam, arguments.alpha)
    return {"run": str(folder.path), "sets": figures}, _summary(figures)


def decode(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Answer one sequence."""
    folder = RunFolder(arguments.folder)
    vocabulary = folder.settings().task.vocabulary
    source = vocabulary.encode(arguments.text)
    check_search(arguments.beam, arguments.alpha)
    model = load_model(folder, arguments.device, arguments.weights)
    answer = vocabulary.decode(translate(model, [source], arguments.beam, arguments.alpha)[0])
    return {"input": arguments.text, "output": answer}, answer


def translate_input(arguments: argparse.Namespace) -> tuple[dict[str, Any], str | None]:
    """Translate standard input; each translation is printed as soon as its part of the input is done."""
    folder, n, beam, alpha = RunFolder(arguments.folder), arguments.n_best, arguments.beam, arguments.alpha
    check_search(beam, alpha)
    require(n is None or 1 <= n <= beam, "n-best", f"1 … {beam}, the beam", n)
    vocabulary = folder.settings().task.vocabulary
    model = load_model(folder, arguments.device, arguments.weights)
    answers: list[list[Translation]] = []
    first = 1  # the number of the next line
    with _replicas(model) as replicas:
        for lines in _parts_of(sys.stdin.buffer, 1 if sys.stdin.isatty() else 1000):
            found = translate_lines(replicas, vocabulary, lines, beam, alpha, first)
            best = [translations[: n or 1] for translations in found]
            if arguments.json:
                answers += best
            else:
                printed = (
                    line for i, x in enumerate(best, first) for line in _translated(i, x, n is not None)
                )
                sys.stdout.buffer.write("".join(f"{line}\n" for line in printed).encode())
                sys.stdout.buffer.flush()
            first += len(lines)
    return {"run": str(folder.path), "lines": [[x._asdict() for x in best] for best in answers]}, None


def _translated(number: int, translations: list[Translation], n_best: bool) -> list[str]:
    """What is printed for a line of the input."""
    if n_best:
        return [f"{number}\t{score:.4f}\t{text}" for text, score in translations]
    return [translations[0].text if translations else ""]


def average(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Average the weights of the last checkpoints."""
    folder = RunFolder(arguments.folder)
    n = min(5, len(folder.checkpoints()) or 1) if arguments.last is None else arguments.last
    steps = average_checkpoints(folder, n)
    listed = ", ".join(f"{step:,}" for step in steps)
    return {"run": str(folder.path), "steps": steps}, (
        f"averaged the weights after steps {listed}\n"
        f"try:  {_program()} evaluate {_quoted(str(folder.path))} --weights average --beam 4"
    )


def plot(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Draw the figures of a run into its folder."""
    from minitransformer.figures import KINDS, attention_figure, save, training_figure

    folder = RunFolder(arguments.folder)
    task, model = folder.settings().task, load_model(folder, weights=arguments.weights)
    text, kinds = arguments.input or _example(task), arguments.attention or KINDS
    figures = {
        "training": training_figure(folder.path.name, folder.metrics()),
        "attention": attention_figure(model, task.vocabulary, text, kinds),
    }
    paths = {name: str(save(figure, folder.path / f"{name}.png")) for name, figure in figures.items()}
    return paths, "\n".join(paths.values())


def check_all(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Check every gradient; print a line for each layer as it is done."""

    def tell(*columns: str) -> None:
        if not arguments.json:
            print("{:<27}{:>11}  {:>13}  {:>20}  {}".format(*columns).rstrip(), flush=True)

    start, outcomes = time.perf_counter(), []
    checks = check_gradients(arguments.layers, arguments.full)
    tell("layer", "numbers", "complex step", "central differences", "")
    for outcome in checks:
        outcomes.append(outcome)
        left_out = f"  ({outcome.left_out} left out)" if outcome.left_out else ""
        errors = (_error_of(outcome.worst(method)) for method in METHODS)
        tell(outcome.name, f"{outcome.n_numbers:,}", *errors, ("ok" if outcome.ok else "WRONG") + left_out)
    worst = {m: max(outcome.worst(m).max_relative_error for outcome in outcomes) for m in METHODS}
    wrong = [str(report) for outcome in outcomes for report in outcome.reports if not report.ok]
    answer = {
        "ok": not wrong,
        "seconds": time.perf_counter() - start,
        "worst": worst,
        "layers": [
            {
                "name": outcome.name,
                "numbers": outcome.n_numbers,
                **{method: outcome.worst(method).max_relative_error for method in METHODS},
                "ok": outcome.ok,
            }
            for outcome in outcomes
        ],
    }
    tell(
        "largest relative error", "", *(f"{worst[m]:.1e} " for m in METHODS), f"in {answer['seconds']:.0f} s"
    )
    tell("tolerance", "", *(f"{TOLERANCE[m]:.1e} " for m in METHODS), "")
    return answer, "\n".join(wrong) or "Every gradient is right."


def list_exercises(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """The names of the exercises, and what each layer is."""
    abouts = {name: about(name) for name in EXERCISES}
    return {"exercises": abouts}, "\n".join(f"{name:<18}{text}" for name, text in abouts.items())


def start_exercises(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Write the files with the faults."""
    files = [str(file) for file in start(arguments.folder)]
    return {"files": files}, (
        f"{len(files)} files in {arguments.folder}. Each says what its layer should do and what was noticed, and has "
        f"one fault.\nFix them, and see:  {_program()} exercises check {arguments.folder}"
    )


def check_exercises(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Grade the reader's files; print each verdict as soon as it is there."""
    verdicts = []
    for verdict in check(arguments.folder, arguments.names):
        verdicts.append(verdict)
        if not arguments.json:
            print(verdict, flush=True)
    n_fixed = sum(verdict.ok for verdict in verdicts)
    answer = {"ok": n_fixed == len(verdicts), "exercises": [verdict._asdict() for verdict in verdicts]}
    return answer, f"{n_fixed} of {len(verdicts)} fixed"


def time_steps(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Time the training step, and its layers."""

    def say(text: str) -> None:
        if not arguments.json:
            print(text, file=sys.stderr, flush=True)

    if arguments.scaling:
        return _scaling(arguments, say)
    names = ("preset", "batch", "length", "steps", "dropout", "processes")
    found = bench(**{name: getattr(arguments, name) for name in names}, say=say)
    return found, (
        "step             {step_ms:.1f} ms, the middle half {step_ms_low:.1f} … {step_ms_high:.1f}  "
        "({steps} steps, processes: {processes})\n"
        "target tokens    {tokens_per_s:,.0f} a second\n"
        "arithmetic       {flops:,} operations a step: {gflops:.1f} GFLOP/s\n"
        "matrix products  {floor_ms:.1f} ms, {floor_share:.0%} of the step, at the {matmul_gflops:.1f} GFLOP/s "
        "that NumPy reaches here with a large one\n\n"
    ).format(**found) + _layer_table(found)


def _scaling(arguments: argparse.Namespace, say: Callable[[str], None]) -> tuple[dict[str, Any], str]:
    require(
        arguments.processes is None,
        "processes",
        "to be left out: a rank of --scaling is one",
        arguments.processes,
    )
    names, ranks = ("preset", "batch", "length", "steps", "dropout"), Ranks.of_this_job()
    found = scaling(**{name: getattr(arguments, name) for name in names}, ranks=ranks, say=say)
    row = "{:>6} {:>10} {:>11} {:>12} {:>16} {:>10}".format
    lines = [row("ranks", "step ms", "efficiency", "exchange ms", "Allreduce Gbit/s", "tokens/s")]
    for x in found["ranks"]:
        figures = f"{x['step_ms']:.1f}", f"{x['efficiency']:.0%}", f"{x['exchange_ms']:.2f}"
        lines.append(
            row(x["ranks"], *figures, f"{x['allreduce_gbit_per_s']:.1f}", f"{x['tokens_per_s']:,.0f}")
        )
    lines += ["", "predicted efficiency; in brackets, if the exchange overlapped with forward and backward"]
    row = "{:>11} {:>10} {:>8} {:>12}".format
    lines.append(
        row("GFLOP/s", "parameters", "Gbit/s", "step s") + "".join(f"{f'{n} ranks':>16}" for n in RANKS)
    )
    for x, *more in zip(*(found["predictions"][i :: len(RANKS)] for i in range(len(RANKS))), strict=True):
        cells = (
            f"{x['gflops']:,.0f}",
            f"{x['parameters'] / 1e6:.0f} M",
            f"{x['gbit']:.0f}",
            f"{x['one_rank_s']:.2f}",
        )
        shares = [f"{y['efficiency']:.1%} ({y['with_overlap']:.1%})" for y in (x, *more)]
        lines.append(row(*cells) + "".join(f"{share:>16}" for share in shares))
    return found, "\n".join(lines)


def _layer_table(found: dict[str, Any]) -> str:
    row = "{:<27}{:>11}{:>13}{:>9}{:>8}".format
    lines = [row("in one process", "forward ms", "backward ms", "ms", "share")]
    for layer in found["layers"]:
        times = ["" if ms is None else f"{ms:.2f}" for ms in (layer["forward_ms"], layer["backward_ms"])]
        lines.append(row(layer["name"], *times, f"{layer['ms']:.2f}", f"{layer['share']:.1%}"))
    return "\n".join([*lines, row("a step", "", "", f"{found['one_process_ms']:.2f}", f"{1:.1%}")])


def _error_of(report: GradcheckReport) -> str:
    error = report.max_relative_error
    return ("<1e-16" if error < 1e-16 else f"{error:.1e}") + ("*" if report.directional else " ")


def _settings(arguments: argparse.Namespace) -> RunSettings:
    """The task's settings, changed by --config, then by --set."""
    settings: dict[str, Any] = {}
    if arguments.config is not None:
        try:
            settings = json.loads(arguments.config.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:  # nested too deep, or too many digits
            raise ConfigError(f"{arguments.config}: not JSON ({error})") from None
        if not isinstance(settings, dict):
            raise ConfigError(f"{arguments.config}: expected a JSON object of settings")
    cls = task_class(arguments.task)
    kinds = {f.name: f.type for config in (cls, TransformerConfig, TrainingConfig) for f in _fields(config)}
    for assignment in arguments.set:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise ConfigError(f"--set: expected KEY=VALUE, got {assignment!r}")
        settings[name] = _value(value, kinds.get(name))
    for name in settings:
        one_of("setting", name, kinds)
    of_task = {name: settings.pop(name) for name in list(settings) if name in _names(cls)}
    seed = 0 if arguments.seed is None else arguments.seed
    return RunSettings.of(from_settings(cls, of_task), settings, seed)


def _fields(config: type) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(config)


def _names(config: type) -> list[str]:
    return [field.name for field in _fields(config)]


def _value(text: str, kind: object) -> Any:
    """What a setting's text means, `kind` being its annotation: a str is the text itself, as a file's name has to be.

    Else JSON where it is JSON, a list where it has commas, and otherwise the text, too.
    """
    words = {"none": None, "true": True, "false": False}
    if kind == "str":
        return text
    if text.lower() in words:
        return words[text.lower()]
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # no JSON, too many digits, or nested too deep
        return text.split(",") if "," in text else text


def _default_folder(task: str, resume: bool) -> Path:
    """runs/TASK, runs/TASK-2, …: the first that is free, or, to resume, the last that is not."""
    free, last = Path("runs") / task, Path("runs") / task
    n = 1
    while RunFolder(free).exists():
        n, last = n + 1, free
        free = Path("runs") / f"{task}-{n}"
    return last if resume else free


def _example(task: Task) -> str:
    sets = task.evaluation_sets(generator(EVALUATION_SEED))
    source, _ = sets[final_sets(sets)[0]][0]
    return task.vocabulary.decode(source)


@contextmanager
def _replicas(model: Transformer) -> Iterator[Replicas]:
    """The model, at work in as many processes as the machine has for it."""
    replicas = Replicas(model, processes_that_pay(model, BATCH_TOKENS))
    keep_freed_memory()
    with replicas.processes():
        yield replicas


def _parts_of(file: BinaryIO, n: int = 1000) -> Iterator[list[str]]:
    """The lines of a file, up to `n` at a time. Raises InputError for one that is not UTF-8."""
    for first in count(1, n):
        lines: list[str] = []
        for line in islice(file, n):
            try:
                lines.append(line.decode("utf-8" if lines or first > 1 else "utf-8-sig").rstrip("\r\n"))
            except UnicodeDecodeError:
                raise InputError(f"line {first + len(lines)}: not UTF-8") from None
        if not lines:
            return
        yield lines


def _summary(sets: dict[str, Any]) -> str:
    def told(figures: dict[str, Any]) -> str:
        if "bleu" in figures:
            perplexity = math.exp(min(figures["loss"], 700))  # the largest that a float can hold
            return f"BLEU {figures['bleu']:.2f}   perplexity {perplexity:.2f}"
        return f"exact match {figures['exact_match']:7.2%}   token accuracy {figures['token_accuracy']:7.2%}"

    lines = [
        f"{name:<8} {told(figures)}   ({figures['n']} held-out sequences of length {_lengths(figures)})"
        for name, figures in sets.items()
    ]
    return "\n".join(lines)


def _lengths(figures: dict[str, Any]) -> str:
    lengths = list(figures["exact_match_by_length"])
    return lengths[0] if len(lengths) == 1 else f"{lengths[0]} to {lengths[-1]}"


def _quoted(text: str) -> str:
    """`text` as an argument on a command line."""
    if not set(text) & set('"$`\\!'):
        return f'"{text}"' if " " in text else text or '""'
    return shlex.quote(text)


def _program() -> str:
    """How this command was called."""
    return "python -m minitransformer" if sys.argv[0].endswith("__main__.py") else sys.argv[0]


@contextmanager
def _stop_on_signal() -> Iterator[Callable[[], bool]]:
    """A block in which Ctrl-C and SIGTERM ask for a stop at the end of the step; a second one stops at once."""
    stop = threading.Event()
    before: dict[int, Any] = {}

    def ask(number: int, frame: Any) -> None:
        stop.set()
        signal.signal(number, before[number])

    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
