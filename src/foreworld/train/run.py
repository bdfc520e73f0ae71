"""Run folders: what was trained, on what, how; and loading it again."""

from __future__ import annotations

import math
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from foreworld import __version__
from foreworld.agents import Dreamer, DreamerConfig
from foreworld.agents.dreamer import feature_width
from foreworld.core import Spec, TrainableModel, from_json, to_json
from foreworld.core.errors import CheckpointError, ConfigError, DataError, OutputExists
from foreworld.core.files import make_folder, read_sealed, write_json
from foreworld.core.registry import load as find
from foreworld.core.tensorfile import read_forms
from foreworld.data import Dataset, Stretches
from foreworld.data import load as open_data
from foreworld.train.checkpoint import (
    WEIGHTS,
    check_forms,
    list_checkpoints,
    load_model,
    newest_checkpoint,
    tensors,
    updates_of,
    verify_checkpoint,
)

CHECKPOINTS = "checkpoints"
CONFIG = "config.json"
REPLAY = "replay"
AGENT = "agent.safetensors"
OF_THE_TRAINING = {"num_envs", "workers", "timeout", "fault_rate"}
"""Arguments of `make` that are settings of the training, and no options of an environment."""
FIELDS = {"format", "family", "spec", "model", "fit", "data", "sinks", "history", "agent", "env"}
FORMAT = 1


@dataclass(frozen=True)
class Run:
    """A trained model with its past.

    Attributes:
        path: the run folder.
        family: registered name of the model's family.
        model: weights of the newest checkpoint.
        step: updates done.
        fit: the training settings, as JSON values.
        data: folder of the training data.
        trained_on: which rows of it.
    """

    path: Path
    family: str
    model: TrainableModel[Any]
    step: int
    fit: dict[str, Any]
    data: Path
    trained_on: Stretches

    def training_data(self) -> Dataset:
        """Open the rows that the model was trained on.

        Raises:
            DataError: the folder was moved, or holds other data now.
        """
        return self._store().seen(self.trained_on).with_spec(self.model.spec)

    def heldout_data(self) -> Dataset | None:
        """Open the other rows of the same data, which the model has not seen; None if it was trained on all.

        Raises:
            DataError: the folder was moved, or holds other data now.
        """
        data = self._store()
        try:
            return data.unseen(self.trained_on).with_spec(self.model.spec)
        except DataError:  # nothing is left
            return None

    def _store(self) -> Dataset:
        data = open_data(self.data)
        if data.fingerprint != self.trained_on.fingerprint:
            raise DataError(f"{self.data}: holds other data than the run {self.path} was trained on")
        return data


def start_run(
    folder: Path,
    model: TrainableModel[Any],
    fit: dict[str, Any],
    data: dict[str, Any],
    sinks: list[str],
    more: dict[str, Any] | None = None,
) -> None:
    """Create a run folder with `config.json` and `env.json`; a run that has no checkpoint yet is begun anew.

    Args:
        folder: of the run.
        model: what is trained.
        fit: how, as JSON values.
        data: `path` of what it is trained on, in the folder or absolute, and `trained_on`, which rows of it; None for
            all that are in the run's own replay.
        sinks: where metrics go.
        more: of a run with an agent: `agent` and `env`.

    Raises:
        OutputExists: the folder holds a checkpoint already.
        WriteFailed: the disk refused.
    """
    if (folder / CONFIG).exists() and list_checkpoints(folder / CHECKPOINTS):
        raise OutputExists(f"{folder} already holds a run; choose another folder, or resume it")
    config = {
        "format": FORMAT,
        "family": model.family,
        "spec": to_json(model.spec),
        "model": to_json(model.config),
        "fit": fit,
        "data": data,
        "sinks": sinks,
        **(more or {}),
    }
    make_folder(folder)
    write_json(folder / CONFIG, config, sealed=True)
    write_json(folder / "env.json", environment(fit.get("seed", 0)))


