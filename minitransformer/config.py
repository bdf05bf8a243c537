"""§3 and §5 as numbers: the settings of a model and of a training run, and the paper's own choices of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minitransformer.layers.counting import COUNTS
from minitransformer.layers.feed_forward import ACTIVATIONS
from minitransformer.layers.normalization import NORMS
from minitransformer.layers.positional_encoding import TABLES
from minitransformer.validation.settings import (
    FLOAT32,
    SIZES_BELOW,
    between,
    binary_sizes,
    check_size,
    check_types,
    from_settings,
    head_widths,
    one_of,
    require,
    sinusoid_sizes,
)

DROPOUT_PLACES = ("embedding", "residual", "attention", "relu")
POSITIONS = (*TABLES, "learned", "rotary")
# no model and no machine has more; with far more, a run would never end
MOST_LAYERS, MOST_PROCESSES, MOST_BATCHES = 1_000, 1_024, 65_536
TIES = (True, "source_target", "target_output", False)


@dataclass(frozen=True)
class TransformerConfig:
    """The shape of a Transformer. Immutable; raises ConfigError for a model that cannot be built."""

    src_vocab_size: int
    tgt_vocab_size: int
    n_layers: int = 6  # N: encoder layers, and as many decoder layers
    d_model: int = 512
    n_heads: int = 8  # h
    d_ff: int = 2048
    d_k: int | None = None  # width of a head's queries and keys; d_model / h if None
    d_v: int | None = None  # width of a head's values; d_model / h if None
    dropout: float = 0.1  # P_drop
    dropout_on: tuple[str, ...] = ("embedding", "residual")  # the paper's (§5.4), from DROPOUT_PLACES
    max_len: int = 512  # longest source, and longest target, in tokens
    positions: str = "sinusoidal"  # or "learned" (Table 3, row E), "rotary", or another of POSITIONS
    count_source_from: str = "start"  # the paper's way to count positions; or "end", or "both" ends
    random_start: int = 0  # in training, the positions of a sentence begin at a random number up to this one
    random_gaps: int = 1  # and are 1 to this many apart
    activation: str = "relu"  # in the feed-forward network; or "gelu" (BERT's), "gelu_tanh" (GPT-2's)
    norm: str = "post"  # LayerNorm(x + Sublayer(x)), the paper's; or "pre": x + Sublayer(LayerNorm(x))
    norm_layer: str = "layer"  # LayerNorm; or "rms": RMSNorm
    tie_embeddings: bool | str = True  # one E for source, target and output; or a member of TIES
    attention_bias: bool = False  # b_Q, b_K, b_V, b_O, which the paper's formulas do not have
    pad_id: int = 0
    eps: float = 1e-5  # of LayerNorm or RMSNorm

    def __post_init__(self) -> None:
        if isinstance(self.dropout_on, str | list):  # a single place, or a list from JSON
            places = [self.dropout_on] if isinstance(self.dropout_on, str) else self.dropout_on
            object.__setattr__(self, "dropout_on", tuple(places))
        check_types(self)
        for name in ("src_vocab_size", "tgt_vocab_size", "n_layers", "d_model", "n_heads", "d_ff", "max_len"):
            check_size(name, getattr(self, name))
        for name in ("d_k", "d_v"):
            if getattr(self, name) is not None:
                check_size(name, getattr(self, name))
        require(self.n_layers <= MOST_LAYERS, "n_layers", f"at most {MOST_LAYERS:,}", self.n_layers)
        d_k, _ = head_widths(self.d_model, self.n_heads, self.d_k, self.d_v)
        require(0 <= self.dropout < 1, "dropout", "a probability 0 <= p < 1", self.dropout)
        require(between(self.eps, *FLOAT32), "eps", "a number above 0 that float32 can hold", self.eps)
        for place in self.dropout_on:
            one_of("dropout_on", place, DROPOUT_PLACES)
        one_of("positions", self.positions, POSITIONS)
        one_of("count_source_from", self.count_source_from, COUNTS)
        require(0 <= self.random_start < SIZES_BELOW, "random_start", "0 or more", self.random_start)
        require(1 <= self.random_gaps < SIZES_BELOW, "random_gaps", "1 or more", self.random_gaps)
        one_of("activation", self.activation, ACTIVATIONS)
        one_of("norm", self.norm, ("post", "pre"))
        one_of("norm_layer", self.norm_layer, NORMS)
        one_of("tie_embeddings", self.tie_embeddings, TIES)
        n = self.n_source_positions
        if self.positions == "rotary":
            expected = f"a multiple of {2 * n}, for rotary positions{' from both ends' * (n == 2)}"
            require(d_k % (2 * n) == 0, "d_k", expected, d_k)
        elif n == 2:
            parts, table = (4, "sinusoids") if self.positions == "sinusoidal" else (2, "positions")
            expected = f"a multiple of {parts}, for {table} from both ends"
            require(self.d_model % parts == 0, "d_model", expected, self.d_model)
        rows, width = self.last_position + 1, self.d_model // n
        check_size("positions, by max_len, random_start and random_gaps", rows)
        if self.positions == "sinusoidal":
            sinusoid_sizes(rows, width)
        if self.positions == "binary":
            binary_sizes(rows, width)
        if self.tie_embeddings in (True, "source_target"):
            same = self.src_vocab_size == self.tgt_vocab_size
            sizes = f"src_vocab_size={self.src_vocab_size}, tgt_vocab_size={self.tgt_vocab_size}"
            require(same, "tie_embeddings", "one vocabulary for source and target, or another tie", sizes)
        smallest = min(self.src_vocab_size, self.tgt_vocab_size)
        require(0 <= self.pad_id < smallest, "pad_id", f"an id 0 … {smallest - 1}", self.pad_id)

    def dropout_at(self, place: str) -> float:
        """P_drop if dropout is on at `place`, else 0."""
        return self.dropout if place in self.dropout_on else 0.0

    @property
    def n_source_positions(self) -> int:
        """How many positions each token of the source has: from one end, or from both."""
        return 2 if self.count_source_from == "both" else 1

    @property
    def in_order(self) -> bool:
        """Whether the tokens of a sentence are at 0, 1, 2, … in training too, and not at random positions."""
        return self.random_start == 0 and self.random_gaps == 1

    @property
    def last_position(self) -> int:
        """The largest position that a token can have in training."""
        return self.random_start + (self.max_len - 1) * self.random_gaps

    @classmethod
    def base(cls, vocab_size: int = 37000, **changes: Any) -> TransformerConfig:
        """The paper's base model (Table 3, first row), with one vocabulary for source and target."""
        return cls.preset("base", vocab_size, **changes)

    @classmethod
    def big(cls, vocab_size: int = 37000, **changes: Any) -> TransformerConfig:
        """The paper's big model (Table 3, last row)."""
        return cls.preset("big", vocab_size, **changes)

    @classmethod
    def preset(cls, name: str, vocab_size: int = 37000, **changes: Any) -> TransformerConfig:
        """A model by name: "base", "big", a row of Table 3 such as "C d_model=256" (see PRESETS), or "toy"."""
        one_of("preset", name, PRESETS)
        sizes = {"src_vocab_size": vocab_size, "tgt_vocab_size": vocab_size}
        return from_settings(cls, {**sizes, **PRESETS[name], **changes})


