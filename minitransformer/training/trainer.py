"""§5: the training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from minitransformer.backend import Array, generator, keep_freed_memory, peak_memory_mb
from minitransformer.errors import MinitransformerError
from minitransformer.models.transformer import Transformer
from minitransformer.training.batching import Batch, BatchStream
from minitransformer.training.evaluation import evaluate
from minitransformer.training.loss import LabelSmoothedCrossEntropy
from minitransformer.training.optimizer import Adam, clip_grad_norm
from minitransformer.training.progress import Progress
from minitransformer.training.run_folder import RunFolder, RunSettings
from minitransformer.training.schedule import learning_rate

EVALUATION_SEED = 0  # the held-out sets are the same for every seed of the training
DROPOUT = 2  # the stream of random numbers that dropout draws from (1 is the data's, see BatchStream)


class Interrupted(Exception):
    """The run was asked to stop before its end; its checkpoint is saved."""


def train_step(
    model: Transformer,
    loss_fn: LabelSmoothedCrossEntropy,
    optimizer: Adam,
    batches: list[Batch],
    lr: float,
    clip_norm: float | None = None,
    rngs: list[Any] | None = None,
) -> tuple[float, float]:
    """One update from one or more batches: the mean loss of their tokens, and the gradient's norm.

    The gradients of several batches add up to that of one batch with all their sentences, because each loss
    is divided by the number of tokens of all. `rngs`: a generator for each batch's dropout.
    """
    n_tokens = sum(batch.n_tokens for batch in batches)
    model.zero_grad()
    total = 0.0
    for batch, rng in zip(batches, rngs or [None] * len(batches), strict=True):
        logits, cache = model.forward(batch.src_ids, batch.tgt_in, rng)
        loss, loss_cache = loss_fn.forward(logits, batch.tgt_out, n_tokens)
        model.backward(loss_fn.backward(loss_cache), cache)
        total += float(loss)
    norm = clip_grad_norm(model, clip_norm)
    optimizer.step(lr)
    return total, norm


class Trainer:
    """Trains a model on a task, and can stop and continue at any step as if it had never stopped.

    All random numbers are functions of the seed and a count (the epoch for data, the step for dropout), so
    the state of a run is its weights, Adam's moments and a few numbers.
    """

    def __init__(self, settings: RunSettings, folder: RunFolder | None = None, device: str = "cpu") -> None:
        self.settings, self.folder = settings, folder
        config = settings.training
        self.model = Transformer(settings.model, settings.seed, config.dtype, device)
        self.loss_fn = LabelSmoothedCrossEntropy(config.eps_ls, settings.model.pad_id)
        self.optimizer = Adam(self.model, (config.beta1, config.beta2), config.adam_eps)
        self.stream = BatchStream(settings.task, config.batch_tokens, settings.seed)
        self.sets = settings.task.evaluation_sets(generator(EVALUATION_SEED))
        self.step = 0
        self.seconds = 0.0
        self.solved = False
        self.since_report = {"loss": 0.0, "tokens": 0, "seconds": 0.0}

    def run(
        self, progress: Progress | None = None, stop_requested: Callable[[], bool] = lambda: False
    ) -> dict[str, Any]:
        """Train to the end and return the result. Raises Interrupted when `stop_requested()` turns true."""
        keep_freed_memory()
        config = self.settings.training
        progress = progress or Progress(config.steps, self.step)
        while self.step < config.steps and not self.solved:
            started = time.perf_counter()
            lr, norm = self._update()
            self._count_time(started)
            progress.advance()
            evaluating = self.step % config.evaluate_every == 0 or self.step == config.steps
            if evaluating or self.step % config.log_every == 0:
                self._report(progress, lr, norm, evaluating)
            if stop_requested():
                self.save()
                progress.close()
                raise Interrupted
        progress.close()
        return self._result()

    def _update(self) -> tuple[float, float]:
        config, self.step = self.settings.training, self.step + 1
        lr = learning_rate(self.step, self.settings.model.d_model, config)
        batches = [self.stream.next() for _ in range(config.accumulate)]
        rngs = [generator(self.settings.seed, DROPOUT, self.step, i) for i in range(config.accumulate)]
        loss, norm = train_step(self.model, self.loss_fn, self.optimizer, batches, lr, config.clip_norm, rngs)
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise MinitransformerError(
                f"step {self.step}: loss {loss}, gradient norm {norm}; try a lower learning_rate or a clip_norm"
            )
        n_tokens = sum(batch.n_tokens for batch in batches)
        self.since_report["loss"] += loss * n_tokens
        self.since_report["tokens"] += n_tokens
        return lr, norm

    def _count_time(self, started: float) -> None:
        seconds = time.perf_counter() - started
        self.seconds += seconds
        self.since_report["seconds"] += seconds

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
            started = time.perf_counter()
            record["valid"] = evaluate(self.model, self.sets["valid"])
            self.seconds += time.perf_counter() - started
            solved_at = self.settings.training.solved_at
            self.solved = solved_at is not None and record["valid"]["exact_match"] >= solved_at
        record["seconds"] = self.seconds
        self.since_report = {"loss": 0.0, "tokens": 0, "seconds": 0.0}
        progress.report(record)
        if self.folder is not None:
            self.folder.log(record)
        if evaluating:
            self.save()

    def _result(self) -> dict[str, Any]:
        """The final figures, from the sets that neither trained nor steered."""
        started = time.perf_counter()
        tests = {name: evaluate(self.model, pairs) for name, pairs in self.sets.items() if name != "valid"}
        self.seconds += time.perf_counter() - started
        result = {
            "task": self.settings.task.name,
            "seed": self.settings.seed,
            "exact_match": tests["test"]["exact_match"],
            "token_accuracy": tests["test"]["token_accuracy"],
            "sets": tests,
            "steps": self.step,
            "seconds": self.seconds,
            "peak_memory_mb": peak_memory_mb(),
            "n_parameters": self.model.n_parameters(),
        }
        if self.folder is not None:
            self.folder.write_result(result)
        return result

    def save(self) -> None:
        """Write a checkpoint into the run folder, if there is one."""
        if self.folder is None:
            return
        arrays: dict[str, Array] = {f"model.{name}": x for name, x in self.model.state_dict().items()}
        arrays |= {f"adam.{name}": x for name, x in self.optimizer.state_dict().items()}
        meta = {
            "step": self.step,
            "epoch": self.stream.epoch,
            "index": self.stream.index,
            "seconds": self.seconds,
            "solved": self.solved,
            "since_report": self.since_report,
        }
        self.folder.save(self.step, arrays, meta)

    def resume(self) -> None:
        """Continue from the folder's newest checkpoint; from the start if there is none yet."""
        if self.folder is None or not self.folder.checkpoints():
            return
        arrays, meta = self.folder.load()
        self.model.load_state_dict(_under("model.", arrays))
        self.optimizer.load_state_dict(_under("adam.", arrays))
        self.step, self.seconds, self.solved = meta["step"], meta["seconds"], meta["solved"]
        self.stream.epoch, self.stream.index = meta["epoch"], meta["index"]
        self.since_report = meta["since_report"]
        self.folder.forget_after(self.step)


def load_model(folder: RunFolder, device: str = "cpu") -> Transformer:
    """The model of a run, with the weights of its newest checkpoint."""
    settings = folder.settings()
    arrays, _ = folder.load()
    model = Transformer(settings.model, settings.seed, settings.training.dtype, device)
    model.load_state_dict(_under("model.", arrays))
    return model


def _under(prefix: str, arrays: dict[str, Array]) -> dict[str, Array]:
    return {name[len(prefix) :]: x for name, x in arrays.items() if name.startswith(prefix)}
