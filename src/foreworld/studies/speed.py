"""How fast the parts run, each beside the bound that this machine sets in the same minute.

Wall times lie on a shared machine, so everything is counted in CPU time of one thread; on a GPU
in time between two synchronisations.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import SyncVectorEnv
from torch.utils.flop_counter import FlopCounterMode

from foreworld.core import Segment, Spec, tree
from foreworld.data import Episode, Writer, load
from foreworld.envs import builder, make
from foreworld.models.rssm import RSSM
from foreworld.presets.rssm import FAMILY
from foreworld.rollout import collect
from foreworld.train.optim import make_optimizer
from foreworld.train.update import update

REPEATS = 5
HORIZON = 15


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured speed.

    Attributes:
        name: what was measured.
        value: how fast.
        unit: of the value; more is better unless it ends in `ms`.
        bound: the same quantity if only the stated bound counted.
        bound_by: what sets the bound.
        fraction: how near the value comes to it, at most about 1.
    """

    name: str
    value: float
    unit: str
    bound: float
    bound_by: str
    fraction: float


def matmul_gflops(device: str = "cpu", size: int = 1024) -> float:
    """Measure the float32 matrix product of two square matrices, in GFLOP per second of one core or GPU."""
    a, b = torch.randn(size, size, device=device), torch.randn(size, size, device=device)
    out = torch.empty(size, size, device=device)
    return 2 * size**3 / seconds(lambda: torch.mm(a, b, out=out), device) / 1e9


def world_model_update(gflops: float, size: str, batch: int, length: int, device: str = "cpu") -> Figure:
    """Time one update: losses, gradients, optimiser.

    Size `tiny` sees 64x64 pictures and 3 actions, the others 24 numbers and a box of 6.
    """
    torch.manual_seed(0)
    image = size == "tiny"
    spec = _spec(image)
    model = RSSM(spec, FAMILY.config(size)).to(device).train()
    segment = tree.to(noise_segment(spec, batch, length), device)
    optimizer = make_optimizer(model, FAMILY.fit(size))
    flops = count_flops(lambda: update(model, optimizer, segment))
    spent = seconds(lambda: update(model, optimizer, segment), device)
    bound = flops / gflops / 1e9
    what = "64x64 image, 3 actions" if image else "24-d vector, 6-d action"
    return Figure(
        name=f"RSSM {size} update, {what}, B={batch} T={length}",
        value=1e3 * spent,
        unit="ms",
        bound=1e3 * bound,
        bound_by="its matrix products and convolutions at the matmul ceiling",
        fraction=bound / spent,
    )


def imagination(gflops: float, states: int, size: str = "1m", device: str = "cpu") -> Figure:
    """Time open-loop imagination of 15 steps from many states, without heads."""
    torch.manual_seed(0)
    model = RSSM(_spec(False), FAMILY.config(size)).to(device).eval()
    start = model.initial(states)
    actions = torch.rand(states, HORIZON, 6, device=device) * 2 - 1

    def dream() -> None:
        with torch.no_grad():
            model.unroll(start, actions, HORIZON)

    flops, spent = count_flops(dream), seconds(dream, device)
    name = f"RSSM {size} imagination, {states} states x {HORIZON} steps"
    bound_by = "its matrix products at the matmul ceiling"
    return _rate(name, states * HORIZON, "steps/s", spent, flops / gflops / 1e9, bound_by)


