"""`OnlineConfig`: how an agent is trained online."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Literal

from foreworld.core.errors import ConfigError
from foreworld.nn.precision import Precision

MOST_ENVS = 4096
MOST_LEAD = 256
"""Steps of all environments together that collecting may be ahead of learning, however rare updates are."""


@dataclass(frozen=True, kw_only=True)
class OnlineConfig:
    """How to train online; the defaults are DreamerV3's, with a small replay.

    Attributes:
        steps: actions of all environments together, after action repeat.
        num_envs: environments side by side.
        batch: windows in an update.
        length: rows in a window.
        train_ratio: rows replayed per action taken; an update replays batch x length.
        prefill: rows before the first update.
        collector: `sync` takes a step, does the updates that are owed for it, and so on. `async` takes steps in a
            thread of its own while the updates run: at most `lead` steps of all environments before they are counted,
            with the weights of the newest finished updates; a resumed run is then not the same to the bit.
        capacity: rows that the replay keeps.
        capacity_gib: the same in GiB, of rows and states.
        optimizer: `laprop` with adaptive gradient clipping, or `adamw`.
        lr: learning rate after warm-up.
        warmup: updates of linear warm-up.
        agc: `laprop`: largest gradient norm as a share of the parameter norm.
        clip: `adamw`: largest norm of each parameter's gradient; 0 for any.
        weight_decay: decoupled, times the learning rate.
        precision: of matrix products, but for the recurrence over real rows; all else is float32.
        graph: on a GPU, record the update once as a CUDA graph and replay it; no, for a family that cannot be recorded.
        minutes: training is over after this much time; 0 for no limit.
        max_skips: updates in a row that may be skipped because a loss or a gradient is NaN or infinite; then weights
            and optimiser go back to the last checkpoint, at half the learning rate.
        log_every: updates between two lines of metrics.
        save_every: updates between two checkpoints.
        workers: whether every environment runs in a watched process of its own.
        timeout: seconds that such a process may take for a step.
        fault_rate: share of bad steps above which the run stops.
        seed: of environments, batches and torch.
    """

    steps: int = 100_000
    num_envs: int = 1
    batch: int = 16
    length: int = 64
    train_ratio: float = 512.0
    prefill: int = 1024
    collector: Literal["sync", "async"] = "sync"
    capacity: int = 1_000_000
    capacity_gib: float = 8.0
    optimizer: Literal["laprop", "adamw"] = "laprop"
    lr: float = 4e-5
    warmup: int = 1000
    agc: float = 0.3
    clip: float = 0.0
    weight_decay: float = 0.0
    precision: Precision = "float32"
    graph: bool = True
    minutes: float = 0.0
    max_skips: int = 10
    log_every: int = 50
    save_every: int = 500
    workers: bool = False
    timeout: float = 60.0
    fault_rate: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        for name in ("steps", "num_envs", "batch", "length", "capacity", "max_skips", "log_every", "save_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"online.{name} must be at least 1, found {getattr(self, name)}")
        if self.num_envs > MOST_ENVS:
            raise ConfigError(f"online.num_envs must be at most {MOST_ENVS}, found {self.num_envs}")
        if self.length < 2:
            raise ConfigError(
                "online.length must be at least 2: the critic learns a row from the one after it, found 1"
            )
        if self.prefill > self.capacity:
            raise ConfigError(
                f"online.prefill ({self.prefill}) rows never come together in a replay that keeps "
                f"online.capacity ({self.capacity}); lower the one or raise the other"
            )
        if not self.clip >= 0:
            raise ConfigError(f"online.clip must not be negative, found {self.clip}")
        if self.train_ratio < 0 or self.minutes < 0 or self.lr <= 0 or self.capacity_gib <= 0 or self.prefill < 0:
            raise ConfigError(
                "online: train_ratio, minutes and prefill must not be negative, lr and capacity_gib must be positive"
            )

    @property
    def lead(self) -> int:
        """Steps of all environments together that collecting may be ahead of learning: what one update is owed for."""
        if self.collector == "sync":
            return 0
        earned = self.train_ratio * self.num_envs
        owed = ceil(self.batch * self.length / earned) if earned else MOST_LEAD
        return max(1, min(owed, MOST_LEAD))
