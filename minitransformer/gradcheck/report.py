"""The results of a gradient check, as a table."""

from __future__ import annotations

from dataclasses import dataclass, field

ALONG = "all, along random directions"
UNDECIDED = "UNDECIDED"
METHODS = {"complex": "complex step", "central": "central differences"}


@dataclass(frozen=True)
class Row:
    """The result for one input or parameter: its worst entry, and a hint if that is wrong."""

    name: str
    shape: tuple[int, ...]
    index: tuple[int, ...]
    analytic: float
    numeric: float
    relative_error: float
    # Entries left out. Kinks: forward has no derivative there (ReLU at 0, a tie for a maximum). Unsure: the numerical
    # derivative cannot be known to the tolerance (bends on both sides, or large numbers, which leave few digits).
    kinks: int = 0
    unsure: int = 0
    checked: int = 1  # entries that were compared
    hint: str = ""


@dataclass(frozen=True)
class GradcheckReport:
    """The results of `gradcheck`; `str(report)` is a table, a line for each input and parameter."""

    layer: str
    method: str
    tolerance: float
    n_numbers: int  # in all inputs and parameters
    rows: list[Row] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)  # rules of the contract that the layer breaks
    notes: list[str] = field(default_factory=list)  # what was not checked

    @property
    def directional(self) -> bool:
        """Whether directions of all numbers were checked, not each by itself."""
        return self.rows[0].name == ALONG

    @property
    def max_relative_error(self) -> float:
        return max(row.relative_error for row in self.rows)

    @property
    def ok(self) -> bool:
        """Whether every row was compared and agrees, and the contract is kept. (NaN does not agree.)"""
        return all(map(self.agrees, self.rows)) and not self.broken

    @property
    def verdicts(self) -> dict[str, str]:
        """Name of a row -> "ok", "WRONG", or "UNDECIDED" if nothing of it could be compared."""
        return {
            row.name: "ok" if self.agrees(row) else "WRONG" if row.checked else UNDECIDED for row in self.rows
        }

    @property
    def wrong(self) -> list[Row]:
        """The inputs and parameters whose gradients are wrong."""
        return [row for row in self.rows if row.checked and not self.agrees(row)]

    @property
    def undecided(self) -> list[Row]:
        """The inputs and parameters of which nothing could be compared: their gradients may be right or wrong."""
        return [row for row in self.rows if not row.checked]

    def raise_if_wrong(self) -> GradcheckReport:
        """This report, if it is ok. Raises AssertionError with the table if it is not, or if nothing was compared."""
        __tracebackhide__ = True  # pytest shows the line of the test
        if not self.ok:
            raise AssertionError(str(self))
        return self

    def agrees(self, row: Row) -> bool:
        """Whether the worst entry of this row is within the tolerance, and at least one entry was compared."""
        return row.relative_error <= self.tolerance and row.checked > 0

    def __str__(self) -> str:
        verdict = "ok" if self.ok else "WRONG" if self.wrong or self.broken else UNDECIDED
        title = f"{self.layer}: {verdict} ({METHODS[self.method]}, {self.n_numbers:,} numbers, "
        lines = [title + f"tolerance {self.tolerance:.0e})"]
        name = max(len(row.name) for row in self.rows)
        shape = max(len(str(row.shape)) for row in self.rows)
        width = len(UNDECIDED) if self.undecided else 5
        for row in self.rows:
            word = self.verdicts[row.name]
            kinks = f"   {row.kinks} at a kink, left out" if row.kinks and not self.directional else ""
            kinks += "   checked beside a kink" if row.kinks and self.directional else ""
            kinks += f"   {row.unsure} not known to the tolerance, left out" if row.unsure else ""
            where = f" at {list(row.index)}" if row.index else ""
            numbers = f"   analytic {row.analytic:+.10e}   numeric {row.numeric:+.10e}{where}"
            worst = f"error {row.relative_error:.1e}{numbers}" if row.checked else "error not known"
            lines.append(f"  {word:<{width}}  {row.name:<{name}}  {row.shape!s:<{shape}}  {worst}{kinks}")
            if row.hint:
                lines.append(f"         {row.hint}")
        lines += [f"  BROKEN: {rule}" for rule in self.broken]
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])
