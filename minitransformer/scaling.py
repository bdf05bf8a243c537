"""What a training step takes on 1, 2, 4, … ranks of an MPI job, and what it would take on many more.

Every rank has as many sentences, however many ranks there are, so a step would take as long on n as on one if it cost
nothing to add up gradients. The model of what it costs, for a gradient of S bytes and a network that moves `bandwidth`
bytes a second into each rank, and as many out of it, with `latency` seconds for a message:

    T(n) = compute + update / n + (n - 1) / n · (add + 2 S / bandwidth) + 2 (n - 1) latency

`compute` is forward and backward, `update` Adam on all numbers (each rank has 1/n of them), `add` one addition of two
gradients. The 2 are reduce-scatter and all-gather: in each, a rank sends and receives all but its share, (n - 1)/n · S,
in n - 1 messages. The efficiency is T(1) / T(n).

If the network worked while the processor does, the gradients of the last layers could be on their way during the rest
of backward (two thirds of compute), and the first layers' weights be used while the others arrive (in forward, one
third): each of the two exchanges would cost only what it takes beyond that.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from minitransformer.backend import generator, keep_freed_memory
from minitransformer.bench import (
    LEAST_STEPS,
    PAPERS_VOCABULARY,
    SECONDS,
    TOY_VOCABULARY,
    WARM_UP,
    random_sentences,
    step_flops,
)
from minitransformer.config import TransformerConfig, check_size, require
from minitransformer.models.transformer import Transformer
from minitransformer.tasks.vocabulary import PAD
from minitransformer.training.batching import shared
from minitransformer.training.loss import LabelSmoothedCrossEntropy
from minitransformer.training.optimizer import Adam
from minitransformer.training.ranks import ALONE, Ranks
from minitransformer.training.replicas import Replicas, train_step

PAPERS_MODELS = {"base": 65e6, "big": 213e6}  # parameters, as table 3 of the paper has them
SENTENCES, LENGTH = 125, 25  # of a rank: the paper's 25,000 tokens, on 8 GPUs (§5.1, §5.2)
GPU_GFLOPS = 20_000.0  # what a step may reach on a GPU: a rank that is faster than these
RANKS = (8, 64, 512)


class Network(NamedTuple):
    """What the model asks of a network."""

    gbit: float  # 10^9 bits a second, into a rank, and out of it
    latency: float  # seconds for a message


NETWORKS = [Network(10, 30e-6), Network(100, 3e-6)]  # TCP; and one that writes into the other's memory


class Step(NamedTuple):
    """What a step takes on one rank, in seconds, and the bytes of its gradient."""

    compute: float
    update: float
    add: float
    size: float


def step_seconds(step: Step, n: int, network: Network, overlap: bool = False) -> float:
    """T(n) of the model above; with `overlap`, what it would be then."""
    exchange = (n - 1) / n * step.size / (network.gbit * 1e9 / 8) + (n - 1) * network.latency
    rest = step.update / n + (n - 1) / n * step.add
    if overlap:
        return max(step.compute * 2 / 3, exchange) + max(step.compute / 3, exchange) + rest
    return step.compute + 2 * exchange + rest


def scaling(
    preset: str = "toy",
    batch: int = 32,
    length: int = 24,
    steps: int | None = None,
    dropout: float | None = None,
    ranks: Ranks = ALONE,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Time steps of a model of `preset`, with `batch` sentences on each of 1, 2, 4, … of the `ranks`; then predict.

    All ranks have the same answer. Raises ConfigError.
    """
    check_size("batch", batch)
    check_size("length", length)
    require(steps is None or steps >= 1, "steps", "at least 1", steps)
    vocab_size = TOY_VOCABULARY if preset == "toy" else PAPERS_VOCABULARY
    changes = {"max_len": length} if dropout is None else {"max_len": length, "dropout": dropout}
    config = TransformerConfig.preset(preset, vocab_size, **changes)
    keep_freed_memory()
    rows: list[dict[str, Any]] = []
    for n in sorted({*(2**i for i in range(ranks.n.bit_length())), ranks.n}):
        few = ranks.first(n)
        row = _measured(few, config, batch, length, steps) if ranks.rank < n else {}
        ranks.wait()
        row = ranks.from_first(lambda row=row: row)  # type: ignore[misc]
        rows.append({**row, "efficiency": (rows or [row])[0]["step_ms"] / row["step_ms"]})
        say(
            f"{n} rank{'s' * (n > 1)}: {row['step_ms']:.1f} ms a step, efficiency {rows[-1]['efficiency']:.0%}"
        )
    first = rows[0]
    compute = first["step_ms"] - first["update_ms"]
    gflops = 1e-6 * step_flops(config, batch, length, length) / compute
    per_parameter = [1e-3 * first[name] / first["n_parameters"] for name in ("update_ms", "add_ms")]
    found = [row for rate in (gflops, GPU_GFLOPS) for row in predictions(rate, rate / gflops, *per_parameter)]
    sizes = {"preset": preset, "n_parameters": first["n_parameters"], "batch": batch, "length": length}
    return {**sizes, "gflops": gflops, "ranks": rows, "predictions": found}


