"""The time of a training step on 1, 2, 4, … of the ranks of an MPI job, each with as many sentences.

mpiexec -n 4 python tests/benchmarks/scaling.py [--preset base] [--batch 32] [--length 24] [--steps N] [--json]

A step would take as long on n ranks as on one if it cost nothing to add up gradients; the efficiency is the ratio of
the two times. A rank is one process with one model. `exchange` is the reduce-scatter and the all-gather of a step by
themselves, and `Allreduce Gbit/s` what goes into each rank in that time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

from minitransformer.backend import generator
from minitransformer.bench import LEAST_STEPS, SECONDS, WARM_UP, preset_of_length, random_sentences
from minitransformer.config import TransformerConfig
from minitransformer.models import Transformer
from minitransformer.parallel import Ranks, Replicas, ShardedAdam, train_step
from minitransformer.streams import say
from minitransformer.system import keep_freed_memory
from minitransformer.training import PAD, LabelSmoothedCrossEntropy, split_batch


def scaling(
    ranks: Ranks, preset: str = "toy", batch: int = 32, length: int = 24, steps: int | None = None
) -> dict[str, Any]:
    """Time steps of a model of `preset`, with `batch` sentences on each of 1, 2, 4, … of the `ranks`.

    All ranks have the same answer.
    """
    config = preset_of_length(preset, length)
    keep_freed_memory()
    rows: list[dict[str, Any]] = []
    for n in sorted({*(2**i for i in range(ranks.n.bit_length())), ranks.n}):
        few = ranks.first(n)
        row = measured(few, config, batch, length, steps) if ranks.rank < n else {}
        ranks.wait()
        row = ranks.broadcast_from_root(lambda row=row: row)
        rows.append({**row, "efficiency": (rows or [row])[0]["step_ms"] / row["step_ms"]})
        if ranks.rank == 0:
            say(f"{n} ranks: {row['step_ms']:.1f} ms a step, efficiency {rows[-1]['efficiency']:.0%}")
    return {"preset": preset, "batch": batch, "length": length, "ranks": rows}


def measured(
    ranks: Ranks, config: TransformerConfig, batch: int, length: int, steps: int | None
) -> dict[str, Any]:
    """Medians on these ranks, in ms, of a step and of its exchanges alone; all in one process on each."""
    model = Transformer(config)
    replicas, optimizer = Replicas(model, ranks=ranks), ShardedAdam(model, ranks)
    batches = split_batch(random_sentences(config.tgt_vocab_size, batch * ranks.n, length), ranks.n)
    rngs = [generator(0, i) for i in range(ranks.n)]
    loss_fn = LabelSmoothedCrossEntropy(0.1, PAD)
    data, grad = model.flatten()

    def step() -> None:
        train_step(replicas, loss_fn, optimizer, batches, 1e-4, None, rngs)

    def exchange() -> None:
        ranks.reduce_scatter(grad)
        ranks.all_gather(data)

    def median_ms(function: Callable[[], None], times: int) -> float:
        seconds = []
        for _ in range(times):
            # All begin together.
            ranks.any(False)
            start = time.perf_counter()
            function()
            seconds.append(time.perf_counter() - start)
        return 1e3 * statistics.median(seconds)

    with replicas.processes():
        once = median_ms(step, WARM_UP)
        n = steps or ranks.broadcast_from_root(lambda: max(LEAST_STEPS, int(1e3 * SECONDS / once)))
        step_ms, exchange_ms = median_ms(step, n), median_ms(exchange, LEAST_STEPS)
    moved = 2 * (ranks.n - 1) / ranks.n * grad.nbytes
    return {
        "ranks": ranks.n,
        "steps": n,
        "n_parameters": grad.size,
        "step_ms": step_ms,
        "exchange_ms": exchange_ms,
        "allreduce_gbit_per_s": 8e-6 * moved / exchange_ms,
        "tokens_per_s": 1e3 * sum(part.n_tokens for part in batches) / step_ms,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="toy")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--length", type=int, default=24)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    ranks = Ranks.of_this_job()
    found = scaling(ranks, arguments.preset, arguments.batch, arguments.length, arguments.steps)
    if ranks.rank > 0:
        return
    if arguments.json:
        print(json.dumps(found))
        return
    row = "{:>6} {:>10} {:>11} {:>12} {:>16} {:>10}".format
    print(row("ranks", "step ms", "efficiency", "exchange ms", "Allreduce Gbit/s", "tokens/s"))
    for x in found["ranks"]:
        cells = f"{x['step_ms']:.1f}", f"{x['efficiency']:.0%}", f"{x['exchange_ms']:.2f}"
        print(row(x["ranks"], *cells, f"{x['allreduce_gbit_per_s']:.1f}", f"{x['tokens_per_s']:,.0f}"))


if __name__ == "__main__":
    main()
