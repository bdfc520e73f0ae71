"""`train_agent`: collect, learn, dream; an agent and its world model learn from what the agent itself does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor

from foreworld.agents import AgentPolicy, Dreamer, DreamerLearner
from foreworld.core import Calibrates, Spec, TrainableModel, from_json, to_json, tree
from foreworld.core.errors import ConfigError, SpecError
from foreworld.core.files import lock_folder, make_folder
from foreworld.core.interrupt import graceful
from foreworld.data import Ratio, Replay
from foreworld.data.schema import Source
from foreworld.envs import Vector, make
from foreworld.train.checkpoint import Progress, newest_checkpoint, read_beside
from foreworld.train.collecting import Collector
from foreworld.train.guard import Checkpoints, Guard, check_weights
from foreworld.train.log import MetricsFile, complain
from foreworld.train.optim import make_optimizer, set_rate
from foreworld.train.run import CHECKPOINTS, CONFIG, REPLAY, read_config, record_change, start_run
from foreworld.train.sinks import Sink, Sinks
from foreworld.train.update import Outcome, device_of, update
from foreworld.train.videos import Film, Videos

GIB = 2**30
MOST_ENVS = 4096


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
        capacity: rows that the replay keeps.
        capacity_gib: the same in GiB, of rows and states.
        optimizer: `laprop` with adaptive gradient clipping, or `adamw`.
        lr: learning rate after warm-up.
        warmup: updates of linear warm-up.
        agc: `laprop`: largest gradient norm as a share of the parameter norm.
        weight_decay: decoupled, times the learning rate.
        precision: of matrix products outside the recurrence; sums, losses and weights are float32 in any case.
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
    capacity: int = 1_000_000
    capacity_gib: float = 8.0
    optimizer: Literal["laprop", "adamw"] = "laprop"
    lr: float = 4e-5
    warmup: int = 1000
    agc: float = 0.3
    weight_decay: float = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
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
        if self.train_ratio < 0 or self.minutes < 0 or self.lr <= 0 or self.capacity_gib <= 0 or self.prefill < 0:
            raise ConfigError(
                "online: train_ratio, minutes and prefill must not be negative, lr and capacity_gib must be positive"
            )


@dataclass(frozen=True)
class OnlineResult:
    """What an online training did.

    Attributes:
        steps: actions taken in all, those before a resume counted in.
        updates: updates done in all.
        episodes: finished in all.
        seconds: training time in all.
        history: one entry per line of metrics.
        interrupted: the signal that ended it early, SIGINT or SIGTERM; None when it ran to its end.
        faults: what went wrong in the environments in all, by kind: `refused` transitions, steps that `failed`, worker
            processes that `died` or `hung`.
    """

    steps: int
    updates: int
    episodes: int
    seconds: float
    history: list[dict[str, float]] = field(default_factory=list)
    interrupted: int | None = None
    faults: dict[str, int] = field(default_factory=dict)


Report = Callable[[int, int, dict[str, float]], None]
"""Called with (actions taken, actions to take, metrics) after every step; metrics are empty between logged ones."""


def train_agent(
    env: str,
    model: TrainableModel[Any],
    agent: Dreamer,
    config: OnlineConfig | None = None,
    *,
    env_options: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    report: Report | None = None,
    sinks: Sequence[str | Sink] | None = None,
    film: Film | None = None,
    **fields: Any,
) -> OnlineResult:
    """Train a world model and an agent that learns in its dreams, on what the agent does.

    One action in every environment, then as many updates as the train ratio asks for; an update trains model, actor and
    critic at once. All rows are kept in `<out>/replay`, a dataset like any other.

    Resuming is exact on a CPU with `minutes=0` where the environment is deterministic: open episodes are opened again
    by repeating their actions, and everything is as in the uninterrupted run, bit for bit. Where an environment does
    not come back to the same observation, a new episode begins there, and it is said.

    Args:
        env: what `make` opens.
        model: any family that predicts reward and cont, on its device.
        agent: learns in its dreams; on the same device.
        config: how to train; single fields can also be given by keyword. When resuming, the run's own.
        env_options: further arguments of `make`.
        out: run folder; nothing is written without it, and the replay is in memory.
        resume: go on from the newest checkpoint of `out`.
        report: called after every step in the environments.
        sinks: where metrics go besides the run folder, as for `fit`.
        film: makes a video beside every checkpoint, in `videos` of `out`.
        fields: fields of the config, by name.

    Returns:
        Steps, updates, episodes, seconds and the logged metrics, and whether it was interrupted.

    Raises:
        ConfigError: a setting that cannot be run.
        CheckpointError: `resume`, and `out` is no such run, damaged, or another model's.
        EnvironmentFault: the environment failed too often; the last checkpoint is intact.
        InUse: another process trains in `out`.
        NonFinite: a loss or gradient stays NaN or infinite; names it. The last checkpoint is intact.
        OutputExists: `out` exists and `resume` is false.
        SpecError: the environment's observations or actions are not the model's.

    Example:
        >>> import foreworld as fw
        >>> from foreworld.envs import make
        >>> model = fw.RSSM(make("CartPole-v1").spec, deter=16, units=8, latents=4)
        >>> agent = fw.Dreamer(model, units=8, horizon=3)
        >>> found = fw.train_agent("CartPole-v1", model, agent, steps=40, prefill=20, batch=2, length=8, train_ratio=4)
        >>> found.steps, found.updates
        (40, 5)
    """
    if out is None and (resume or film is not None):
        raise ConfigError("resume and film need out, the folder of the run")
    learner, folder = DreamerLearner(model, agent), None if out is None else Path(out)
    before, used = (None, []) if folder is None or not resume else _stored(folder)
    sinks = used if sinks is None else sinks
    config = replace(config or before or OnlineConfig(), **fields)
    with ExitStack() as stack:
        outlets = stack.enter_context(Sinks(sinks, folder, to_json(config)))
        opened = stack.enter_context(closing(open_env(env, config, env_options or {}, model.spec)))
        stack.enter_context(nullcontext() if folder is None else _held(folder))
        optimizer = make_optimizer(learner, config)
        checkpoints = Checkpoints(model, optimizer, folder and folder / CHECKPOINTS, {"agent": agent})
        if before is None:
            progress, saved = _begin(folder, learner, config, {"id": env, "options": dict(env_options or {})}, sinks)
        else:
            progress, saved = _go_on(checkpoints)
        replay = stack.enter_context(_replay(folder, opened, model, config, saved.get("replay")))
        collector = _set_out(opened, AgentPolicy(model, agent, config.num_envs), replay, saved, config.seed)
        if folder is not None and before is not None:  # not earlier: until here, settings that do not fit are refused
            record_change(folder, progress.step, to_json(before), to_json(config))
        logs, videos = [MetricsFile(folder, progress.step), outlets], Videos(film, folder, progress.step, outlets)
        loop = _Loop(learner, optimizer, config, collector, checkpoints, progress, logs, videos, report)
        return loop.run(fresh=before is None)


Saved = Mapping[str, Mapping[str, Tensor]]
"""States of replay and collector, by the name of their file."""


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    make_folder(folder)
    with lock_folder(folder):
        yield


def _begin(
    folder: Path | None,
    learner: DreamerLearner,
    config: OnlineConfig,
    env: Mapping[str, Any],
    sinks: Sequence[str | Sink],
) -> tuple[Progress, Saved]:
    """Begin a run, in its folder if there is one; nothing is done yet, and nothing saved."""
    check_weights(learner)
    torch.manual_seed(config.seed)
    if folder is not None:
        named = [name for name in sinks if isinstance(name, str)]
        more = {"agent": to_json(learner.agent.config), "env": dict(env)}
        start_run(folder, learner.model, to_json(config), {"path": REPLAY, "trained_on": None}, named, more)
    return Progress(step=0, seconds=0.0), {}


def _go_on(checkpoints: Checkpoints) -> tuple[Progress, Saved]:
    """Restore weights and optimiser; return how far the run was, and the states of replay and collector."""
    assert checkpoints.folder is not None
    progress, newest = checkpoints.restore(), newest_checkpoint(checkpoints.folder)
    return progress, {name: read_beside(newest, name) for name in ("replay", "collector")}


def _set_out(env: Vector, policy: AgentPolicy, replay: Replay, saved: Saved, seed: int) -> Collector:
    """Bring the environments to where the run begins, or where it stood."""
    collector = Collector(env, policy, replay)
    if not saved:
        collector.begin(seed)
    elif lost := collector.restore(saved["collector"], seed):
        complain(lost)
    return collector


def open_env(env: str, config: OnlineConfig, options: Mapping[str, Any], spec: Spec) -> Vector:
    """Open the environments that a config asks for, which must be such as the model knows.

    Raises:
        SpecError: their observations or actions are not those of `spec`.
    """
    opened = make(
        env,
        num_envs=config.num_envs,
        workers=config.workers,
        timeout=config.timeout,
        fault_rate=config.fault_rate,
        **options,
    )
    if opened.spec != spec:
        opened.close()
        raise SpecError(f"{env}: its observations or actions are not the model's; build the model from its spec")
    return opened


def _stored(folder: Path) -> tuple[OnlineConfig, list[str]]:
    stored = read_config(folder)
    return from_json(OnlineConfig, stored["fit"], f"{folder / CONFIG}: fit"), stored.get("sinks", [])


def _replay(
    folder: Path | None,
    env: Vector,
    model: TrainableModel[Any],
    config: OnlineConfig,
    saved: Mapping[str, Tensor] | None,
) -> Replay:
    carry = tree.to_vector(model.initial(1)).shape[1] if "carry" in model.provides else 0
    replay = Replay(
        None if folder is None else folder / REPLAY,
        env.spec,
        num_envs=env.num_envs,
        length=config.length,
        capacity=config.capacity,
        max_bytes=int(config.capacity_gib * GIB),
        truth=env.truth,
        source=Source(env=env.env_id, policy="dreamer", seed=config.seed, options=dict(env.options)),
        carry=carry,
        seed=config.seed,
        state=saved,
    )
    room = int(config.capacity_gib * GIB) // replay.bytes_per_row
    if room < config.prefill:
        replay.close()
        raise ConfigError(
            f"online.capacity_gib ({config.capacity_gib}) has room for {room} rows, fewer than online.prefill "
            f"({config.prefill}); lower the one or raise the other"
        )
    if replay.lost_carries:
        complain("the states of the replay were too large to be saved; until it is filled anew windows begin from zero")
    return replay


class _Loop:
    """The loop itself, and what it counts."""

    def __init__(
        self,
        learner: DreamerLearner,
        optimizer: Any,
        config: OnlineConfig,
        collector: Collector,
        checkpoints: Checkpoints,
        progress: Progress,
        logs: Sequence[MetricsFile | Sinks],
        videos: Videos,
        report: Report | None,
    ) -> None:
        self.learner, self.optimizer, self.config, self.collector = learner, optimizer, config, collector
        self.checkpoints, self.logs, self.videos, self.report = checkpoints, logs, videos, report
        self.device = device_of(learner.model)
        # on a GPU every look would stop the host until the device has caught up
        self.guard = Guard(learner, progress, config.max_skips, 1 if self.device.type == "cpu" else config.max_skips)
        counted, owed = collector.replayed
        self.ratio = Ratio(config.train_ratio, config.batch * config.length, steps=counted, updates=owed)
        self.updates = progress.step
        self.tried = progress.step // config.save_every  # which checkpoint was written last, or refused
        self.calibrated = progress.step > 0
        self.started, self.waited = time.monotonic() - progress.seconds, 0.0
        self.history: list[dict[str, float]] = []

    def run(self, fresh: bool) -> OnlineResult:
        """Collect and learn until the steps are taken or the time is over; `fresh` if nothing was done before."""
        config, collector = self.config, self.collector
        self.learner.train()
        with graceful() as interruption:
            if fresh:  # something to go back to, should the first updates go bad, and to resume from
                self.save()
            while collector.steps < config.steps and not self._late() and not interruption.requested:
                taken = collector.step()
                line: dict[str, float] = {}
                # once begun it goes on: a full replay may hold fewer rows for a while, as it forgets whole episodes
                if (self.updates or collector.replay.rows >= config.prefill) and collector.replay.ready():
                    for _ in range(self.ratio.due(taken)):
                        line |= self._learn()
                    self._keep()
                if self.report is not None:
                    self.report(collector.steps, config.steps, line)
            self.guard.finish(self.updates)
            self.save()
            if not interruption.requested:  # who asks for the end does not wait for a video
                self.videos.make(self.learner.model, self.updates)
        return OnlineResult(
            steps=collector.steps,
            updates=self.updates,
            episodes=collector.episodes,
            seconds=time.monotonic() - self.started,
            history=self.history,
            interrupted=interruption.signal,
            faults=collector.faults,
        )

    def _learn(self) -> dict[str, float]:
        """Do one update; return a line of metrics when it is time for one."""
        config, replay, model = self.config, self.collector.replay, self.learner.model
        asked = time.monotonic()
        batch = replay.sample(config.batch, step=self.updates)
        segment = tree.to(batch.segment, self.device)
        self.waited += time.monotonic() - asked
        state = None
        if replay.carry:
            state = tree.from_vector(model.initial(config.batch), batch.carry.to(self.device))
        if not self.calibrated and "calibrate" in model.provides:
            cast(Calibrates, model).calibrate(lambda: iter([segment]))
        self.calibrated = True
        set_rate(self.optimizer, config.lr * self.guard.rate)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            outcome = update(self.learner, self.optimizer, segment, state=state)
        self.guard.add(outcome)
        self.updates += 1
        if replay.carry and bool(outcome.sound):
            replay.write_back(batch, tree.to_vector(outcome.states, 2).cpu())
        line: dict[str, float] = {}
        if self.guard.lost or self.updates % config.log_every == 0:
            self.guard.look()
            line = self._line(outcome)
            self.history.append(line)
            for log in self.logs:
                log.write(line)
        if self.guard.lost:
            self.guard.go_back(self.updates)
            self.calibrated = self.checkpoints.restore().step > 0
        return line

    def _line(self, outcome: Outcome) -> dict[str, float]:
        times = {"seconds": round(time.monotonic() - self.started, 2), "data_wait": round(self.waited, 2)}
        # what was really replayed, which lags behind the setting while the replay fills
        ratio = self.updates * self.config.batch * self.config.length / max(1, self.collector.steps)
        counts = {"train_ratio": round(ratio, 1), **self.collector.numbers()}
        return {"step": self.updates, **times, **counts, **self.guard.numbers(), **outcome.numbers()}

    def _keep(self) -> None:
        """Write a checkpoint when it is time for one."""
        due = self.updates // self.config.save_every
        if due == self.tried:
            return
        self.guard.look()
        if not self.guard.sound:
            return
        self.tried = due
        try:
            self.save()
        except OSError as fault:
            complain(f"no checkpoint at update {self.updates} ({fault}); training goes on, the next try comes later")
        else:
            self.guard.kept()
            self.videos.make(self.learner.model, self.updates)

    def save(self) -> None:
        """Write a checkpoint: all that a resumed run needs to go on to the bit.

        Raises:
            WriteFailed: the disk refused; the checkpoints before it are intact.
        """
        replay, guard = self.collector.replay, self.guard
        progress = Progress(
            step=self.updates,
            seconds=time.monotonic() - self.started,
            rollbacks=guard.rollbacks,
            skips=dict(guard.skips),
            env_steps=self.collector.steps,
        )
        extra: dict[str, dict[str, Tensor]] = {}
        if self.checkpoints.folder is not None:  # a copy in memory is for going back, which leaves the replay as it is
            counted = self.ratio.steps, self.ratio.updates
            extra = {"replay": replay.save(), "collector": self.collector.save(counted)}
        self.checkpoints.save(progress, extra)
        replay.confirm()

    def _late(self) -> bool:
        return 0 < 60 * self.config.minutes < time.monotonic() - self.started
