"""What tests/parallel/ has each rank of an MPI job run: python rank_program.py WHAT ARGUMENT ...

Rank 0 writes what it found with pickle, where the last argument says.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info

import minitransformer as mt
from minitransformer.inference.translation import decode
from minitransformer.parallel import ShardedAdam, exchange, job
from minitransformer.parallel.ranks import Ranks
from minitransformer.runs.interrupt import Interrupted
from minitransformer.tasks import Sort
from minitransformer.training import make_batch

LOSS_FN = mt.LabelSmoothedCrossEntropy(0.1)
STEPS, N_BATCHES, LR = 20, 5, 0.01
CONFIG = {"n_layers": 1, "d_model": 10, "n_heads": 2, "d_ff": 14, "max_len": 11}
TASK = Sort(n_symbols=7, min_length=2, max_length=5, epoch_size=23, test_size=7)
SETTINGS = {
    "n_layers": 1, "d_model": 6, "n_heads": 2, "d_k": 4, "d_ff": 10, "max_len": 11, "dropout": 0.2, "steps": 13,
    "batch_tokens": 30, "schedule": "noam", "warmup_steps": 4, "learning_rate": 0.01, "log_every": 2,
    "evaluate_every": 5, "solved_at": None, "clip_norm": 0.5, "accumulate": 3, "processes": 2,
    "weight_decay": 0.3,
}  # fmt: skip


def settings_of(family: str) -> dict[str, Any]:
    """The settings of a run with a model of this family."""
    return SETTINGS if family == "encoder-decoder" else {**SETTINGS, "family": family, "max_len": 12}


def random_pairs(rng: np.random.Generator, n: int) -> list[Any]:
    """Sentences of random lengths, in two languages of 13 symbols."""
    return [tuple(rng.integers(3, 13, rng.integers(1, 10)).tolist() for _ in range(2)) for _ in range(n)]


def ragged_batches(step: int, n: int) -> list[Any]:
    """`n` batches of 1, 2, … sentences, in an order that changes from step to step."""
    rng = np.random.default_rng([3, step])
    return [make_batch(random_pairs(rng, 1 + size)) for size in rng.permutation(n).tolist()]


def steps(
    ranks: Ranks,
    n_replicas: int = 1,
    dropout: float = 0.3,
    clip_norm: float | None = 0.1,
    n_batches: int = N_BATCHES,
    device: str = "cpu",
    one_batch: bool = False,
) -> dict[str, Any]:
    """Some training steps, and all that is there afterwards. `one_batch`: as one, with all sentences in it."""
    model = mt.Transformer(mt.TransformerConfig(13, 13, **CONFIG, dropout=dropout), 1, "float64", device)
    replicas, adam = mt.Replicas(model, n_replicas, ranks=ranks), ShardedAdam(model, ranks, adam_eps=1e-6)
    found = []
    with replicas.processes() if n_replicas > 1 else nullcontext():
        for step in range(STEPS):
            batches = ragged_batches(step, n_batches)
            if one_batch:
                rng = np.random.default_rng([3, step])
                rng.permutation(n_batches)
                batches = [make_batch(random_pairs(rng, sum(len(batch.src_ids) for batch in batches)))]
            drawn = [np.random.default_rng([7, step, i]) for i in range(len(batches))]
            found.append(mt.train_step(replicas, LOSS_FN, adam, batches, LR, clip_norm, drawn))
        sources = [source for source, _ in random_pairs(np.random.default_rng(8), 7)]
        answers = replicas.in_shares(decode, sources)
    return {
        "steps": found, "weights": next(iter(weights_of(model))), "adam": adam.state_dict(), "answers": answers,
        "own": adam.m.size,
    }  # fmt: skip


def weights_of(model: mt.Transformer) -> Any:
    yield np.concatenate([x.ravel() for x in model.state_dict().values()])


def training(out: str) -> None:
    """Steps in several ways, on all ranks."""
    ranks = Ranks.of_this_job()
    found = {
        "dropout": steps(ranks),
        "whole batch": steps(ranks, dropout=0.0),
        "without work": steps(ranks, n_batches=ranks.n - 1),
        "replicas": steps(ranks, n_replicas=2, dropout=0.0),
    }
    at_once = exchange._by_mpi
    for slow in range(2):

        def slowly(*arrays: Any, slow: int = slow) -> None:
            time.sleep(0.002 * (ranks.rank == slow))
            at_once(*arrays)

        exchange._by_mpi = slowly
        found[f"rank {slow} is slow"] = steps(ranks)
    exchange._by_mpi = at_once
    keep(ranks, out, everywhere=ranks.objects(found), **operations(ranks))


def operations(ranks: Ranks) -> dict[str, Any]:
    """Each operation by itself; what came out on every rank."""
    found: dict[str, Any] = {"sums": [], "gathered": []}
    for size in (0, 1, 2, 17, 10_000):
        grads = [np.random.default_rng([r, size]).normal(size=size).astype("float32") for r in range(ranks.n)]
        mine = grads[ranks.rank].copy()
        ranks.reduce_scatter(mine)
        share = ranks.share(size)
        rest = np.delete(mine, share), np.delete(grads[ranks.rank], share)
        np.testing.assert_array_equal(*rest)
        found["sums"].append((grads, ranks.objects((share, mine[share]))))
        mine[...] = ranks.rank
        ranks.all_gather(mine)
        found["gathered"].append((size, ranks.objects(mine)))
    found["numbers"] = ranks.objects(ranks.numbers(ranks.rank, ranks.rank / 3))
    found["any"] = [ranks.any(ranks.rank == r) for r in range(ranks.n + 1)]
    calls: list[int] = []
    found["broadcast_from_root"] = ranks.objects(
        (ranks.broadcast_from_root(lambda: calls.append(1) or ranks.rank), len(calls))
    )
    try:
        ranks.broadcast_from_root(lambda: {}[ranks.rank])
    except KeyError as error:
        found["error"] = ranks.objects(error.args)
    found["places"] = ranks.objects((ranks.rank, ranks.on_machine, ranks.n_cores))
    return found


def keep(ranks: Ranks, out: str, **found: Any) -> None:
    if ranks.rank == 0:
        Path(out).write_bytes(pickle.dumps(found))


def run(path: str, stop: str, resumed: str, family: str = "encoder-decoder") -> None:
    """A run, up to step `stop` (which the last rank alone asks for) or to its end."""
    ranks, folder = Ranks.of_this_job(), mt.RunFolder(path)
    trainer = mt.Trainer(mt.RunSettings.of(TASK, settings_of(family), 3), folder, ranks=ranks)
    if resumed == "resume":
        trainer.resume()
    try:
        trainer.run(None, lambda: ranks.rank == ranks.n - 1 and trainer.step == int(stop))
    except Interrupted:
        assert trainer.step == int(stop)


def command(*arguments: str) -> int:
    """The command line. MINITRANSFORMER_TEST says what befalls rank 1."""
    from minitransformer.cli import main

    job.PATIENCE = 0.5
    rank, _ = job.place_in_job()
    fate = os.environ.get("MINITRANSFORMER_TEST", "")
    if fate == "no mpi4py" or (rank == 1 and fate == "no mpi4py on rank 1"):
        sys.modules["mpi4py"] = None  # type: ignore[assignment]
    if rank == 1 and fate == "another version":
        mt.__version__ = "0.0.7"
    if rank == 1 and fate == "another setting":
        mt.tasks.Copy.epoch_size = 77
        mt.tasks.Copy.__init__.__defaults__ = tuple(
            77 if x == 10_000 else x for x in mt.tasks.Copy.__init__.__defaults__
        )
    if rank == 1 and fate == "another command":
        arguments = (*arguments, "--resume")
    if rank == 1 and fate == "other data":  # as much of it, in another order
        pairs = mt.tasks.Copy.training_pairs
        mt.tasks.Copy.training_pairs = lambda *given: pairs(*given)[::-1]  # type: ignore[method-assign]
    if rank == 0 and fate == "slow disk":
        save = mt.RunFolder.save
        mt.RunFolder.save = lambda *given: (time.sleep(3 * job.PATIENCE), save(*given))  # type: ignore[assignment, method-assign, func-returns-value]
    if rank == 1 and fate == "killed":
        threading.Thread(
            target=end_once_saved, args=[arguments[arguments.index("--out") + 1]], daemon=True
        ).start()
    if rank == 1 and fate == "fails":
        mt.Trainer._report = None  # type: ignore[assignment, method-assign]
    return main(arguments)


def end_once_saved(path: str) -> None:
    """As if the machine had been switched off, once there is something to go on from."""
    while not mt.RunFolder(path).checkpoints():
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGKILL)


def threads(out: str) -> None:
    """How many threads a product has on one of these ranks, while it is measured by itself."""
    ranks = Ranks.of_this_job()
    few = ranks.first(1)
    if ranks.rank == 0:
        model = mt.Transformer(mt.TransformerConfig(13, 13, **CONFIG), 1)
        with mt.Replicas(model, ranks=few).processes():
            found = [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]
        keep(ranks, out, threads=found, cores=few.n_cores)
    ranks.wait()


def package(out: str) -> None:
    """Which package these ranks run."""
    ranks = Ranks.of_this_job()
    keep(ranks, out, files=ranks.objects(mt.__file__))


def device(out: str) -> None:
    """The same steps on the stand-in for a GPU, by each way of exchanging arrays, and on the CPU."""
    import stand_in

    from minitransformer import kernels

    ranks, kernels.usable = Ranks.of_this_job(), lambda *x: False
    cupy = sys.modules["cupy"] = stand_in.StandIn()
    sys.modules["cupy.cuda"] = cupy.cuda
    by_mpi, found, ways = exchange._by_mpi, {"cpu": steps(ranks, dropout=0.0)}, {}
    for way in ("host", "straight"):
        os.environ["MPIR_CVAR_ENABLE_GPU"] = str(int(way == "straight"))
        sent: set[str] = set()

        def noted(comm, others, outgoing, incoming, sent=sent):
            sent.add(type(outgoing[0]).__name__)
            by_mpi(comm, others, outgoing, incoming)

        exchange._by_mpi = noted
        found[way] = steps(Ranks(ranks.comm), dropout=0.0, device="cuda")
        ways[way] = sent
    keep(ranks, out, found=found, ways=ways)


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    sys.exit({f.__name__: f for f in (training, run, command, device, threads, package)}[what](*rest))
