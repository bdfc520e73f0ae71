"""`fit`: train a world model on stored episodes; the loop is ours, short and readable."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch.optim import Optimizer

from foreworld.core import Calibrates, Segment, TrainableModel, from_json, require, to_json, tree
from foreworld.core.errors import ConfigError
from foreworld.core.files import lock_folder, make_folder
from foreworld.core.interrupt import graceful
from foreworld.data import Dataset
from foreworld.nn.precision import Precision, lowered
from foreworld.train.checkpoint import Progress
from foreworld.train.guard import Checkpoints, Guard, check_weights
from foreworld.train.log import MetricsFile, complain
from foreworld.train.monitor import Monitor, Monitoring
from foreworld.train.optim import AdamW, LaProp, make_optimizer, set_rate
from foreworld.train.run import CHECKPOINTS, CONFIG, read_config, record_change, start_run
from foreworld.train.sinks import Sink, Sinks
from foreworld.train.update import device_of, update
from foreworld.train.videos import Film, Videos


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
        clip: `adamw`: largest norm of each parameter's gradient; 0 for any.
        weight_decay: decoupled, times the learning rate.
        precision: of matrix products and convolutions; all else is float32.
        calibration: batches that closed-form statistics are taken from, before the first update.
        minutes: training is over after this much time, all schedules shortened to fit; 0 for no limit.
        max_skips: updates in a row that may be skipped because a loss or a gradient is NaN or infinite; then the
            training goes back to its last checkpoint, at half the learning rate, and on with later batches.
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
    clip: float = 0.0
    weight_decay: float = 0.0
    precision: Precision = "float32"
    calibration: int = 64
    minutes: float = 0.0
    max_skips: int = 10
    log_every: int = 20
    save_every: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        counts = ("batch", "length", "watch", "long_factor", "calibration", "max_skips", "log_every", "save_every")
        for name in counts:
            if getattr(self, name) < 1:
                raise ConfigError(f"fit.{name} must be at least 1, found {getattr(self, name)}")
        for name in ("long_share", "dream_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"fit.{name} must lie in [0, 1], found {getattr(self, name)}")
        if not self.clip >= 0:
            raise ConfigError(f"fit.clip must not be negative, found {self.clip}")
        if self.steps < 0 or self.minutes < 0 or self.lr <= 0 or not 0 <= self.decay <= 1:
            raise ConfigError("fit: steps and minutes must not be negative, lr must be positive, decay in [0, 1]")


@dataclass(frozen=True)
class FitResult:
    """What a training did.

    Attributes:
        steps: updates done in all, earlier ones of a resumed run counted in.
        seconds: training time in all.
        history: one entry per line of metrics.
        interrupted: the signal that ended it early, SIGINT or SIGTERM; None when it ran to its end.
    """

    steps: int
    seconds: float
    history: list[dict[str, float]] = field(default_factory=list)
    interrupted: int | None = None


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
    sinks: Sequence[str | Sink] | None = None,
    film: Film | None = None,
    monitor: Monitor | None = None,
    **fields: Any,
) -> FitResult:
    """Train a world model on stored episodes.

    An update whose loss or gradient is NaN or infinite is skipped and counted; after `max_skips` in a row the
    training goes back to its last checkpoint (without `out`, to a copy in memory). Ctrl-C or SIGTERM ends it
    after the update that it is at, with a checkpoint; a second one ends it at once.

    Resuming is exact on a CPU with `minutes=0`: the weights are those of the uninterrupted run, bit for bit, as
    batches depend on (seed, update) alone and models draw from torch's generator, whose state is saved. A limit
    of minutes makes the schedules depend on the clock.

    Args:
        model: any family; moved nowhere, so put it on its device first.
        data: the training episodes.
        config: how to train; single fields can also be given by keyword. When resuming, the run's own.
        out: run folder for config, metrics and checkpoints; nothing is written without it.
        resume: go on from the newest checkpoint of `out`; settings that differ from the run's are recorded there.
        report: called after every update.
        sinks: further places for metrics: `tensorboard`, `wandb`, `trackio`, a `Sink`; None for those of a resumed run.
        film: makes a video beside every checkpoint, in `videos` of `out`, such as `film_dreams(heldout)`.
        monitor: looks at the model at every checkpoint, such as `watch_collapse(heldout)`, and is logged.
        fields: fields of the config, by name.

    Returns:
        Steps, seconds and the logged metrics, and whether it was interrupted.

    Raises:
        ConfigError: a setting that cannot be run.
        CheckpointError: `resume`, and `out` is no run, damaged, or another model's.
        InUse: another process trains in `out`.
        MissingCapability: `dream_share` for a family without multi-step training.
        MissingExtra: a sink's package is not installed.
        SpecError: the data's observations or actions are not the model's.
        NonFinite: a loss or gradient stays NaN or infinite; names it. The last checkpoint is intact.
        OutputExists: `out` exists and `resume` is false.

    Example:
        >>> import tempfile, foreworld as fw
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data = fw.collect("CartPole-v1", episodes=3, out=f"{folder}/episodes")
        ...     model = fw.RSSM(data.spec, deter=16, units=8, latents=4)
        ...     fw.fit(model, data, steps=2, batch=2, length=8, out=f"{folder}/run").steps
        2
    """
    folder = _folder(out, resume, film)
    before, used = (None, []) if folder is None or not resume else _stored(folder)
    sinks = used if sinks is None else sinks
    config = replace(config or before or FitConfig(), **fields)
    _check(model, config, before)
    data = data.with_spec(model.spec)
    optimizer = make_optimizer(model, config)
    checkpoints = Checkpoints(model, optimizer, None if folder is None else folder / CHECKPOINTS)
    with ExitStack() as stack:
        outlets = stack.enter_context(Sinks(sinks, folder, to_json(config)))
        if folder is not None:
            make_folder(folder)
            stack.enter_context(lock_folder(folder))
        if folder is not None and before is not None:
            progress = checkpoints.restore()
            record_change(folder, progress.step, to_json(before), to_json(config))
        else:
            progress = _begin(model, data, config, folder, [name for name in sinks if isinstance(name, str)])
        check_weights(model)
        if progress.step == 0 or folder is None:
            checkpoints.save(progress)
        logs = [MetricsFile(folder, progress.step), outlets]
        looks = [Monitoring(monitor, logs).look, Videos(film, folder, progress.step, outlets).make]
        return _train(model, data, config, optimizer, progress, checkpoints, logs, looks, report)


def _folder(out: str | Path | None, resume: bool, film: Film | None) -> Path | None:
    if out is None and resume:
        raise ConfigError("resume needs out, the folder of the run to go on with")
    if out is None and film is not None:
        raise ConfigError("film needs out, the run folder that videos go to")
    return None if out is None else Path(out)


def _check(model: TrainableModel[Any], config: FitConfig, before: FitConfig | None) -> None:
    if before is not None and before.optimizer != config.optimizer:
        raise ConfigError(f"fit.optimizer cannot change on resuming: the run was trained with {before.optimizer}")
    if config.dream_share:
        require(model, "dream_losses", "fit.dream_share")


def calibration_batches(data: Dataset, config: FitConfig, device: torch.device) -> Callable[[], Iterator[Segment]]:
    """Return a reader of the batches that statistics are taken from; it can be read again and again."""

    def read() -> Iterator[Segment]:
        for step in range(config.calibration):
            yield tree.to(data.sample(config.batch, config.length, seed=config.seed + 1, step=step), device)

    return read


def _stored(folder: Path) -> tuple[FitConfig, list[str]]:
    stored = read_config(folder)
    return from_json(FitConfig, stored["fit"], f"{folder / CONFIG}: fit"), stored.get("sinks", [])


def _begin(
    model: TrainableModel[Any], data: Dataset, config: FitConfig, folder: Path | None, sinks: list[str]
) -> Progress:
    if folder is not None:
        trained_on = {"path": str(data.path.resolve()), "trained_on": to_json(data.stretches)}
        start_run(folder, model, to_json(config), trained_on, sinks)
    torch.manual_seed(config.seed)
    if "calibrate" in model.provides:
        cast(Calibrates, model).calibrate(calibration_batches(data, config, device_of(model)))
    return Progress(step=0, seconds=0.0)


def _train(
    model: TrainableModel[Any],
    data: Dataset,
    config: FitConfig,
    optimizer: LaProp | AdamW,
    progress: Progress,
    checkpoints: Checkpoints,
    logs: Sequence[MetricsFile | Sinks],
    looks: Sequence[Callable[[TrainableModel[Any], int], None]],
    report: Report | None,
) -> FitResult:
    device, history, waited = device_of(model), [], 0.0
    # on a GPU every look would stop the host until the device has caught up
    guard = Guard(model, progress, config.max_skips, 1 if device.type == "cpu" else config.max_skips)
    started, step = time.monotonic() - progress.seconds, progress.step

    def reached() -> Progress:
        return Progress(step, time.monotonic() - started, guard.rollbacks, guard.skips)

    model.train()
    with graceful() as interruption:
        while (done := share_done(config, step, time.monotonic() - started)) < 1 and not interruption.requested:
            asked = time.monotonic()
            batch, length = window_size(config, done)
            segment = tree.to(data.sample(batch, length, seed=config.seed, step=step, across=config.across), device)
            waited += time.monotonic() - asked
            lower_rate(optimizer, config, done, guard.rate)
            with lowered(device, config.precision):
                outcome = update(model, optimizer, segment, config.watch if dreams(config, done) else None)
            guard.add(outcome)
            step += 1
            line: dict[str, float] = {}
            if guard.lost or step % config.log_every == 0 or step == config.steps:
                guard.look()
                times = {"seconds": round(time.monotonic() - started, 2), "data_wait": round(waited, 2)}
                line = {"step": step, **times, **guard.numbers(), **outcome.numbers()}
                history.append(line)
                for log in logs:
                    log.write(line)
            if report is not None:
                report(step, config.steps, line)
            if step % config.save_every == 0:
                guard.look()
            if guard.lost:
                guard.go_back(step)
                checkpoints.restore()
            elif step % config.save_every == 0 and guard.sound:
                try:
                    checkpoints.save(reached())
                except OSError as fault:
                    complain(f"no checkpoint at update {step} ({fault}); training goes on, the next try comes later")
                else:
                    guard.kept()
                    for look in looks:
                        look(model, step)
        guard.finish(step)
        checkpoints.save(reached())
        for look in [] if interruption.requested else looks:  # who asks for the end does not wait for a video
            look(model, step)
    return FitResult(step, time.monotonic() - started, history, interruption.signal)


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


def lower_rate(optimizer: Optimizer, config: FitConfig, done: float, factor: float = 1.0) -> None:
    """Lower the learning rate, times `factor`, linearly to a twentieth over the last share of the training."""
    left = 1.0 if config.decay == 0 else (1 - done) / config.decay
    set_rate(optimizer, config.lr * factor * max(0.05, min(1.0, left)))
