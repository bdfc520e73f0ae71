"""Imagination of many states: in parts on a CPU, and as if at once."""

from __future__ import annotations

import importlib

import pytest
import torch

import foreworld as fw
from foreworld.models.linear import Linear
from foreworld.models.quadratic import Quadratic
from foreworld.testing import specs


@pytest.mark.parametrize("rows", [2, 7, 100])
def test_imagining_in_parts_changes_nothing(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("foreworld.rollout.imagine")
    quadratic = Quadratic(seed=1)
    cases = [(quadratic, quadratic.at(torch.randn(15, 4)), 2 * torch.rand(15, 6, 2) - 1)]
    rssm = fw.RSSM(specs()["vector_box"], deter=16, units=8, latents=2, classes=4)
    cases.append((rssm, rssm.initial(15), 2 * torch.rand(15, 6, rssm.spec.action_width) - 1))
    video = Linear(specs()["plain_video"])
    with torch.no_grad(), fw.deterministic():
        for model, state, actions in [*cases, (video, video.initial(15), None)]:
            whole = fw.imagine(model, state, actions, 6, keep=("states",))
            with monkeypatch.context() as patch:
                patch.setattr(module, "FEWEST", rows)
                patch.setattr(module, "CACHED", 0)
                parts = fw.imagine(model, state, actions, 6, keep=("states",))
            torch.testing.assert_close(parts.feat, whole.feat)
            for one, other in zip(fw.tree.leaves(parts.states), fw.tree.leaves(whole.states), strict=True):
                torch.testing.assert_close(one, other)
            for one, other in zip(fw.tree.leaves(parts.final), fw.tree.leaves(whole.final), strict=True):
                torch.testing.assert_close(one, other)