def read_config(folder: Path) -> dict[str, Any]:
    """Read a run's `config.json`.

    Raises:
        CheckpointError: not a run folder, damaged, or written by a newer foreworld.
    """
    where = folder / CONFIG
    if not where.is_file():
        raise CheckpointError(f"{folder}: not a run folder (no {CONFIG}); name the folder given to `train --out`")
    config = read_sealed(where, FIELDS, CheckpointError, FORMAT)
    if missing := [name for name in ("family", "spec", "model", "fit", "data") if name not in config]:
        raise CheckpointError(f"{where}: has no field {missing[0]!r}; restore it from a copy")
    sinks, history = config.get("sinks", []), config.get("history", [])
    if not isinstance(history, list) or not isinstance(sinks, list) or not all(isinstance(name, str) for name in sinks):
        raise CheckpointError(f"{where}: sinks and history must be lists, sinks of names; restore it from a copy")
    return config


def record_change(folder: Path, step: int, before: dict[str, Any], after: dict[str, Any]) -> None:
    """Write changed training settings into a run's `config.json`, and what they were into its `history`.

    Args:
        folder: the run folder.
        step: the update from which the new settings hold.
        before: the training settings so far, as JSON values.
        after: the new ones.
    """
    changed = {name: [before[name], after[name]] for name in after if before[name] != after[name]}
    if changed:
        config = read_config(folder)
        history = [*config.get("history", []), {"step": step, "fit": changed}]
        write_json(folder / CONFIG, config | {"fit": after, "history": history}, sealed=True)


def load_run(path: str | Path, device: str = "cpu") -> Run:
    """Load a trained model from its run folder.

    Args:
        path: a folder written by `fit` or `foreworld train`.
        device: where to put the model.

    Returns:
        The run, with the model in evaluation mode.

    Raises:
        CheckpointError: not a run folder, damaged, or written by a newer foreworld.
        UnknownName: its family is not installed.

    Example:
        >>> import tempfile, foreworld as fw
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data = fw.collect("CartPole-v1", episodes=3, out=f"{folder}/episodes")
        ...     _ = fw.fit(fw.Linear(data.spec), data, steps=0, length=8, out=f"{folder}/run")
        ...     run = fw.load_run(f"{folder}/run")
        >>> run.family, run.step
        ('linear', 0)
    """
    folder = Path(path)
    where, config = folder / CONFIG, read_config(folder)
    checkpoint = newest_checkpoint(folder / CHECKPOINTS)
    try:
        family = find("models", config["family"])
        spec = from_json(Spec, config["spec"], f"{where}: spec")
        settings = from_json(family.config_type, config["model"], f"{where}: model")
        source = folder / config["data"]["path"]  # an absolute path stays as it is
        trained_on = _trained_on(folder, source, config["data"]["trained_on"], f"{where}: data")
        fit = dict(config["fit"])
    except KeyError as missing:
        raise CheckpointError(f"{where}: has no field {missing}") from None
    except (TypeError, ValueError, AttributeError) as fault:
        raise CheckpointError(f"{where}: not a valid config ({fault!s:.200}); restore it from a copy") from fault
    _refuse_other_size(checkpoint, family, spec, settings)
    model = family.build(spec, settings)
    load_model(checkpoint, model)
    model.to(device).eval()
    return Run(
        path=folder,
        family=config["family"],
        model=model,
        step=updates_of(checkpoint),
        fit=fit,
        data=source,
        trained_on=trained_on,
    )


@dataclass(frozen=True)
class AgentRun:
    """A run with an agent.

    Attributes:
        run: the world model, and its past.
        agent: actor and critic, in evaluation mode.
        env: the environment that it learned in, as `make` opens it.
        env_options: further arguments of `make`.
    """

    run: Run
    agent: Dreamer
    env: str
    env_options: dict[str, Any]


