"""Timing of a training step on this machine: the step, its matrix products alone, and each layer's share."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import Any, TypeAlias

from minitransformer.backend import generator
from minitransformer.config import TransformerConfig
from minitransformer.models.transformer import Transformer
from minitransformer.module import Module
from minitransformer.parallel.replicas import Replicas, default_processes
from minitransformer.parallel.training_step import train_step
from minitransformer.parameter import is_layer
from minitransformer.system import ONE_PROCESS, can_fork, keep_freed_memory, single_blas_thread
from minitransformer.tasks.vocabulary import SPECIALS
from minitransformer.training.batching import PAD, Batch, make_batch, split_batch
from minitransformer.training.loss import LabelSmoothedCrossEntropy
from minitransformer.training.optimizer import Adam
from minitransformer.validation.settings import check_size, head_widths, require

TOY_VOCABULARY, PAPERS_VOCABULARY = 54, 37_000
SECONDS, LEAST_STEPS = 4.0, 5  # for how long to time steps if their number is not given, and the fewest
WARM_UP = 2  # steps before the first that is timed
REST = "rest of the step"

OwnTimes: TypeAlias = dict[tuple[str, str], float]  # seconds by class and method


def step_flops(config: TransformerConfig, B: int, T_src: int, T_tgt: int) -> int:
    """Floating-point operations of the matrix products of one training step.

    A product of (n, k) by (k, m) takes n k m multiplications, and as many additions. The forward pass of one
    sentence takes these multiplications:

        attention     d_model h d_k T_q + d_model h d_k T_k      the projections W_Q, W_K
                      d_model h d_v T_k + d_model h d_v T_q      and W_V, W_O
                      h T_q T_k (d_k + d_v)                      scores = Q Kᵀ, context = weights V
        feed-forward  2 d_model d_ff T                           W_1, W_2
        output        d_model V T_tgt                            Eᵀ

    with one attention in an encoder layer and two in a decoder layer. Backward takes two products of the same size
    for each of these: for y = x W, dx = dy Wᵀ and dW = xᵀ dy. So a step is 3 · 2 · B times the sum of the above.
    Padding and masked entries count like the rest.
    """
    d_model, h = config.d_model, config.n_heads
    d_k, d_v = head_widths(d_model, h, config.d_k, config.d_v)

    def attention(T_q: int, T_k: int) -> int:
        projections = d_model * h * (d_k + d_v) * (T_q + T_k)
        return projections + h * T_q * T_k * (d_k + d_v)

    def feed_forward(T: int) -> int:
        return 2 * d_model * config.d_ff * T

    encoder_layer = attention(T_src, T_src) + feed_forward(T_src)
    decoder_layer = attention(T_tgt, T_tgt) + attention(T_tgt, T_src) + feed_forward(T_tgt)
    output = d_model * config.tgt_vocab_size * T_tgt
    return 3 * 2 * B * (config.n_layers * (encoder_layer + decoder_layer) + output)


def matmul_gflops(threads: int = 1, n: int = 1024, repeats: int = 5) -> float:
    """The best rate of NumPy's matrix product, in 10^9 operations a second, with `threads` products at a time."""
    x = generator(0).random((n, n), "float32")
    best = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(repeats):
            start = time.perf_counter()
            list(pool.map(lambda _: x @ x, range(threads)))
            best = min(best, time.perf_counter() - start)
    return 2e-9 * n**3 * threads / best


