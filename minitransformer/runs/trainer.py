"""§5: the training loop, as a run that reports, evaluates, stops and resumes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Any

from minitransformer.backend import generator, gpu_memory_mb, silent_overflow, to_floats, use_gpu
from minitransformer.errors import CheckpointError, ConfigError, MinitransformerError
from minitransformer.models.families import build
from minitransformer.models.recompute import Keep
from minitransformer.parallel.ranks import Ranks
from minitransformer.parallel.replicas import GRADIENTS, Replicas, default_processes
from minitransformer.parallel.sharded_adam import ShardedAdam
from minitransformer.parallel.training_step import train_step
from minitransformer.runs.estimate import in_words, require_memory, training_mb
from minitransformer.runs.evaluation import cross_attention_sharpness, final_sets, held_out, measure
from minitransformer.runs.interrupt import Interrupted
from minitransformer.runs.progress import Progress
from minitransformer.runs.run_folder import RunFolder, as_folder
from minitransformer.runs.settings import MAY_DIFFER, MAY_DIFFER_UNLESS_LEARNED, RunSettings
from minitransformer.runs.state import (
    MOMENTS_PREFIX,
    WEIGHTS_PREFIX,
    RunState,
    below,
    digest,
    newest_state,
    saved_weights,
)
from minitransformer.system import ONE_PROCESS, can_fork, keep_freed_memory, memory_mb
from minitransformer.training.batching import Batch, BatchStream, longest_input, split_batch
from minitransformer.training.loss import LabelSmoothedCrossEntropy
from minitransformer.training.schedule import learning_rate
from minitransformer.validation.settings import one_of, require

# The stream of random numbers that dropout draws from (1 is the data's, see BatchStream).
DROPOUT = 2
# The number of validation sentences whose cross-attention is measured.
LOOKED_AT = 8


class Trainer:
    """Trains a model on a task, and can stop and continue at any step as if it had never stopped.

    All random numbers are functions of the seed and a count (the epoch for data, the step for dropout), so
    the state of a run is its weights, Adam's moments and a few numbers.

    With several `ranks` (by default those of the MPI job that this process belongs to), each has a Trainer and calls
    the same methods; only rank 0 writes files.
    """

    def __init__(
        self,
        settings: RunSettings,
        folder: RunFolder | str | Path | None = None,
        device: str = "cpu",
        ranks: Ranks | None = None,
    ) -> None:
        self._began = time.perf_counter()
        self.ranks, config = ranks or Ranks.of_this_job(), settings.training
        self.ranks.agree(settings.as_dict() | {"device": device})
        self.folder = None if folder is None or self.ranks.rank > 0 else as_folder(folder)
        if device == "cuda" and self.ranks.n > 1:
            use_gpu(self.ranks.on_machine)
        if device == "cpu":
            require_memory(settings.model, config)
        self.model = build(settings.model, settings.seed, config.dtype, device)
        # Another processor may round the initial weights differently.
        self.ranks.all_gather(self.model.flatten().data)
        asked = config.processes or self._default_processes(config.accumulate * config.batch_tokens)
        # Two processes on one GPU would take turns.
        processes = max(1 if device == "cuda" else asked, self.ranks.n)
        self.n_parts = math.ceil(processes / config.accumulate)  # of a batch
        # Recorded, so that a run resumed on other machines continues as it was.
        self.settings = replace(settings, training=replace(config, processes=processes))
        keep: Keep = "inputs" if config.recompute else "caches"
        self.replicas = Replicas(self.model, self._replicas_here(processes), keep, self.ranks)
        self.loss_fn = LabelSmoothedCrossEntropy(config.eps_ls, settings.model.pad_id)
        betas = config.beta1, config.beta2
        self.optimizer = ShardedAdam(self.model, self.ranks, betas, config.adam_eps, config.weight_decay)
        self.stream = BatchStream(settings.task, config.batch_tokens, settings.seed, settings.make_batch)
        self.sets = held_out(settings.task)
        every_pair = [*self.stream.pairs(), *chain(*self.sets.values())]
        settings.check_answers(self.sets["valid"])
        longest = longest_input(every_pair, settings.make_batch)
        self.about = {
            "data": digest(every_pair),
            "held_out": digest(chain(*self.sets.values())),
            "settings": settings.as_json(),
        }
        self.ranks.agree({"sentence pairs": len(every_pair), "SHA-256 of their ids": self.about["data"]})
        fits = longest <= settings.model.max_len
        require(fits, "max_len", f"at least {longest} for the sequences of this task", settings.model.max_len)
        self.state = RunState()
        self.resumed = False
        self._newest: list[Path] = []  # the checkpoint that the run was resumed from

    @property
    def step(self) -> int:
        """How many updates have been made."""
        return self.state.step

    def _default_processes(self, tokens: int) -> int:
        """How many processes all ranks together should have, decided by the cores of rank 0."""
        n, cores = self.ranks.n, self.ranks.n_cores
        return self.ranks.broadcast_from_root(lambda: n * default_processes(self.model, tokens // n, cores))

    def _replicas_here(self, processes: int) -> int:
        """How many replicas this rank has: its share of the processes, but no more than suit rank 0's machine."""
        fit = max(self.ranks.n_cores, GRADIENTS // self.model.n_parameters())
        return min(math.ceil(processes / self.ranks.n), self.ranks.broadcast_from_root(lambda: fit))

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of the run so far, evaluation and checkpoints included."""
        return self.state.seconds + time.perf_counter() - self._began

    def run(
        self, progress: Progress | None = None, stop_requested: Callable[[], bool] = lambda: False
    ) -> dict[str, Any]:
        """Train to the end and return the result.

        Raises Interrupted, after saving, when `stop_requested()` becomes true, and ConfigError if the folder
        already holds a run (which `resume` would continue), or if another process trains in it.
        """
        keep_freed_memory()
        try:
            self.ranks.broadcast_from_root(self._begin_folder)
            if self.settings.init and self.step == 0:
                self.save()  # the other run may be gone when this one is resumed
            quiet = self.ranks.rank > 0
            progress = progress or Progress(self.settings.training.steps, self.step, quiet)
            return self._run(progress, stop_requested)
        finally:
            if self.folder is not None:
                self.folder.release()

    def _run(self, progress: Progress, stop_requested: Callable[[], bool]) -> dict[str, Any]:
        config = self.settings.training
        where = f", run folder {self.folder.path}" if self.folder is not None else ""
        on_gpu = self._gpu_memory()
        mb = training_mb(self.settings.model, config, len(self.replicas.models))
        progress.say(
            f"{self.settings.task.name}: {self.model.n_parameters():,} parameters, at most {config.steps} steps"
            + f", about {in_words(mb)} of memory" * (not on_gpu)
            + where
            + f", {self.ranks.n} ranks" * (self.ranks.n > 1)
        )
        if not on_gpu and (there := memory_mb()) is not None and mb > there:
            progress.say(
                f"this machine has {in_words(there)}; a smaller batch_tokens, or recompute=true, takes less"
            )
        if self.resumed and self.step == 0:
            progress.say("no checkpoint of a step yet: this run begins with step 1")
        for remark in self.settings.task.remarks():
            progress.say(remark)
        if self.state.ended or self.step >= config.steps:
            early = ", because it was solved or grew no better" * self.state.ended
            longer = "steps=N" + " solved_at=none patience=none" * self.state.ended
            progress.say(
                f"this run has ended, at step {self.step}{early}; --resume --set {longer} trains it longer"
            )
        with self.replicas.processes():
            if len(self.replicas.models) > 1 and not can_fork():
                progress.say(ONE_PROCESS)
            self._train(progress, stop_requested)
            progress.close()
            return self._result(stop_requested)

    def _begin_folder(self) -> None:
        if self.folder is None:
            return
        if not self.resumed and self.step == 0:
            self.folder.create(self.settings)
        self.folder.claim()
        if self.resumed:
            if self.folder.checkpoints()[-1:] != self._newest:
                raise ConfigError(
                    f"{self.folder.path}: another process has gone on with this run meanwhile; resume it once more"
                )
            self.folder.complete(self.settings)
            self.folder.forget_after(self.step)

    def _train(self, progress: Progress, stop_requested: Callable[[], bool]) -> None:
        config = self.settings.training
        while self.step < config.steps and not self.state.ended:
            started = time.perf_counter()
            lr, norm = self._update()
            self.state.since_report["seconds"] += time.perf_counter() - started
            progress.advance()
            evaluating = self.step % config.evaluate_every == 0 or self.step == config.steps
            if evaluating or self.step % config.log_every == 0:
                self._report(progress, lr, norm, evaluating)
            if self.ranks.any(stop_requested()):
                self.save()
                progress.close()
                raise Interrupted

    def _update(self) -> tuple[float, float]:
        config = self.settings.training
        self.state.step += 1
        lr = learning_rate(self.step, self.settings.model.d_model, config)
        batches = [
            part for _ in range(config.accumulate) for part in split_batch(self.stream.next(), self.n_parts)
        ]
        rngs = [generator(self.settings.seed, DROPOUT, self.step, i) for i in range(len(batches))]
        loss, norm = train_step(
            self.replicas, self.loss_fn, self.optimizer, batches, lr, config.clip_norm, rngs
        )
        self._require_finite(loss=loss, gradient_norm=norm)
        n_tokens = sum(batch.n_tokens for batch in batches)
        self.state.since_report["loss"] += loss * n_tokens
        self.state.since_report["tokens"] += n_tokens
        return lr, norm

    def _require_finite(self, **numbers: float) -> None:
        if not all(map(math.isfinite, numbers.values())):
            found = ", ".join(f"{name} {number}" for name, number in numbers.items())
            raise MinitransformerError(f"step {self.step}: {found}; try a lower learning_rate or a clip_norm")

    def _report(self, progress: Progress, lr: float, norm: float, evaluating: bool) -> None:
        """Write a line of metrics; with `evaluating`, look at the validation set and save a checkpoint too."""
        since = self.state.since_report
        record: dict[str, Any] = {
            "step": self.step,
            "loss": since["loss"] / since["tokens"],
            "lr": lr,
            "gradient_norm": norm,
            "tokens_per_s": since["tokens"] / since["seconds"],
        }
        if evaluating:
            model: Any = self.model
            batch = self.settings.make_batch(self.sets["valid"][:LOOKED_AT])
            # The last update may have made the weights so large that the logits overflow.
            with silent_overflow():
                logits, cache = model.forward(*batch.inputs)
                self._require_finite(logits=to_floats(logits.sum())[0])
            record["valid"] = self._evaluate("valid")
            if isinstance(batch, Batch):
                record["cross_attention"] = cross_attention_sharpness(cache, batch)
            ending = self._look_for_the_best(record["valid"])
        record["seconds"] = self.seconds
        self.state.since_report = {"loss": 0.0, "tokens": 0, "seconds": 0.0}
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
        """Save the weights if they are the best so far; return why the training ends here, or None if it goes on."""
        config, task = self.settings.training, self.settings.task
        metric = task.selection_metric
        one_of(f"selection_metric of task {task.name}", metric, valid)
        value, loss = float(valid[metric]), valid["loss"]
        self._require_finite(**{metric: value, "loss": loss})
        if self.state.is_better(value, loss, task.larger_is_better):
            self.state.best = {"step": self.step, "value": value, "loss": loss}
            if self.folder is not None:
                self.folder.save_weights("best", saved_weights(self.model), {"step": self.step, **self.about})
        waited = self.step - self.state.best["step"]
        if config.solved_at is not None and valid["exact_match"] >= config.solved_at:
            self.state.ended = True
            return f"solved: exact match {valid['exact_match']:.2%} on the validation set"
        if config.patience is not None and waited >= config.patience * config.evaluate_every:
            self.state.ended = True
            best = f"the best weights are those after step {self.state.best['step']}"
            return f"no better {metric} for {waited} steps; {best}"
        return None

    def _result(self, stop_requested: Callable[[], bool]) -> dict[str, Any]:
        """The final figures, on the sets that neither trained nor steered the model (or "valid", if there are none)."""
        tests = {}
        for name in final_sets(self.sets):
            tests[name] = self._evaluate(name)
            if self.ranks.any(stop_requested()):  # all is saved; a resumed run evaluates once more
                raise Interrupted
        figures = tests.get("test") or tests.get("valid") or self._evaluate("valid")
        result = {
            **{name: x for name, x in figures.items() if isinstance(x, float)},
            "task": self.settings.task.name,
            "seed": self.settings.seed,
            "sets": tests,
            "best": self.state.best,
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
        """Write a checkpoint into the run folder, if there is one. (All ranks call it: each has a share of m and v.)"""
        if self.folder is None and self.ranks.n == 1:
            return
        moments = self.optimizer.state_dict()
        if self.folder is not None:
            place, keep = self.stream, self.settings.training.keep_checkpoints
            state = replace(self.state, epoch=place.epoch, index=place.index, seconds=self.seconds)
            arrays = saved_weights(self.model) | {f"{MOMENTS_PREFIX}{name}": x for name, x in moments.items()}
            self.folder.save(state.step, arrays, {**asdict(state), **self.about}, keep)
        # Nobody ends the job while rank 0 writes.
        self.ranks.wait()

    def begin_with(self, run: RunFolder) -> None:
        """Begin with the last weights of another run, in place of random ones.

        Raises ConfigError, naming the setting, unless both models compute alike, apart from dropout and, if positions
        are not learned, max_len and the random positions of training.
        """
        model, _ = self.ranks.broadcast_from_root(run.model_settings)
        mine = asdict(self.settings.model)
        free = MAY_DIFFER if model.positions == "learned" else MAY_DIFFER + MAY_DIFFER_UNLESS_LEARNED
        for name, x in asdict(model).items():
            same = name in free or mine.get(name) == x
            require(same, name, f"{x!r}, as in {run.path}, whose weights are to be used", mine.get(name))
        weights, _ = self.ranks.broadcast_from_root(run.load)
        try:
            self.model.load_state_dict(below(WEIGHTS_PREFIX, weights))
        except CheckpointError as error:
            raise CheckpointError(f"{run.path}: {error}") from None
        self.settings = replace(self.settings, init=str(run.path.absolute()))

    def resume(self) -> None:
        """Continue from the folder's newest checkpoint; from the start if there is none yet."""
        self.resumed, self._newest, found = self.ranks.broadcast_from_root(self._newest_state)
        if found is None and self.settings.init:  # stopped before it had saved the weights of the other run
            try:
                self.begin_with(RunFolder(self.settings.init))
            except (CheckpointError, ConfigError) as error:
                raise CheckpointError(
                    f"this run was stopped before it had saved the weights that it begins with, and they cannot be "
                    f"read any more ({error}); remove its folder, and begin anew"
                ) from None
        if found is not None:
            self.state, weights, moments = found
            try:
                self.model.load_state_dict(weights)
                self.optimizer.load_state_dict(moments)
            except CheckpointError as error:
                raise CheckpointError(f"{self._newest[0]}: {error}") from None
            self.stream.epoch, self.stream.index = self.state.epoch, self.state.index

    def _newest_state(self) -> tuple[bool, list[Path], Any]:
        """Whether there is a folder, its newest checkpoint, and the state in it."""
        if self.folder is None:
            return False, [], None
        newest = self.folder.checkpoints()[-1:]
        if not newest and sum("valid" in record for record in self.folder.metrics()) > 1:
            raise CheckpointError(
                f"{self.folder.path}: no checkpoint is left of this run, which has saved some; put one back, or begin "
                f"a new run in another folder"
            )
        return True, newest, newest_state(self.folder, self.about, self.settings.training.steps)
