"""A clip of acting by planning: the start, the goal, what happened, and where each plan would have ended."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from foreworld.agents.mpc import MPC
from foreworld.core import deterministic, seeded, showing, shows, tree
from foreworld.core.files import write_atomic
from foreworld.envs import Rows
from foreworld.envs.area import resize_area
from foreworld.models.simulated import Simulated
from foreworld.plan import Plan
from foreworld.report import Trace
from foreworld.report.draw import Picture, Scene, moments, scene_frames, trace_frames
from foreworld.report.png import encode
from foreworld.report.video import write_video
from foreworld.rollout import imagine
from foreworld.studies.aiming import Player
from foreworld.studies.dreams import MOST_TRACES
from foreworld.worlds.world import Aiming, Drawn

CLIP, IMAGINED, STILLS = "plan.mp4", "plan-imagined.mp4", "plan.png"
FPS = 10.0
MOMENTS = 3
"""Frames of the clip that are shown below each other as a picture."""
SIDE = 96
"""Pixels of a side at most: what is drawn larger is averaged."""


class PlanFilm:
    """Watch the first episode of the first environment while a planner acts.

    What the model imagines is shown as pictures where it can show these, or is the world itself; as lines where it
    shows numbers alone.

    Args:
        player: environments, model and goals.
    """

    def __init__(self, player: Player) -> None:
        """Begin without a picture."""
        self._player, self._over, self._rows = player, False, 0
        self._real: list[Picture] = []
        self._ends: list[Picture] = []
        self._goal: Picture | None = None
        self._plan: Plan | None = None
        self._numbers: list[np.ndarray] = []
        self._told: dict[int, np.ndarray] = {}  # what is imagined of a row, by its number
        model = player.model
        images = model.spec.images
        self._pictured = isinstance(model, Simulated) or (shows(model) and bool(images))
        self._keys = [key for key, space in model.spec.obs.items() if space.kind == "vector"]
        self._traced = shows(model) and bool(self._keys) and not self._pictured

    def watching(self, policy: MPC) -> Callable[[Rows], None]:
        """Return what is to be shown all rows that the policy has chosen actions for."""

        def watch(rows: Rows) -> None:
            self._over |= not rows.arrived[0] or (self._rows > 0 and bool(rows.is_first[0]))
            if self._over:
                return
            if (picture := self._seen(rows)) is not None:
                self._goal = self._goal if self._real else self._aim(rows)
                self._real.append(picture)
            if self._traced:
                self._numbers.append(np.concatenate([rows.obs[key][0].ravel() for key in self._keys]))
            self._imagine(policy)
            self._rows += 1

        return watch

    def write(self, folder: Path, title: str) -> list[Path]:
        """Write what there is to see: `plan.mp4`, moments of it as `plan.png`; `plan-imagined.mp4` for numbers alone.

        Args:
            folder: where to.
            title: a few words.

        Returns:
            The paths.

        Raises:
            MissingExtra: PyAV or Pillow is not installed.
        """
        found = []
        if self._real:
            panels = {"start": self._real[0]} | ({} if self._goal is None else {"goal": self._goal})
            panels["what happens"] = np.stack(self._real)
            if self._ends:
                panels["where the plan ends"] = np.stack(self._ends)
            notes = [f"{t} of {len(self._real) - 1} actions carried out" for t in range(len(self._real))]
            scene = Scene(panels=panels, notes=notes, title=title)
            found.append(write_video(folder / CLIP, scene_frames(scene), FPS))
            stills = np.concatenate(list(scene_frames(moments(scene, MOMENTS))))
            write_atomic(folder / STILLS, encode(stills))
            found.append(folder / STILLS)
        if self._traced and self._told:
            found.append(write_video(folder / IMAGINED, trace_frames(self._trace(title)), FPS))
        return found

    def _trace(self, title: str) -> Trace:
        """Return all numbers seen, beside what was imagined of each row when a plan was made that would end there."""
        real, spec = np.stack(self._numbers)[:, :MOST_TRACES], self._player.model.spec
        dreamed = np.full(real.shape, np.nan)
        for row, told in self._told.items():
            if row < len(real):
                dreamed[row] = told[:MOST_TRACES]
        names = [f"{key}[{i}]" for key in self._keys for i in range(spec.obs[key].width)]
        return Trace(
            real=real.astype(np.float64),
            dreamed=dreamed,
            context=0,
            names=tuple(names[:MOST_TRACES]),
            title=f"{title}: what happened, and where each plan would have ended",
        )

    def _seen(self, rows: Rows) -> Picture | None:
        """Return how the first environment looks."""
        world, images = self._player.world, self._player.env.spec.images
        if images:
            return _upright(rows.obs[images[0]][0])
        if isinstance(world, Drawn):
            return _upright(world.render(rows.truth["state"][:1])[0])
        found = self._player.env.picture()
        return None if found is None else _small(found)

    def _aim(self, rows: Rows) -> Picture | None:
        """Return what the goal looks like, where there is one to see."""
        world = self._player.world
        if self._player.judge is None:
            return None
        if self._player.shown is not None:
            return _upright(next(iter(self._player.shown.values())))
        if isinstance(world, Aiming) and isinstance(world, Drawn):
            return _upright(world.render(world.reached(rows.truth["state"][:1]))[0])
        return None

    @torch.no_grad()
    def _imagine(self, policy: MPC) -> None:
        """Note where the plan of the first environment ends, as the model sees it, whenever there is a new plan."""
        model, latest = self._player.model, policy.log.latest
        which, plan = ([], None) if latest is None else (latest[0].tolist(), latest[1])
        if not (self._pictured or self._traced) or plan is None or plan is self._plan or 0 not in which:
            self._ends += self._ends[-1:]  # the plan goes on
            return
        self._plan = plan
        at, state = which.index(0), tree.index(policy.state, slice(0, 1))
        with seeded(0), deterministic():
            final: Any = imagine(model, state, plan.actions[at : at + 1]).final
            if isinstance(model, Simulated):
                world = self._player.world
                self._ends += [_upright(world.render(final.x.numpy())[0])] if isinstance(world, Drawn) else []
                return
            told = {key: value[0].float().cpu().numpy() for key, value in showing(model, "a clip")(final).items()}
        if self._pictured:
            image = told[model.spec.images[0]]
            self._ends.append(_upright((image * 255).round().clip(0, 255).astype(np.uint8)))
        else:
            self._told[self._rows + plan.actions.shape[1]] = np.concatenate([told[key].ravel() for key in self._keys])


def can_film_plans() -> bool:
    """Tell whether what draws and writes videos is installed."""
    return all(find_spec(name) is not None for name in ("av", "PIL"))


def _upright(image: np.ndarray) -> Picture:
    """Turn [C, H, W] uint8 into [H, W, 3]; of stacked frames the newest."""
    rgb = image if len(image) == 3 else np.repeat(image[-1:], 3, 0)
    return _small(np.ascontiguousarray(np.moveaxis(rgb, 0, -1)))


def _small(picture: Picture) -> Picture:
    height, width = picture.shape[:2]
    if max(height, width) <= SIDE:
        return picture
    scale = SIDE / max(height, width)
    return resize_area(picture, max(1, round(height * scale)), max(1, round(width * scale)))
