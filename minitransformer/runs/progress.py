"""The progress of a run: a line per report and, in a terminal where tqdm is installed, a bar below them."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

from minitransformer.streams import say


class Progress:
    """Prints the progress of a run on standard error; with `quiet`, prints nothing."""

    def __init__(self, steps: int, done: int = 0, quiet: bool = False) -> None:
        self.steps, self.quiet = steps, quiet
        self._bar: Any = None
        if quiet or not sys.stderr.isatty():
            return
        try:
            from tqdm import tqdm
        except ImportError:
            return
        self._bar = tqdm(total=steps, initial=done, unit="step", leave=False)

    def advance(self) -> None:
        """Count one more step."""
        if self._bar is not None:
            with suppress(OSError):  # the terminal has gone
                self._bar.update(1)

    def report(self, record: dict[str, Any]) -> None:
        """Print a record of metrics.jsonl."""
        left = record["seconds"] * (self.steps / record["step"] - 1)
        text = (
            f"step {record['step']:>{len(str(self.steps))}}/{self.steps}  loss {record['loss']:.4f}"
            f"  lr {record['lr']:.1e}  {record['tokens_per_s']:,.0f} tokens/s"
            f"  {_clock(record['seconds'])}, left {_clock(left)}"
        )
        if "valid" in record:
            valid = record["valid"]
            loss = f"loss {valid['loss']:.4f}"
            if "exact_match" not in valid:
                figures = loss
            else:
                exact = f"{valid['exact_match']:.2%} exact"
                figures = f"{loss}, BLEU {valid['bleu']:.2f}" if "bleu" in valid else exact
            sharpness = f", sharp {record['cross_attention']:.2f}" if "cross_attention" in record else ""
            text += f"  valid: {figures}{sharpness}"
        self.say(text)

    def say(self, text: str) -> None:
        """Print one line, in place of the bar."""
        if self.quiet:
            return
        if self._bar is not None:
            self._bar.clear()
        say(text)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _clock(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