# Table 3 of the paper: what each row changes in the base model. Row D's label smoothing (eps_ls) changes no
# shape: it belongs to training.
PRESETS: dict[str, dict[str, Any]] = {
    "base": {},
    "A h=1": {"n_heads": 1, "d_k": 512, "d_v": 512},
    "A h=4": {"n_heads": 4, "d_k": 128, "d_v": 128},
    "A h=16": {"n_heads": 16, "d_k": 32, "d_v": 32},
    "A h=32": {"n_heads": 32, "d_k": 16, "d_v": 16},
    "B d_k=16": {"d_k": 16},
    "B d_k=32": {"d_k": 32},
    "C N=2": {"n_layers": 2},
    "C N=4": {"n_layers": 4},
    "C N=8": {"n_layers": 8},
    "C d_model=256": {"d_model": 256, "d_k": 32, "d_v": 32},
    "C d_model=1024": {"d_model": 1024, "d_k": 128, "d_v": 128},
    "C d_ff=1024": {"d_ff": 1024},
    "C d_ff=4096": {"d_ff": 4096},
    "D P_drop=0": {"dropout": 0.0},
    "D P_drop=0.2": {"dropout": 0.2},
    "D eps_ls=0": {},
    "D eps_ls=0.2": {},
    "E learned": {"positions": "learned"},
    "big": {"d_model": 1024, "d_ff": 4096, "n_heads": 16, "dropout": 0.3},
    "toy": {"n_layers": 2, "d_model": 64, "n_heads": 4, "d_ff": 256, "max_len": 64},
}