def load_agent(path: str | Path, device: str = "cpu", env: str | None = None) -> AgentRun:
    """Load an agent and its world model from the run folder.

    Args:
        path: a folder written by `train_agent` or `foreworld agent`.
        device: where to put both.
        env: the environment to act in; by default the one it learned in. Where that is a class of somebody's own
            (`module:Class`), it must be given: a folder that comes from elsewhere must not name code to run.

    Returns:
        The run with its agent.

    Raises:
        CheckpointError: not a run folder, without an agent, damaged, or written by a newer foreworld.
        ConfigError: the environment is a class of somebody's own, and was not named.
        UnknownName: the model's family is not installed.

    Example:
        >>> import tempfile, foreworld as fw
        >>> from foreworld.envs import make
        >>> model = fw.RSSM(make("CartPole-v1").spec, deter=16, units=8, latents=4)
        >>> agent = fw.Dreamer(model, units=8)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = fw.train_agent("CartPole-v1", model, agent, steps=5, out=f"{folder}/run")
        ...     found = fw.load_agent(f"{folder}/run")
        >>> found.env, found.agent.config.units
        ('CartPole-v1', 8)
    """
    folder = Path(path)
    where, config = folder / CONFIG, read_config(folder)
    if "agent" not in config or "env" not in config:
        raise CheckpointError(f"{folder}: a run without an agent; train one with `foreworld agent`")
    run = load_run(folder, device)
    weights = newest_checkpoint(folder / CHECKPOINTS) / AGENT
    settings = from_json(DreamerConfig, config["agent"], f"{where}: agent")
    _refuse_other_agent(weights, run.model, settings)
    agent = Dreamer(run.model, settings)
    stored, options = _environment(config["env"], where)
    if env is None and ":" in stored:
        raise ConfigError(
            f"{where}: the environment is code, {stored!r:.80}; if you know it, name it: --env, or load_agent(env=...)"
        )
    load_model(weights.parent, agent, AGENT)
    return AgentRun(run=run, agent=agent.to(device).eval(), env=env or stored, env_options=options)


def actor_of(path: str | Path) -> Dreamer | None:
    """Load the agent of a run, if it has one; its environment is not opened.

    Args:
        path: run folder.

    Returns:
        The agent, in evaluation mode.

    Raises:
        CheckpointError: the agent is damaged.
    """
    config, where = read_config(Path(path)), Path(path) / CONFIG
    if "agent" not in config or "env" not in config:
        return None
    # named, so that a class of somebody's own is no reason to refuse: nothing of it is run here
    return load_agent(path, env=_environment(config["env"], where)[0]).agent


def _environment(stored: Any, where: Path) -> tuple[str, dict[str, Any]]:
    """Return the id and the options of the environment that a run states."""
    if isinstance(stored, dict) and stored.keys() == {"id", "options"}:
        env, options = stored["id"], stored["options"]
        if isinstance(env, str) and isinstance(options, dict) and not options.keys() & OF_THE_TRAINING:
            return env, options
    raise CheckpointError(f"{where}: 'env' states no environment with options; restore it from a copy")


def _refuse_other_agent(weights: Path, model: TrainableModel[Any], settings: DreamerConfig) -> None:
    """Compare config and file before anything is built, so that a damaged size is not allocated first."""
    stored = sum(math.prod(shape) for _, shape in read_forms(weights).values())
    least = settings.units * (feature_width(model) + (settings.layers - 1) * settings.units)
    if 2 * least > stored:
        verify_checkpoint(weights.parent)  # damage explains more than another size
        raise CheckpointError(f"{weights}: too small for the actor and critic of config.json, which was changed")


def _trained_on(folder: Path, source: Path, stored: Any, where: str) -> Stretches:
    """Return which rows a run was trained on; an agent, on all that are in its own replay, and nobody else so."""
    if stored is not None or source != folder / REPLAY:
        return from_json(Stretches, stored, where)
    try:
        return open_data(source).stretches
    except DataError:  # nothing is on disk yet
        return Stretches(fingerprint="", rows=())


def _refuse_other_size(checkpoint: Path, family: Any, spec: Spec, settings: Any) -> None:
    """Compare config and weights on a device without memory, so that a damaged size is not allocated first."""
    try:
        with torch.device("meta"):
            shapes = tensors(family.build(spec, settings))
    except NotImplementedError:  # a family whose construction needs values
        return
    except (RuntimeError, ValueError, TypeError, OverflowError, MemoryError) as fault:
        raise CheckpointError(f"{checkpoint}: config.json describes no model that can be built ({fault})") from fault
    try:
        check_forms(checkpoint / WEIGHTS, read_forms(checkpoint / WEIGHTS), shapes)
    except CheckpointError:
        verify_checkpoint(checkpoint)  # damage explains more than another shape
        raise


def environment(seed: int) -> dict[str, Any]:
    """Describe where and how a run was made: versions, hardware, command, git revision."""
    return {
        "foreworld": __version__,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in ("torch", "numpy", "gymnasium", "ale-py", "safetensors")},
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "command": " ".join(["foreworld", *sys.argv[1:]]),
        "seed": seed,
        "git": _revision(),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _revision() -> str | None:
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "rev-parse", "--short", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except OSError:
        return None
    return found.stdout.strip() or None if found.returncode == 0 else None
