"""§5: the training loop."""

from __future__ import annotations

import hashlib
import math
import time
from array import array
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from minitransformer.backend import (
    Array,
    can_fork,
    generator,
    gpu_memory_mb,
    keep_freed_memory,
    silent_overflow,
    to_floats,
    use_gpu,
)
from minitransformer.config import one_of, require
from minitransformer.errors import CheckpointError, InputError, MinitransformerError
from minitransformer.models.recompute import Keep
from minitransformer.models.transformer import Transformer
from minitransformer.tasks.task import Pair
from minitransformer.training.batching import BatchStream, make_batch, shared
from minitransformer.training.loss import LabelSmoothedCrossEntropy
from minitransformer.training.measure import measure
from minitransformer.training.optimizer import Adam
from minitransformer.training.progress import Progress
from minitransformer.training.ranks import Ranks
from minitransformer.training.replicas import GRADIENTS, Replicas, processes_that_pay, train_step
from minitransformer.training.run_folder import MODEL, RunFolder, RunSettings
from minitransformer.training.schedule import learning_rate

EVALUATION_SEED = 0  # the held-out sets are the same for every seed of the training
DROPOUT = 2  # the stream of random numbers that dropout draws from (1 is the data's, see BatchStream)


class Interrupted(Exception):
    """The run was asked to stop before its end; its checkpoint is saved."""