def bench(
    preset: str = "toy",
    batch: int = 32,
    length: int = 24,
    steps: int | None = None,
    dropout: float | None = None,
    processes: int | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Train a model of `preset` on `batch` random sentences of up to `length` tokens, and time its steps.

    The steps run first as in the trainer, in that many `processes`; then in one process, with a timer around each
    layer. A row of "layers" is the time spent in one class, without the layers inside it. Times are medians over
    the steps, in ms; the shares of the layers add up to 1. `say` is called with progress messages. Raises
    ConfigError for arguments out of range.
    """
    check_size("batch", batch)
    check_size("length", length)
    require(steps is None or steps >= 1, "steps", "at least 1", steps)
    fits = processes is None or 1 <= processes <= batch
    require(fits, "processes", f"1 … {batch} (no more than the batch has sentences)", processes)
    config = preset_of_length(preset, length, **({} if dropout is None else {"dropout": dropout}))
    vocab_size, model = config.tgt_vocab_size, Transformer(config)
    processes = processes or min(default_processes(model, batch * length), batch)
    if processes > 1 and not can_fork():
        say(ONE_PROCESS)
        processes = 1
    say(f"{preset}: {model.n_parameters():,} parameters, {batch} sentences of up to {length} tokens")

    keep_freed_memory()
    loss_fn, optimizer = LabelSmoothedCrossEntropy(0.1, PAD), Adam(model)
    sentences = random_sentences(vocab_size, batch, length)

    def step_of(replicas: Replicas) -> Callable[[], object]:
        n = len(replicas.models)
        batches, rngs = split_batch(sentences, n), [generator(0, i) for i in range(n)]
        return lambda: train_step(replicas, loss_fn, optimizer, batches, 1e-4, None, rngs)

    replicas = Replicas(model, processes)
    with replicas.processes():
        rate = matmul_gflops(processes)  # a single product uses all cores
        seconds = _times(step_of(replicas), steps, say, f"in {processes} process{'es' * (processes > 1)}")
        rate = max(rate, matmul_gflops(processes))
    with single_blas_thread() if processes > 1 else nullcontext():
        layers = _layer_times(step_of(Replicas(model)), (model, loss_fn, optimizer), steps, say)

    flops = step_flops(config, batch, length, length)
    low, median, high = (
        statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else 3 * seconds
    )
    return {
        "preset": preset,
        "n_parameters": model.n_parameters(),
        "batch": batch,
        "length": length,
        "dropout": config.dropout,
        "processes": processes,
        "steps": len(seconds),
        "step_ms": 1e3 * median,
        "step_ms_low": 1e3 * low,
        "step_ms_high": 1e3 * high,
        "tokens_per_s": sentences.n_tokens / median,
        "flops": flops,
        "gflops": 1e-9 * flops / median,
        "matmul_gflops": rate,
        "floor_ms": 1e-6 * flops / rate,
        "floor_share": 1e-9 * flops / rate / median,
        "one_process_ms": sum(layer["ms"] for layer in layers),
        "layers": layers,
    }


def preset_of_length(preset: str, length: int, **changes: Any) -> TransformerConfig:
    """The config of a preset for at most `length` tokens, with a vocabulary of the toy tasks' or the paper's size."""
    vocab_size = TOY_VOCABULARY if preset == "toy" else PAPERS_VOCABULARY
    return TransformerConfig.preset(preset, vocab_size, max_len=length, **changes)


def random_sentences(vocab_size: int, batch: int, length: int) -> Batch:
    """A batch of random sentences, the longest of `length` tokens, EOS included, the others at least 3/4 of that."""
    rng = generator(0)

    def sentence(longest: bool) -> list[int]:
        words = length - 1 if longest else int(rng.integers(3 * (length - 1) // 4, length))
        return rng.integers(len(SPECIALS), vocab_size, words).tolist()

    return make_batch([(sentence(i == 0), sentence(i == 0)) for i in range(batch)])


def _times(
    step: Callable[[], object], steps: int | None, say: Callable[[str], None], how: str
) -> list[float]:
    """The seconds that each step took, after WARM_UP steps."""
    for _ in range(WARM_UP):
        step()
    seconds: list[float] = []
    told = time.perf_counter()
    while len(seconds) < (steps or LEAST_STEPS) or (steps is None and sum(seconds) < SECONDS):
        start = time.perf_counter()
        step()
        now = time.perf_counter()
        seconds.append(now - start)
        if now - told > 1:
            say(f"step {len(seconds)}{f'/{steps}' if steps else ''} {how}: {1e3 * seconds[-1]:.1f} ms")
            told = now
    return seconds


def _layer_times(
    step: Callable[[], object], parts: tuple[Any, ...], steps: int | None, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """The times of a step: a row for each class among `parts` and the layers in them, and one for the rest."""
    records: list[OwnTimes] = []
    with own_times(*parts) as own:

        def timed_step() -> None:
            own.clear()
            start = time.perf_counter()
            step()
            own[REST, ""] = time.perf_counter() - start - sum(own.values())
            records.append(dict(own))

        _times(timed_step, steps, say, "in one process, layer by layer")
    ms = {key: 1e3 * statistics.median(record[key] for record in records[WARM_UP:]) for key in records[-1]}
    rows: list[dict[str, Any]] = []
    for name in dict.fromkeys(name for name, _ in ms):
        together = sum(ms[key] for key in ms if key[0] == name)
        row = {
            "name": name,
            "forward_ms": ms.get((name, "forward")),
            "backward_ms": ms.get((name, "backward")),
        }
        rows.append({**row, "ms": together, "share": together / sum(ms.values())})
    return sorted(rows, key=lambda row: (row["name"] == REST, -row["ms"]))


@contextmanager
def own_times(*parts: Any) -> Iterator[OwnTimes]:
    """A context that times forward, backward and step of `parts` and of all layers in them.

    Yields the seconds that each class spent in each of these methods, without the time of the layers inside it.
    Inside the context the objects belong to a subclass with timers. Neither their classes nor their attributes
    change: every step walks over the attributes to find the parameters.
    """
    own: OwnTimes = defaultdict(float)
    inside = [0.0]  # for each running call, the seconds in timed calls that it made; the innermost last

    def timed(method: Callable[..., Any], key: tuple[str, str]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            inside.append(0.0)
            start = time.perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                seconds = time.perf_counter() - start
                own[key] += seconds - inside.pop()
                inside[-1] += seconds

        return call

    def with_timers(cls: type) -> type:
        names = [name for name in ("forward", "backward", "step") if hasattr(cls, name)]
        return type(cls.__name__, (cls,), {n: timed(getattr(cls, n), (cls.__name__, n)) for n in names})

    layers = [layer for part in parts for layer in (part, *_layers_in(part))]
    classes = [type(layer) for layer in layers]
    subclasses = {cls: with_timers(cls) for cls in classes}
    for layer, cls in zip(layers, classes, strict=True):
        layer.__class__ = subclasses[cls]
    try:
        yield own
    finally:
        for layer, cls in zip(layers, classes, strict=True):
            layer.__class__ = cls


def _layers_in(node: Any, seen: set[int] | None = None) -> Iterator[Any]:
    """All layers among the attributes of `node`, at any depth; a shared one is yielded more than once."""
    seen = {id(node)} if seen is None else seen
    children = vars(node).values() if isinstance(node, Module) else node if isinstance(node, list) else ()
    for child in children:
        if is_layer(child):
            yield child
        if id(child) not in seen:
            seen.add(id(child))
            yield from _layers_in(child, seen)
