"""`fit`: train a world model on stored episodes; the loop is ours, short and readable."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from foreworld.core import Calibrates, LearnsDreaming, Segment, TrainableModel, require, to_json, tree
from foreworld.core.errors import ConfigError, NonFinite
from foreworld.core.types import mean_of
from foreworld.data import Dataset
from foreworld.train.checkpoint import Progress, load_model, load_training, newest_checkpoint, save_checkpoint
from foreworld.train.log import MetricsFile
from foreworld.train.optim import LaProp
from foreworld.train.run import CHECKPOINTS, start_run


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How to train offline.

    Attributes:
        steps: updates.
        batch: sequences in a batch.
        length: rows in a sequence.
        long_share: share of the updates, at the end, that see longer windows in smaller batches: short
            windows learn to see sooner, long ones teach a recurrent state to last.
        long_factor: how many times longer, and smaller, those are.
        dream_share: share of the updates, at the end, in which the model looks at the first rows of a window
            only and is judged by how it dreams the others (multi-step training); a model that drifts learns
            to last. 0 never.
        watch: rows that it looks at then.
        across: whether windows may run on into the next episode, marked by `is_first`.
        optimizer: `laprop` with adaptive gradient clipping as in DreamerV3, or `adamw`.
        lr: learning rate after warm-up.
        warmup: updates of linear warm-up.
        decay: share of the updates, at the end, over which the rate falls to a twentieth.
        agc: `laprop`: largest gradient norm as a share of the parameter norm.
        weight_decay: decoupled, times the learning rate.
        calibration: batches that closed-form statistics are taken from, before the first update.
        minutes: training is over after this much time, all schedules shortened to fit; 0 for no limit.
        log_every: updates between two lines of metrics.
        save_every: updates between two checkpoints.
        seed: of the batches and of torch.
    """

    steps: int = 1000
    batch: int = 16
    length: int = 64
    long_share: float = 0.0
    long_factor: int = 4
    dream_share: float = 0.0
    watch: int = 16
    across: bool = True
    optimizer: Literal["laprop", "adamw"] = "laprop"
    lr: float = 4e-5
    warmup: int = 1000
    decay: float = 0.0
    agc: float = 0.3
    weight_decay: float = 0.0
    calibration: int = 64
    minutes: float = 0.0
    log_every: int = 20
    save_every: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        for name in ("batch", "length", "watch", "long_factor", "calibration", "log_every", "save_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"fit.{name} must be at least 1, found {getattr(self, name)}")
        for name in ("long_share", "dream_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"fit.{name} must lie in [0, 1], found {getattr(self, name)}")
        if self.steps < 0 or self.minutes < 0 or self.lr <= 0 or not 0 <= self.decay <= 1:
            raise ConfigError("fit: steps and minutes must not be negative, lr must be positive, decay in [0, 1]")


@dataclass(frozen=True)
class FitResult:
    """What a training did.

    Attributes:
        steps: updates done in all, earlier ones of a resumed run counted in.
        seconds: training time in all.
        history: one entry per line of metrics.
    """

    steps: int
    seconds: float
    history: list[dict[str, float]] = field(default_factory=list)


Report = Callable[[int, int, dict[str, float]], None]
"""Called with (step, steps, metrics) after every update; metrics are empty between logged steps."""


def fit(
    model: TrainableModel[Any],
    data: Dataset,
    config: FitConfig | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    report: Report | None = None,
    **fields: Any,
) -> FitResult:
    """Train a world model on stored episodes.

    Args:
        model: any family; moved nowhere, so put it on its device first.
        data: the training episodes.
        config: how to train; single fields can also be given by keyword.
        out: run folder for config, metrics and checkpoints; nothing is written without it.
        resume: go on from the newest checkpoint of `out`, on the same batches and random numbers.
        report: called after every update.
        fields: fields of the config, by name.

    Returns:
        Steps, seconds and the logged metrics.

    Raises:
        ConfigError: a setting that cannot be run.
        MissingCapability: `dream_share` for a family without multi-step training.
        SpecError: the data's observations or actions are not the model's.
        NonFinite: a loss became NaN or infinite; names the term. The last checkpoint is intact.
        OutputExists: `out` exists and `resume` is false.

    Example:
        >>> import tempfile, foreworld as fw
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data = fw.collect("CartPole-v1", episodes=3, out=f"{folder}/episodes")
        ...     model = fw.RSSM(data.spec, deter=16, units=8, latents=4)
        ...     fw.fit(model, data, steps=2, batch=2, length=8, out=f"{folder}/run").steps
        2
    """
    config = replace(config or FitConfig(), **fields)
    if config.dream_share:
        require(model, "dream_losses", "fit.dream_share")
    data = data.with_spec(model.spec)
    folder = None if out is None else Path(out)
    optimizer = make_optimizer(model, config)
    if folder is not None and resume:
        checkpoint = newest_checkpoint(folder / CHECKPOINTS)
        load_model(checkpoint, model)
        progress = load_training(checkpoint, optimizer)
    else:
        if folder is not None:
            start_run(folder, model, to_json(config), data)
        progress = _begin(model, data, config)
    if folder is not None and progress.step == 0:
        save_checkpoint(folder / CHECKPOINTS, model, optimizer, progress)
    return _train(model, data, config, optimizer, progress, folder, report)


def make_optimizer(model: TrainableModel[Any], config: FitConfig) -> Optimizer:
    """Build the optimiser that a config names, over all parameters."""
    if config.optimizer == "laprop":
        return LaProp(
            model.parameters(), lr=config.lr, agc=config.agc, warmup=config.warmup, weight_decay=config.weight_decay
        )
    return torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)


def calibration_batches(data: Dataset, config: FitConfig, device: torch.device) -> Callable[[], Iterator[Segment]]:
    """Return a reader of the batches that statistics are taken from; it can be read again and again."""

    def read() -> Iterator[Segment]:
        for step in range(config.calibration):
            yield tree.to(data.sample(config.batch, config.length, seed=config.seed + 1, step=step), device)

    return read


def _begin(model: TrainableModel[Any], data: Dataset, config: FitConfig) -> Progress:
    torch.manual_seed(config.seed)
    if "calibrate" in model.provides:
        cast(Calibrates, model).calibrate(calibration_batches(data, config, _device(model)))
    return Progress(step=0, seconds=0.0)


def _train(
    model: TrainableModel[Any],
    data: Dataset,
    config: FitConfig,
    optimizer: Optimizer,
    progress: Progress,
    folder: Path | None,
    report: Report | None,
) -> FitResult:
    metrics = MetricsFile(folder, progress.step)
    device, history, waited = _device(model), [], 0.0
    started, step = time.monotonic() - progress.seconds, progress.step
    model.train()
    while (done := share_done(config, step, time.monotonic() - started)) < 1:
        asked = time.monotonic()
        batch, length = window_size(config, done)
        segment = tree.to(data.sample(batch, length, seed=config.seed, step=step, across=config.across), device)
        waited += time.monotonic() - asked
        set_rate(optimizer, config, done)
        found = update(model, optimizer, segment, config.watch if dreams(config, done) else None)
        step += 1
        seconds = time.monotonic() - started
        line: dict[str, float] = {}
        if step % config.log_every == 0 or step == config.steps:
            line = {"step": step, "seconds": round(seconds, 2), "data_wait": round(waited, 2), **found}
            history.append(line)
            metrics.write(line)
        if report is not None:
            report(step, config.steps, line)
        if folder is not None and step % config.save_every == 0:
            save_checkpoint(folder / CHECKPOINTS, model, optimizer, Progress(step, seconds))
    seconds = time.monotonic() - started
    if folder is not None:
        save_checkpoint(folder / CHECKPOINTS, model, optimizer, Progress(step, seconds))
    return FitResult(step, seconds, history)


def update(
    model: TrainableModel[Any], optimizer: Optimizer, segment: Segment, watch: int | None = None
) -> dict[str, float]:
    """Do one update and return its metrics.

    Args:
        model: in training mode.
        optimizer: over its parameters.
        segment: a batch.
        watch: rows to look at before dreaming the others; None looks at all.

    Returns:
        `loss/<term>` averages and the family's own metrics.

    Raises:
        NonFinite: a loss term is NaN or infinite; the model is left as it was.
    """
    losses = model.losses(segment) if watch is None else cast(LearnsDreaming, model).dream_losses(segment, watch)
    total = losses.total(model.loss_weights, segment.mask)
    values = {f"loss/{name}": float(mean_of(term.detach(), segment.mask)) for name, term in losses.terms.items()}
    if not torch.isfinite(total):
        culprit = next((name for name, value in values.items() if not _finite(value)), "the weighted total")
        raise NonFinite(
            f"{culprit} became {values.get(culprit, float(total.detach()))}; lower --fit.lr, or check the data"
        )
    optimizer.zero_grad(set_to_none=True)
    total.backward()
    optimizer.step()
    return values | {name: float(value) for name, value in losses.metrics.items()}


def share_done(config: FitConfig, step: int, seconds: float) -> float:
    """Return how much of the training is over, from 0 to 1: by updates, or by time where that is shorter.

    All schedules follow it, so that a machine too slow for the updates still goes through every stage.
    """
    by_time = seconds / (60 * config.minutes) if config.minutes else 0.0
    return max(step / config.steps if config.steps else 1.0, by_time)


def window_size(config: FitConfig, done: float) -> tuple[int, int]:
    """Return batch and length of an update: as configured, and longer but fewer windows near the end."""
    if done < 1 - config.long_share:
        return config.batch, config.length
    return max(1, config.batch // config.long_factor), config.length * config.long_factor


def dreams(config: FitConfig, done: float) -> bool:
    """Return whether an update trains on dreams."""
    return config.dream_share > 0 and done >= 1 - config.dream_share


def set_rate(optimizer: Optimizer, config: FitConfig, done: float) -> None:
    """Lower the learning rate linearly to a twentieth over the last share of the training."""
    left = 1.0 if config.decay == 0 else (1 - done) / config.decay
    for group in optimizer.param_groups:
        group["lr"] = config.lr * max(0.05, min(1.0, left))


def _finite(value: float) -> bool:
    return bool(torch.isfinite(torch.tensor(value)))


def _device(model: TrainableModel[Any]) -> torch.device:
    tensor: Tensor = next(model.parameters())
    return tensor.device