class Trainer:
    """Trains a model on a task, and can stop and continue at any step as if it had never stopped.

    All random numbers are functions of the seed and a count (the epoch for data, the step for dropout), so
    the state of a run is its weights, Adam's moments and a few numbers.

    Of several `ranks` (by default those of the MPI job that this process belongs to) each has a Trainer, and calls the
    same methods; rank 0 alone writes.
    """

    def __init__(
        self,
        settings: RunSettings,
        folder: RunFolder | None = None,
        device: str = "cpu",
        ranks: Ranks | None = None,
    ) -> None:
        self._began = time.perf_counter()
        self.ranks, config = ranks or Ranks.of_this_job(), settings.training
        self.ranks.agree(settings.as_dict() | {"device": device})
        self.folder = folder if self.ranks.rank == 0 else None
        if device == "cuda" and self.ranks.n > 1:
            use_gpu(self.ranks.on_machine)
        self.model = Transformer(settings.model, settings.seed, config.dtype, device)
        self.ranks.all_gather(
            self.model.flatten().data
        )  # another processor may round the first weights differently
        asked = config.processes or self._processes_that_pay(config.accumulate * config.batch_tokens)
        processes = max(1 if device == "cuda" else asked, self.ranks.n)  # two on a GPU would take turns
        # written down, so that a run resumed on other machines goes on as it was
        self.settings = replace(settings, training=replace(config, processes=processes))
        keep: Keep = "inputs" if config.recompute else "caches"
        self.replicas = Replicas(self.model, self._replicas_here(processes), keep, self.ranks)
        self.loss_fn = LabelSmoothedCrossEntropy(config.eps_ls, settings.model.pad_id)
        self.optimizer = Adam(self.model, (config.beta1, config.beta2), config.adam_eps, self.ranks)
        self.stream = BatchStream(settings.task, config.batch_tokens, settings.seed)
        self.sets = settings.task.evaluation_sets(generator(EVALUATION_SEED))
        for name in {"valid", *self.sets}:
            if not self.sets.get(name):
                raise InputError(
                    f"task {settings.task.name}: expected pairs in the evaluation set {name!r}, got none"
                )
        every_pair = [*self.stream.pairs(), *chain(*self.sets.values())]
        longest = 1 + max(len(side) for pair in every_pair for side in pair)
        self.data = _digest(every_pair)
        self.ranks.agree({"sentence pairs": len(every_pair), "SHA-256 of their ids": self.data})
        fits = longest <= settings.model.max_len
        require(fits, "max_len", f"at least {longest} for the sequences of this task", settings.model.max_len)
        self.step = 0
        self.ended = False  # before its last step
        self.best = {"step": 0, "value": 0.0, "loss": 0.0}  # the evaluation that was best so far
        self.resumed = False
        self.since_report = {"loss": 0.0, "tokens": 0, "seconds": 0.0}
        self._earlier = 0.0  # seconds of the run before it was resumed

    def _processes_that_pay(self, tokens: int) -> int:
        """On all ranks together. Rank 0's machine decides."""
        n, cores = self.ranks.n, self.ranks.n_cores
        return self.ranks.from_first(lambda: n * processes_that_pay(self.model, tokens // n, cores))

    def _replicas_here(self, processes: int) -> int:
        """This rank's share of them; of those that another machine began with, no more than are good for this one."""
        fit = max(self.ranks.n_cores, GRADIENTS // self.model.n_parameters())
        return min(math.ceil(processes / self.ranks.n), self.ranks.from_first(lambda: fit))

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of the run so far, evaluation and checkpoints included."""
        return self._earlier + time.perf_counter() - self._began

    def run(
        self, progress: Progress | None = None, stop_requested: Callable[[], bool] = lambda: False
    ) -> dict[str, Any]:
        """Train to the end and return the result.

        Raises Interrupted, with all saved, when `stop_requested()` turns true, and ConfigError if the folder
        already holds a run (which `resume` would continue), or if another process trains in it.
        """
        keep_freed_memory()
        try:
            self.ranks.from_first(self._begin_folder)
            quiet = self.ranks.rank > 0
            progress = progress or Progress(self.settings.training.steps, self.step, quiet)
            return self._run(progress, stop_requested)
        finally:
            if self.folder is not None:
                self.folder.release()

    def _run(self, progress: Progress, stop_requested: Callable[[], bool]) -> dict[str, Any]:
        config = self.settings.training
        where = f", run folder {self.folder.path}" if self.folder is not None else ""
        progress.say(
            f"{self.settings.task.name}: {self.model.n_parameters():,} parameters, "
            f"at most {config.steps} steps{where}" + f", {self.ranks.n} ranks" * (self.ranks.n > 1)
        )
        for remark in self.settings.task.remarks():
            progress.say(remark)
        with self.replicas.processes():
            if len(self.replicas.models) > 1 and not can_fork():
                progress.say("in one process only; for more, on Linux: pip install threadpoolctl")
            self._train(progress, stop_requested)
            progress.close()
            return self._result()

    def _begin_folder(self) -> None:
        if self.folder is None:
            return
        if not self.resumed and self.step == 0:
            self.folder.create(self.settings)
        self.folder.claim()
        if self.resumed:
            self.folder.forget_after(self.step)

    def _train(self, progress: Progress, stop_requested: Callable[[], bool]) -> None:
        config = self.settings.training
        while self.step < config.steps and not self.ended:
            started = time.perf_counter()
            lr, norm = self._update()
            self.since_report["seconds"] += time.perf_counter() - started
            progress.advance()
            evaluating = self.step % config.evaluate_every == 0 or self.step == config.steps
            if evaluating or self.step % config.log_every == 0:
                self._report(progress, lr, norm, evaluating)
            if self.ranks.any(stop_requested()):
                self.save()
                progress.close()
                raise Interrupted

    def _update(self) -> tuple[float, float]:
        config, self.step = self.settings.training, self.step + 1
        lr = learning_rate(self.step, self.settings.model.d_model, config)
        n_parts = math.ceil((config.processes or 1) / config.accumulate)
        batches = [part for _ in range(config.accumulate) for part in shared(self.stream.next(), n_parts)]
        rngs = [generator(self.settings.seed, DROPOUT, self.step, i) for i in range(len(batches))]
        loss, norm = train_step(
            self.replicas, self.loss_fn, self.optimizer, batches, lr, config.clip_norm, rngs
        )
        self._require_finite(loss=loss, gradient_norm=norm)
        n_tokens = sum(batch.n_tokens for batch in batches)
        self.since_report["loss"] += loss * n_tokens
        self.since_report["tokens"] += n_tokens
        return lr, norm

    def _require_finite(self, **numbers: float) -> None:
        if not all(map(math.isfinite, numbers.values())):
            found = ", ".join(f"{name} {number}" for name, number in numbers.items())
            raise MinitransformerError(f"step {self.step}: {found}; try a lower learning_rate or a clip_norm")

    def _report(self, progress: Progress, lr: float, norm: float, evaluating: bool) -> None:
        """Write a line of metrics; with `evaluating`, look at the validation set and save a checkpoint too."""
        since = self.since_report
        record: dict[str, Any] = {
            "step": self.step,
            "loss": since["loss"] / since["tokens"],
            "lr": lr,
            "gradient_norm": norm,
            "tokens_per_s": since["tokens"] / since["seconds"],
        }
        if evaluating:
            batch = make_batch(self.sets["valid"][:1])
            with silent_overflow():  # the last update may have been the one too far
                logits, _ = self.model.forward(batch.src_ids, batch.tgt_in, keep="nothing")
                self._require_finite(logits=to_floats(logits.sum())[0])
            record["valid"] = self._evaluate("valid")
            ending = self._look_for_the_best(record["valid"])
        record["seconds"] = self.seconds
        self.since_report = {"loss": 0.0, "tokens": 0, "seconds": 0.0}
        progress.report(record)
        if self.folder is not None:
            self.folder.log(record)
        if evaluating:
            if ending:
                progress.say(ending)
            self.save()

    def _evaluate(self, name: str) -> dict[str, Any]:
        return measure(self.replicas, self.settings.task, name, self.sets[name])

    def _look_for_the_best(self, valid: dict[str, Any]) -> str | None:
        """Keep the weights that did best; if the training has come to its end, say why."""
        config, best_by = self.settings.training, self.settings.task.best_by
        one_of(f"best_by of task {self.settings.task.name}", best_by, valid)
        figures = {"value": float(valid[best_by]), "loss": valid["loss"]}
        if self.best["step"] == 0 or _better(figures, self.best):
            self.best = {"step": self.step, **figures}
            if self.folder is not None:
                self.folder.save_weights("best", self._weights(), {"step": self.step})
        waited = self.step - self.best["step"]
        if config.solved_at is not None and valid["exact_match"] >= config.solved_at:
            self.ended = True
            return f"solved: exact match {valid['exact_match']:.2%} on the validation set"
        if config.patience is not None and waited >= config.patience * config.evaluate_every:
            self.ended = True
            return f"no better {best_by} for {waited} steps; the best weights are those after step {self.best['step']}"
        return None

    def _result(self) -> dict[str, Any]:
        """The final figures, from the sets that neither trained nor steered (or "valid", if there are none)."""
        tests = {name: self._evaluate(name) for name in final_sets(self.sets)}
        figures = tests["test" if "test" in tests else "valid"]
        result = {
            **{name: x for name, x in figures.items() if isinstance(x, float)},
            "task": self.settings.task.name,
            "seed": self.settings.seed,
            "sets": tests,
            "best": self.best,
            "steps": self.step,
            "seconds": self.seconds,
            "peak_memory_mb": self.replicas.peak_memory_mb(),
            **self._gpu_memory(),
            "n_parameters": self.model.n_parameters(),
        }
        if self.folder is not None:
            self.folder.write_result(result)
        return result

    def _gpu_memory(self) -> dict[str, float]:
        used = gpu_memory_mb(self.model.flatten().data)
        return {} if used is None else {"gpu_memory_mb": used}

    def save(self) -> None:
        """Write a checkpoint into the run folder, if there is one. (All ranks: each has its share of m and v.)"""
        if self.folder is None and self.ranks.n == 1:
            return
        moments = {f"adam.{name}": x for name, x in self.optimizer.state_dict().items()}
        if self.folder is not None:
            arrays, keep = self._weights() | moments, self.settings.training.keep_checkpoints
            self.folder.save(self.step, arrays, self._numbers() | {"data": self.data}, keep)
        self.ranks.wait()  # nobody ends the job while rank 0 writes

    def _weights(self) -> dict[str, Array]:
        return {f"{MODEL}{name}": x for name, x in self.model.state_dict().items()}

    def _numbers(self) -> dict[str, Any]:
        """What a checkpoint holds besides arrays."""
        return {
            "step": self.step,
            "epoch": self.stream.epoch,
            "index": self.stream.index,
            "seconds": self.seconds,
            "ended": self.ended,
            "best": self.best,
            "since_report": self.since_report,
        }

    def resume(self) -> None:
        """Continue from the folder's newest checkpoint; from the start if there is none yet."""
        self.resumed, found = self.ranks.from_first(self._newest_checkpoint)
        if found is None:
            return
        arrays, meta = found
        self.model.load_state_dict(_under(MODEL, arrays))
        self.optimizer.load_state_dict(_under("adam.", arrays))
        self.step, self._earlier, self.ended = meta["step"], meta["seconds"], meta["ended"]
        self.best = meta["best"]
        self.stream.epoch, self.stream.index = meta["epoch"], meta["index"]
        self.since_report = meta["since_report"]

    def _newest_checkpoint(self) -> tuple[bool, tuple[dict[str, Array], dict[str, Any]] | None]:
        """Whether there is a folder, and what it holds."""
        if self.folder is None:
            return False, None
        if not self.folder.checkpoints():
            return True, None
        arrays, meta = self.folder.load()
        if wrong := [name for name, x in self._numbers().items() if not _like(meta.get(name), x)]:
            raise CheckpointError(
                f"{self.folder.path}: the newest checkpoint lacks a sound {', '.join(wrong)}"
            )
        if meta.get("data") != self.data:
            raise CheckpointError(
                f"{self.folder.path}: data: expected the sentence pairs that this run began with, got others; restore "
                f"its files, or begin a new run"
            )
        return True, (arrays, meta)


def final_sets(sets: dict[str, list[Pair]]) -> list[str]:
    """The names of the sets that measure a model: all but "valid", if there are others."""
    return [name for name in sets if name != "valid"] or ["valid"]


def load_model(run: RunFolder | str | Path, device: str = "cpu", weights: str = "last") -> Transformer:
    """The model of a run, with the weights of its newest checkpoint, or its "best" or "average" ones.

    Raises CheckpointError if they are not there or damaged.
    """
    folder = run if isinstance(run, RunFolder) else RunFolder(run)
    config, dtype = folder.model_settings()
    arrays, _ = folder.load(weights)
    model = Transformer(config, 0, dtype, device)
    model.load_state_dict(_under(MODEL, arrays))
    return model


def _better(figures: dict[str, float], best: dict[str, Any]) -> bool:
    """Whether these are better; of equal values the one with less loss is."""
    return (figures["value"], -figures["loss"]) > (best["value"], -best["loss"])


def _like(x: Any, own: Any) -> bool:
    """Whether `x` is a finite number of the type of `own`, a whole one not below 0, or a dictionary of such numbers."""
    if isinstance(own, dict):
        return isinstance(x, dict) and x.keys() == own.keys() and all(_like(x[k], own[k]) for k in own)
    return type(x) is type(own) and math.isfinite(x) and (isinstance(x, float) or x >= 0)


def _digest(pairs: list[Pair]) -> str:
    """A name for exactly these pairs."""
    digest = hashlib.sha256()
    for source, target in pairs:
        digest.update(array("q", [*source, -1, *target, -1]).tobytes())
    return digest.hexdigest()


def _under(prefix: str, arrays: dict[str, Array]) -> dict[str, Array]:
    return {name[len(prefix) :]: x for name, x in arrays.items() if name.startswith(prefix)}
