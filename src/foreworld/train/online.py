"""`train_agent`: collect, learn, dream; an agent and its world model learn from what the agent itself does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foreworld.agents import AgentPolicy, Dreamer, DreamerLearner
from foreworld.core import Spec, TrainableModel, from_json, to_json, tree
from foreworld.core.errors import ConfigError, SpecError
from foreworld.core.files import lock_folder, make_folder
from foreworld.data import Ratio, Replay
from foreworld.data.schema import Source
from foreworld.envs import Vector, make
from foreworld.train.checkpoint import Progress, newest_checkpoint, read_beside
from foreworld.train.collecting import Collector
from foreworld.train.guard import Checkpoints, check_weights
from foreworld.train.learning import Learning
from foreworld.train.log import MetricsFile, complain
from foreworld.train.online_config import OnlineConfig
from foreworld.train.online_loop import Audience, Loop, OnlineResult, Report
from foreworld.train.optim import make_optimizer
from foreworld.train.run import CHECKPOINTS, CONFIG, REPLAY, read_config, record_change, start_run
from foreworld.train.sinks import Sink, Sinks
from foreworld.train.videos import Film, Videos

GIB = 2**30


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
    critic at once. All rows are kept in `<out>/replay`, a dataset like any other. Resuming is exact on a CPU with
    `minutes=0` and `collector="sync"` where the environment is deterministic: open episodes are opened again by
    repeating their actions, and everything is as in the uninterrupted run, bit for bit. Where an environment does not
    come back to the same observation, a new episode begins there, and it is said.

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
    before, sinks = _stored(folder if resume else None, sinks)
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
        ratio = Ratio(config.train_ratio, config.batch * config.length, state=saved.get("ratio"))
        collector = _collector(opened, learner, replay, config, saved.get("collector"))
        if folder is not None and before is not None:  # not earlier: until here, settings that do not fit are refused
            record_change(folder, progress.step, to_json(before), to_json(config))
        learning = Learning(learner, optimizer, config, replay, progress)
        logs, videos = (MetricsFile(folder, progress.step), outlets), Videos(film, folder, progress.step, outlets)
        audience = Audience(logs, videos, report)
        return Loop(config, collector, ratio, learning, checkpoints, audience, progress.seconds).run(before is None)


Saved = Mapping[str, Mapping[str, Tensor]]
"""States of replay, collector and train ratio, by the name of their file."""


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
    """Restore weights and optimiser; return how far the run was, and the states of all else."""
    assert checkpoints.folder is not None
    progress, newest = checkpoints.restore(), newest_checkpoint(checkpoints.folder)
    return progress, {name: read_beside(newest, name) for name in ("replay", "collector", "ratio")}


def _collector(
    env: Vector,
    learner: DreamerLearner,
    replay: Replay,
    config: OnlineConfig,
    saved: Mapping[str, Tensor] | None,
) -> Collector:
    """Bring the environments to where the run begins, or where it stood."""
    policy = AgentPolicy(learner.model, learner.agent, config.num_envs, own=config.collector == "async")
    collector = Collector(env, policy, replay, lead=config.lead, most=config.steps)
    if saved is None:
        collector.begin(config.seed)
    elif lost := collector.restore(saved, config.seed):
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


def _stored(
    folder: Path | None, sinks: Sequence[str | Sink] | None
) -> tuple[OnlineConfig | None, Sequence[str | Sink]]:
    """Return the config of a run, if one is gone on with, and the sinks: its own unless others are given."""
    if folder is None:
        return None, sinks or []
    stored = read_config(folder)
    config = from_json(OnlineConfig, stored["fit"], f"{folder / CONFIG}: fit")
    return config, stored.get("sinks", []) if sinks is None else sinks


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