@dataclass(frozen=True)
class TrainingConfig:
    """How a model is trained (§5). Immutable; raises ConfigError for a training that cannot be run."""

    steps: int = 100_000  # updates, at most
    batch_tokens: int = 25_000  # padded tokens of a batch, of source or target, whichever has more
    accumulate: int = 1  # gradient accumulation: batches per update
    # processes that share an update, over all MPI ranks; None: as many as pay off; one per GPU
    processes: int | None = None
    recompute: bool = False  # run each layer's forward again in backward, instead of keeping its cache
    schedule: str = "noam"  # §5.3; or "cosine": warm-up, then half a cosine down to last_learning_rate
    warmup_steps: int = 4000
    learning_rate: float | None = None  # at the peak; None is the paper's (d_model · warmup_steps)^-0.5
    last_learning_rate: float = 0.0  # at the end of the cosine
    beta1: float = 0.9
    beta2: float = 0.98
    adam_eps: float = 1e-9
    weight_decay: float = 0.0  # of the matrices W, by AdamW: each step subtracts lr · weight_decay · W
    clip_norm: float | None = None  # gradient clipping: largest norm over all parameters; None does not clip
    eps_ls: float = 0.1  # label smoothing, §5.4
    log_every: int = 50  # steps between two lines of metrics.jsonl
    evaluate_every: int = 500  # steps between two evaluations, each followed by a checkpoint
    keep_checkpoints: int = 2  # how many of the last ones; §6.1 averages 5 (base) or 20 (big)
    solved_at: float | None = None  # exact match on the validation set at which training ends early
    patience: int | None = None  # evaluations in a row without improvement after which training ends early
    dtype: str = "float32"

    def __post_init__(self) -> None:
        check_types(self)
        for name in (
            "steps",
            "batch_tokens",
            "accumulate",
            "warmup_steps",
            "log_every",
            "evaluate_every",
            "keep_checkpoints",
        ):
            require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        one_of("schedule", self.schedule, ("noam", "cosine"))
        one_of("dtype", self.dtype, ("float32", "float64"))
        cosine = self.schedule == "cosine"
        require(not cosine or self.learning_rate is not None, "learning_rate", "a peak for 'cosine'", None)
        in_time = not cosine or self.warmup_steps <= self.steps
        require(in_time, "warmup_steps", f"at most steps={self.steps}", self.warmup_steps)
        for name in ("beta1", "beta2", "eps_ls"):
            require(0 <= getattr(self, name) < 1, name, "a number 0 <= x < 1", getattr(self, name))
        for name in ("adam_eps", "clip_norm", "learning_rate"):
            value = getattr(self, name)
            holds = value is None or between(value, *FLOAT32)
            require(holds, name, "a number above 0 that float32 can hold", value)
        decays = between(self.weight_decay, 0, FLOAT32[1])
        require(decays, "weight_decay", "a number, 0 or more", self.weight_decay)
        last = self.last_learning_rate
        falls = last == 0 or (cosine and 0 < last <= (self.learning_rate or 0))
        require(falls, "last_learning_rate", "0, or at most the learning_rate of 'cosine'", last)
        solved = self.solved_at is None or 0 <= self.solved_at <= 1
        require(solved, "solved_at", "a share 0 <= x <= 1, or None", self.solved_at)
        most = {"processes": MOST_PROCESSES, "accumulate": MOST_BATCHES}
        for name, n in most.items():
            require((getattr(self, name) or 1) <= n, name, f"at most {n:,}", getattr(self, name))
        for name in ("processes", "patience"):
            counts = getattr(self, name) is None or getattr(self, name) >= 1
            require(counts, name, "at least 1, or None", getattr(self, name))