def predictions(gflops: float, faster: float, update: float, add: float) -> list[dict[str, Any]]:
    """The efficiency of the paper's models on RANKS ranks that compute `gflops` each, with the paper's tokens on each.

    `update` and `add`: seconds for each parameter on the rank that was measured. The others are taken to move memory
    `faster` times as fast as that one.
    """
    rows = []
    for preset, n_parameters in PAPERS_MODELS.items():
        compute = 1e-9 * step_flops(TransformerConfig.preset(preset), SENTENCES, LENGTH, LENGTH) / gflops
        passes = n_parameters / faster
        step = Step(compute, update * passes, add * passes, 4 * n_parameters)
        for network in NETWORKS:
            for n in RANKS:
                alone = step_seconds(step, 1, network)
                rows.append(
                    {
                        "parameters": n_parameters,
                        "gflops": gflops,
                        "gbit": network.gbit,
                        "ranks": n,
                        "one_rank_s": alone,
                        "efficiency": alone / step_seconds(step, n, network),
                        "with_overlap": alone / step_seconds(step, n, network, overlap=True),
                    }
                )
    return rows


def _measured(
    ranks: Ranks, config: TransformerConfig, batch: int, length: int, steps: int | None
) -> dict[str, Any]:
    """Medians on these ranks, in ms: a step, its exchanges, Adam and an addition; all in one process on each."""
    model = Transformer(config)
    replicas, optimizer = Replicas(model, ranks=ranks), Adam(model, ranks=ranks)
    batches = shared(random_sentences(config.tgt_vocab_size, batch * ranks.n, length), ranks.n)
    rngs = [generator(0, i) for i in range(ranks.n)]
    loss_fn = LabelSmoothedCrossEntropy(0.1, PAD)
    data, grad = model.flatten()

    def step() -> None:
        train_step(replicas, loss_fn, optimizer, batches, 1e-4, None, rngs)

    def exchange() -> None:
        ranks.add_up(grad)
        ranks.all_gather(data)

    def update() -> None:
        with replicas.threads():
            optimizer.step(1e-4)

    def add() -> None:
        data[...] += grad

    def median_ms(function: Callable[[], None], times: int) -> float:
        seconds = []
        for _ in range(times):
            ranks.any(False)  # all begin together
            start = time.perf_counter()
            function()
            seconds.append(time.perf_counter() - start)
        return 1e3 * statistics.median(seconds)

    with replicas.processes():
        once = median_ms(step, WARM_UP)
        n = steps or ranks.from_first(lambda: max(LEAST_STEPS, int(1e3 * SECONDS / once)))
        step_ms = median_ms(step, n)
        exchange_ms, update_ms, add_ms = (
            median_ms(function, LEAST_STEPS) for function in (exchange, update, add)
        )
    moved = 2 * (ranks.n - 1) / ranks.n * grad.nbytes
    return {
        "ranks": ranks.n,
        "steps": n,
        "n_parameters": grad.size,
        "step_ms": step_ms,
        "exchange_ms": exchange_ms,
        "allreduce_gbit_per_s": 8e-6 * moved / exchange_ms,
        "update_ms": update_ms,
        "add_ms": add_ms,
        "tokens_per_s": 1e3 * sum(part.n_tokens for part in batches) / step_ms,
    }
