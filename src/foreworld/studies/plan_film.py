"""A clip of acting by planning: the start, the goal, what happened, and where each plan would have ended."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from foreworld.agents.mpc import MPC
from foreworld.core import deterministic, seeded, tree
from foreworld.envs import Rows
from foreworld.envs.area import resize_area
from foreworld.models.simulated import Simulated
from foreworld.plan import Plan
from foreworld.report.draw import Picture, Scene, scene_frames
from foreworld.report.video import write_video
from foreworld.rollout import imagine
from foreworld.studies.aiming import Player
from foreworld.worlds.world import Aiming, Drawn

FPS = 10.0
SIDE = 96
"""Pixels of a side at most: what is drawn larger is averaged."""


class PlanFilm:
    """Take pictures of the first episode of the first environment while a planner acts.

    What the model imagines is shown where it decodes pictures, or is the world itself.

    Args:
        player: environments, model and goals.
    """

    def __init__(self, player: Player) -> None:
        """Begin without a picture."""
        self._player, self._over = player, False
        self._real: list[Picture] = []
        self._ends: list[Picture | None] = []
        self._goal: Picture | None = None
        self._shown: Plan | None = None

    def watching(self, policy: MPC) -> Callable[[Rows], None]:
        """Return what is to be shown all rows that the policy has chosen actions for."""

        def watch(rows: Rows) -> None:
            self._over |= not rows.arrived[0] or (bool(self._real) and bool(rows.is_first[0]))
            picture = None if self._over else self._seen(rows)
            if picture is not None:
                if not self._real:
                    self._goal = self._aim(rows)
                self._real.append(picture)
                self._ends.append(self._imagined(policy))

        return watch

    def write(self, path: Path, title: str) -> Path | None:
        """Write the clip; None where there is nothing to see.

        Args:
            path: .mp4 or .gif.
            title: a few words.

        Raises:
            MissingExtra: PyAV or Pillow is not installed.
        """
        if not self._real:
            return None
        panels = {"start": self._real[0]}
        if self._goal is not None:
            panels["goal"] = self._goal
        panels["what happens"] = np.stack(self._real)
        if self._ends[0] is not None:
            kept = [one for one in self._ends if one is not None]
            panels["where the plan ends"] = np.stack(kept)
        steps = len(self._real)
        notes = [f"{t} of {steps - 1} actions carried out" for t in range(steps)]
        return write_video(path, scene_frames(Scene(panels=panels, notes=notes, title=title)), FPS)

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
    def _imagined(self, policy: MPC) -> Picture | None:
        """Return where the plan of the first environment ends, as the model sees it; the last one goes on."""
        model, latest = self._player.model, policy.log.latest
        exact, images = isinstance(model, Simulated), model.spec.images
        if latest is None or (("decode" not in model.provides or not images) and not exact):
            return None
        which, plan = latest
        if plan is self._shown or 0 not in which.tolist():
            return self._ends[-1]
        self._shown = plan
        at = which.tolist().index(0)
        state = tree.index(policy.state, slice(0, 1))
        with seeded(0), deterministic():
            final: Any = imagine(model, state, plan.actions[at : at + 1]).final
            if isinstance(model, Simulated):
                world = self._player.world
                return _upright(world.render(final.x.numpy())[0]) if isinstance(world, Drawn) else None
            return _upright((model.decode(final)[images[0]][0] * 255).round().clamp(0, 255).byte().cpu().numpy())


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
