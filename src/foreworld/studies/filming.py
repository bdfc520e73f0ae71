"""Films of dreams: a video of one, and one at every checkpoint of a training."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from foreworld.agents import AgentPolicy, Dreamer
from foreworld.core import shows
from foreworld.core.errors import ForeworldError
from foreworld.data import Dataset
from foreworld.envs import Rows, Vector, make
from foreworld.report.draw import clip_frames, trace_frames
from foreworld.report.video import write_video
from foreworld.rollout import collect
from foreworld.rollout.policies import Policy
from foreworld.studies.dreams import Dream, dream, spread_starts
from foreworld.train import Film
from foreworld.train.log import complain

FPS = 10.0
"""Frames a second: slow enough to follow."""
FILMED = 2_000_000
"""Seed of the episodes that are filmed."""


def write_dream(found: Dream, path: Path, key: str | None = None, fps: float = FPS) -> Path:
    """Write a dream beside the truth as a video: pictures as panels, vectors as plots.

    Args:
        found: the dream.
        path: the video, .mp4 or .gif.
        key: image to show; the first one by default. Without images, all numbers are drawn.
        fps: frames a second.

    Returns:
        The path.

    Raises:
        MissingExtra: PyAV or Pillow is not installed.
        SpecError: no image has that key.
    """
    images = found.spec.images
    return write_video(path, clip_frames(found.clip(key or images[0])) if images else trace_frames(found.trace()), fps)


def film_dreams(heldout: Dataset, context: int = 10, horizon: int = 50) -> Film:
    """Return what `fit` needs to film a dream at every checkpoint: always the same rows, so that clips compare.

    Args:
        heldout: episodes that the model is not trained on; the dream is of one of them.
        context: rows that the model sees first; in short episodes, half of the rows.
        horizon: steps to imagine; fewer where the episode ends.

    Returns:
        A film, for the argument of that name.

    Raises:
        MissingCapability: when it is called with a model that cannot show what it predicts.
        MissingExtra: when it is called without PyAV and Pillow.

    Example:
        >>> import tempfile, foreworld as fw
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data = fw.collect("CartPole-v1", episodes=4, out=f"{folder}/episodes")
        ...     train, heldout = data.split(0.5)
        ...     model = fw.RSSM(data.spec, deter=16, units=8, latents=4)
        ...     film = fw.film_dreams(heldout, horizon=4)
        ...     _ = fw.fit(model, train, steps=2, batch=2, length=8, out=f"{folder}/run", film=film)
        ...     [path.name for path in Path(folder).glob("run/videos/*")]
        ['00000002.mp4']
    """
    context = max(1, min(context, int(heldout.lengths.max()) // 2))
    episodes, starts = spread_starts(heldout, context, horizon, 1)

    def film(model: Any, path: Path) -> None:
        rows = heldout.with_spec(model.spec)
        write_dream(dream(model, rows, episodes, starts, context, horizon)[0], path)

    return film


def film_agent(agent: Dreamer, env: str, options: Mapping[str, Any], longest: int = 200) -> Film:
    """Return what `train_agent` needs to film the agent at every checkpoint.

    It plays an episode, always from the same start, and two videos are written: the episode beside what the model
    dreams of it, and (`<name>-episode.mp4`) the episode as the environment renders it. Where that cannot be, it is said
    once.

    Args:
        agent: acts, by its likeliest actions.
        env: what `make` opens; the videos have an environment of their own.
        options: further arguments of `make`.
        longest: steps after which an episode is cut off.

    Returns:
        A film, for the argument of that name.
    """
    told: list[str] = []

    def film(model: Any, path: Path) -> None:
        frames: list[np.ndarray] = []
        with tempfile.TemporaryDirectory() as home, closing(_open(env, options, longest, told)) as opened:
            policy = _filmed(AgentPolicy(model, agent, 1, mode=True), opened, frames, told)
            data = collect(opened, policy, out=Path(home) / "episode", episodes=1, seed=FILMED)
            film_dreams(data)(model, path)
        if frames:
            write_video(path.with_name(f"{path.stem}-episode.mp4"), frames, 3 * FPS)

    return film


def _open(env: str, options: Mapping[str, Any], longest: int, told: list[str]) -> Vector:
    """Open an environment that renders, or one that does not, and say why."""
    limited: dict[str, Any] = {"max_steps": longest, **options}
    shown: dict[str, Any] = {"render_mode": "rgb_array", **limited}
    try:
        return make(env, **shown)
    except (ForeworldError, TypeError) as fault:
        opened = make(env, **limited)
        if not opened.spec.images:  # else the dream's video shows the episode already
            _tell(f"{env} ({fault})", told)
        return opened


def _filmed(policy: AgentPolicy, env: Vector, frames: list[np.ndarray], told: list[str]) -> Policy:
    """Return a policy that does the same, and keeps a picture of every row that it sees, where there is one."""

    def filmed(rows: Rows) -> np.ndarray:
        try:
            picture = env.picture()
        except Exception as fault:  # whatever an environment draws with may be missing
            _tell(f"{env.env_id} ({type(fault).__name__}: {fault})", told)
        else:
            frames.extend([] if picture is None else [picture])
        return policy(rows)

    return filmed


def _tell(what: str, told: list[str]) -> None:
    """Say once what cannot be shown."""
    if not told:
        complain(f"no video of how {what} looks; dreams are filmed all the same")
    told.append(what)


def can_film(model: Any) -> bool:
    """Tell whether a model can be filmed: it shows its states, and what draws and writes videos is installed."""
    return shows(model) and all(find_spec(name) is not None for name in ("av", "PIL"))