def sampling(rows: int, batch: int = 16, length: int = 64) -> Figure:
    """Time windows of 64x64 RGB out of a store of `rows` frames, in the page cache, into a reused buffer."""
    rng, spec = np.random.default_rng(0), _spec(image=True)
    frames = rng.integers(256, size=(1000, 3, 64, 64), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        with Writer(folder, spec) as writer:
            for i in range(max(2, rows // len(frames))):
                action = rng.integers(3, size=len(frames))
                action[0] = 0
                shown = np.roll(frames, i, 0)
                writer.add(Episode(obs={"image": shown}, prev_action=action))
        data = load(folder)
        buffer = data.sample(batch, length, step=0)
        steps = iter(range(1, 1_000_000))
        spent = seconds(lambda: data.sample(batch, length, step=next(steps), out=buffer), inner=20)
        source, target = torch.ones(batch * length, 3, 64, 64, dtype=torch.uint8), buffer.obs["image"].flatten(0, 1)
        copy = seconds(lambda: target.copy_(source), inner=20)
    name = f"sample {batch} x {length} windows of 64x64 RGB from {data.rows} frames"
    return _rate(name, batch * length, "frames/s", spent, copy, "one copy of as many bytes in memory")


def to_float(batch: int = 16, length: int = 64) -> Figure:
    """Time the first layer's own conversion of uint8 pictures to network units."""
    model = RSSM(_spec(image=True), FAMILY.config("tiny"))
    scale = model.encoder.scale
    assert scale is not None
    pixels = torch.randint(0, 256, (batch, length, 3, 64, 64), dtype=torch.uint8)
    target = torch.empty(pixels.shape)
    with torch.no_grad():
        spent = seconds(lambda: scale(pixels))
        copy = seconds(lambda: target.copy_(pixels))
    name = f"uint8 to network units, {batch} x {length} of 64x64 RGB"
    return _rate(name, batch * length, "frames/s", spent, copy, "one conversion to float32")


def collection(env_id: str, steps: int, least: float = 0.0, num_envs: int = 8) -> Figure:
    """Time `collect` with a random player against the same environments stepped by Gymnasium's own vector.

    Args:
        env_id: any environment.
        steps: how many to take.
        least: take more until the bare environments are busy for so many seconds. A short run would time
            the first shards, which are small and cost as much as large ones.
        num_envs: environments side by side.
    """
    env = make(env_id, num_envs=num_envs)
    bare = SyncVectorEnv([builder(env_id)] * num_envs, copy=False)
    bare.action_space.seed(0)
    actions = [bare.action_space.sample() for _ in range(steps // num_envs)]
    with tempfile.TemporaryDirectory() as folder:

        def play() -> None:
            bare.reset(seed=0)
            for action in actions:
                bare.step(action)

        def store() -> None:
            collect(env, out=Path(folder) / "data", steps=steps, overwrite=True)

        once = seconds(play, repeats=1, warm=0)
        actions *= max(1, math.ceil(least / once))
        steps = len(actions) * num_envs
        # by turns, so that what else the machine does falls on both
        turns = [(seconds(play, repeats=1, warm=0), seconds(store, repeats=1, warm=0)) for _ in range(3)]
    env.close()
    bare.close()
    alone, spent = (min(times) for times in zip(*turns, strict=True))
    name = f"collect {env_id}, {num_envs} environments"
    return _rate(name, steps, "steps/s", spent, alone, "Gymnasium stepping the same environments")


def _rate(name: str, count: int, unit: str, spent: float, least: float, bound_by: str) -> Figure:
    """Say how many of something are done a second, beside how many if only the least time were spent."""
    return Figure(
        name=name, value=count / spent, unit=unit, bound=count / least, bound_by=bound_by, fraction=least / spent
    )


def seconds(
    work: Callable[[], Any], device: str = "cpu", repeats: int = REPEATS, warm: int = 1, inner: int = 1
) -> float:
    """Return the least time of a call: CPU time of this process, or wall time between synchronisations of a GPU."""
    on_gpu = torch.device(device).type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    for _ in range(warm):
        work()
    best = float("inf")
    for _ in range(repeats):
        if on_gpu:
            torch.cuda.synchronize()
        started = clock()
        for _ in range(inner):
            work()
        if on_gpu:
            torch.cuda.synchronize()
        best = min(best, (clock() - started) / inner)
    return best


def count_flops(work: Callable[[], Any]) -> int:
    """Count the floating-point operations of the matrix products and convolutions of a call, its backward included."""
    in_place = {torch.ops.aten.addmm_: _product_flops, torch.ops.aten.baddbmm_: _product_flops}
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        work()
    return counter.get_total_flops()


def _product_flops(_: Sequence[int], left: Sequence[int], right: Sequence[int], **__: Any) -> int:
    """Count an in-place product of [.., m, k] and [.., k, n], which torch's counter does not know."""
    return 2 * math.prod(left) * right[-1]


def _spec(image: bool) -> Spec:
    if image:
        picture = gym.spaces.Dict({"image": gym.spaces.Box(0, 255, (64, 64, 3), np.uint8)})
        return Spec.from_space(picture, gym.spaces.Discrete(3))
    return vector_spec()


def vector_spec() -> Spec:
    """Return 24 numbers to see and a box of 6 actions, as the proprioceptive tasks of DreamerV3's benchmarks have."""
    return Spec.from_space(gym.spaces.Box(-1, 1, (24,), np.float32), gym.spaces.Box(-1, 1, (6,), np.float32))


def noise_segment(spec: Spec, batch: int, length: int) -> Segment:
    """Return rows of noise in one long episode."""
    assert spec.action is not None
    never = torch.zeros(batch, length, dtype=torch.bool)
    obs = {
        key: torch.randint(0, 256, (batch, length, *space.shape), dtype=torch.uint8)
        if space.kind == "image"
        else torch.randn(batch, length, *space.shape)
        for key, space in spec.obs.items()
    }
    action = torch.rand(batch, length, spec.action_width) * 2 - 1
    return Segment(
        obs=obs,
        prev_action=action,
        reward=torch.randn(batch, length),
        is_first=never,
        is_terminal=never.clone(),
        is_last=never.clone(),
    )
