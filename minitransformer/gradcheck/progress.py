"""The progress of a long check, on standard error: first how long it will take, then how far it is."""

from __future__ import annotations

import time

from minitransformer.streams import say

LONG = 10.0  # seconds: shorter checks say nothing, and longer ones report this often


class Progress:
    """The progress of a check that evaluates forward `total` times, each of which takes about `seconds`."""

    def __init__(self, total: int, seconds: float) -> None:
        self.total, self.done = total, 0
        self.start = self.said = time.perf_counter()
        if total * seconds >= LONG:
            say(f"gradcheck: forward runs about {total:,} times, in about {readable(total * seconds)}")

    def step(self) -> None:
        """Count an evaluation, and say how far the check is, if that was said long ago."""
        self.done += 1
        now = time.perf_counter()
        if now - self.said < LONG:
            return
        self.said, share = now, self.done / self.total
        if share < 1:
            left = (now - self.start) * (1 / share - 1)
            say(f"gradcheck: {share:.0%} done, about {readable(left)} left")
        else:
            say("gradcheck: looks again at numbers in doubt")


def readable(seconds: float) -> str:
    """A duration in seconds, minutes or hours, rounded."""
    for unit, size in (("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"
