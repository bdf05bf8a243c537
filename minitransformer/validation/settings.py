"""Checks of settings: of single numbers and names, of what a model is built from."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from functools import wraps
from inspect import signature
from numbers import Real
from typing import Any, TypeVar, cast, get_type_hints

from minitransformer.backend import integer_of
from minitransformer.errors import ConfigError, InputError, describe

SIZES_BELOW = 2**20  # the product of three such sizes is still a possible array length
INT64 = 2**63 - 1  # no setting and no count is larger
FLOAT32 = (1.2e-38, 3.4e38)  # the positive numbers that float32 holds with all its digits

Config = TypeVar("Config")
F = TypeVar("F", bound=Callable[..., Any])


def from_settings(cls: type[Config], settings: Mapping[str, Any]) -> Config:
    """A config dataclass from names and values. Raises ConfigError for an unknown name, suggesting the nearest."""
    known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    for name in settings:
        one_of("setting", name, known)
    try:
        return cls(**settings)
    except TypeError as error:
        raise ConfigError(f"{cls.__name__}: {error}") from None


def check_types(config: Any) -> None:
    """Raise ConfigError if a field does not hold what its annotation says (an int passes for a float).

    An integer of more than 64 bits is refused: it could become neither a float nor an array's size.
    """
    hints = get_type_hints(type(config))
    for field in fields(config):
        value = getattr(config, field.name)
        expected = hints[field.name]
        if isinstance(value, int) and not -INT64 <= value <= INT64:
            raise ConfigError(
                f"{field.name}: expected a number of at most 64 bits, got {value.bit_length()} bits"
            )
        kinds = getattr(expected, "__args__", (expected,)) if expected != tuple[str, ...] else (tuple,)
        if float in kinds and isinstance(value, int) and not isinstance(value, bool):
            continue
        if not isinstance(value, tuple(kinds)) or (isinstance(value, bool) and bool not in kinds):
            names = " or ".join(k.__name__ for k in kinds)
            raise ConfigError(f"{field.name}: expected {names}, got {describe(value)}")
        if isinstance(value, tuple) and not all(isinstance(word, str) for word in value):
            raise ConfigError(f"{field.name}: expected a tuple of str, got {describe(value)}")


def require(condition: bool, name: str, expected: str, got: Any) -> None:
    """Raise ConfigError, saying what setting `name` should be, unless `condition` holds."""
    if not condition:
        raise ConfigError(f"{name}: expected {expected}, got {describe(got)}")


def check_size(name: str, size: int) -> None:
    """Raise ConfigError unless `size` can be the size of an array's axis."""
    require(size >= 1, name, "at least 1", size)
    require(size < SIZES_BELOW, name, f"less than {SIZES_BELOW:,}", size)


def layer_sizes(init: F) -> F:
    """A decorator for a layer's constructor: what is annotated as an int, or an int or None, must be a size, 1 or more.

    `eps` must be a number, 0 or more. Raises ConfigError for anything else.
    """
    parameters = signature(init).parameters
    sizes = {name: p.annotation for name, p in parameters.items() if p.annotation in ("int", "int | None")}

    @wraps(init)
    def wrapper(*arguments: Any, **named: Any) -> None:
        for name, size in (*zip(parameters, arguments, strict=False), *named.items()):
            if name == "eps":
                require(
                    between(size, 0, FLOAT32[1]), name, "a number, 0 or more, that float32 can hold", size
                )
            if name in sizes and (size is not None or sizes[name] == "int"):
                require(integer_of(size) is not None, name, "a whole number", size)
                check_size(name, size)
        init(*arguments, **named)

    return cast(F, wrapper)


def as_integer(name: str, value: Any, low: int, high: int, expected: str) -> int:
    """`value` as an int. Raises InputError unless it is an integer of Python's or NumPy's, low <= value <= high."""
    integer = integer_of(value)
    if integer is None or not low <= integer <= high:
        raise InputError(f"{name}: expected {expected}, got {describe(value)}")
    return integer


def as_list(name: str, values: Any, expected: str) -> list[Any]:
    """`values` as a list. Raises InputError if they are not iterable."""
    try:
        return list(values)
    except TypeError:
        raise InputError(f"{name}: expected a list of {expected}, got {describe(values)}") from None


def between(value: Any, low: float, high: float) -> bool:
    """Whether `value` is a real number, Python's or NumPy's, and low <= value < high."""
    kind = getattr(getattr(value, "dtype", None), "kind", "f")
    # NumPy counts a timedelta64, of kind "m", among the real numbers
    return isinstance(value, Real) and kind in "biuf" and bool(low <= value < high)  # type: ignore[operator]


def one_of(kind: str, name: Any, choices: Iterable[Any]) -> None:
    """Raise ConfigError, suggesting the nearest, unless `name` is one of `choices`."""
    choices = list(choices)
    if name in choices:
        return
    near = difflib.get_close_matches(str(name), [str(c) for c in choices], n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise ConfigError(f"{kind}: unknown {describe(name)}{hint} Known: {', '.join(sorted(map(str, choices)))}")


def sinusoid_sizes(max_len: int, d_model: int) -> tuple[int, int]:
    """Check the sizes of a table of sinusoids, and return them. Raises ConfigError for an odd d_model."""
    require(d_model % 2 == 0, "d_model", "an even number for sinusoidal positions", d_model)
    return max_len, d_model


def binary_sizes(max_len: int, d_model: int) -> tuple[int, int]:
    """Check the sizes of a table of binary positions, and return them. Raises ConfigError if d_model is too small."""
    n_bits = (max_len - 1).bit_length()
    require(
        d_model >= n_bits,
        "d_model",
        f"at least {n_bits}, a bit each, for max_len={max_len} binary positions",
        d_model,
    )
    return max_len, d_model


def head_widths(d_model: int, n_heads: int, d_k: int | None, d_v: int | None) -> tuple[int, int]:
    """d_k and d_v, by default d_model / n_heads. Raises ConfigError if that is not a whole number."""
    whole = d_model % n_heads == 0 or not (d_k is None or d_v is None)
    require(whole, "n_heads", f"a divisor of d_model={d_model}, or d_k and d_v", n_heads)
    return d_k or d_model // n_heads, d_v or d_model // n_heads
