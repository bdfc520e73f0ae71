"""How fast an agent learns and dreams, beside what this machine's matrix product would allow."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from foreworld.agents import Dreamer, DreamerLearner
from foreworld.core import tree
from foreworld.models.rssm import RSSM
from foreworld.nn.precision import Precision, lowered
from foreworld.presets.rssm import FAMILY
from foreworld.studies.speed import HORIZON, count_flops, matmul_gflops, noise_segment, seconds, vector_spec
from foreworld.train.optim import make_optimizer
from foreworld.train.update import update

BATCH, LENGTH = 16, 64


@dataclass(frozen=True, kw_only=True)
class AgentSpeed:
    """What an update of model, actor and critic takes.

    Attributes:
        size: of the model.
        device: where.
        parameters: that are trained.
        batch: windows of an update.
        length: rows of a window.
        horizon: steps imagined from every row.
        precision: of matrix products.
        seconds_per_update: CPU seconds of one thread; on a GPU seconds.
        imagined_per_second: steps of pure imagination with the actor, without heads, from batch * length states.
        flops: floating-point operations of the update's matrix products.
        gflops: of this machine's float32 matrix product, in the same minute.
    """

    size: str
    device: str
    parameters: int
    batch: int
    length: int
    horizon: int
    precision: Precision
    seconds_per_update: float
    imagined_per_second: float
    flops: int
    gflops: float

    def to_json(self) -> dict[str, Any]:
        """Return plain values; the names say in what time is counted."""
        unit = "cpu_s" if self.device == "cpu" else "s"
        return {
            "size": self.size,
            "device": self.device,
            "parameters": self.parameters,
            "batch": self.batch,
            "length": self.length,
            "horizon": self.horizon,
            "precision": self.precision,
            f"{unit}_per_update": self.seconds_per_update,
            "imagined_steps_per_core_s" if unit == "cpu_s" else "imagined_steps_per_s": self.imagined_per_second,
            "gflop_per_update": self.flops / 1e9,
            "matmul_gflops": self.gflops,
            "fraction_of_matmul": self.flops / 1e9 / self.gflops / self.seconds_per_update,
        }


def agent_speed(
    size: str = "1m", device: str = "cpu", batch: int = BATCH, length: int = LENGTH, precision: Precision = "float32"
) -> AgentSpeed:
    """Time a full update (world model, actor, critic, optimiser, slow critic), and imagination by itself.

    Args:
        size: of the RSSM.
        device: where to compute.
        batch: windows of an update.
        length: rows of a window.
        precision: of matrix products; those of the recurrence over real rows, sums and losses stay float32.
    """
    torch.manual_seed(0)
    spec = vector_spec()
    model = RSSM(spec, FAMILY.config(size)).to(device)
    agent = Dreamer(model, units=model.config.units, horizon=HORIZON).to(device)
    learner = DreamerLearner(model, agent).train()
    optimizer = make_optimizer(learner, FAMILY.fit(size))
    segment = tree.to(noise_segment(spec, batch, length), device)

    def learn() -> None:
        with lowered(device, precision):
            update(learner, optimizer, segment, state=model.initial(batch))

    gflops = matmul_gflops(device)
    return AgentSpeed(
        size=size,
        device=device,
        parameters=sum(p.numel() for p in learner.parameters() if p.requires_grad),
        batch=batch,
        length=length,
        horizon=HORIZON,
        precision=precision,
        flops=count_flops(learn),
        seconds_per_update=seconds(learn, device, repeats=8),
        imagined_per_second=batch * length * HORIZON / seconds(_dream(model, agent, batch * length, precision), device),
        gflops=gflops,
    )


@dataclass(frozen=True, kw_only=True)
class DreamSpeed:
    """What so many imagined actions take.

    Attributes:
        size: of the model.
        device: where.
        steps: imagined, each with an action that the actor chose.
        parallel: states that dream side by side.
        precision: of matrix products.
        seconds: CPU seconds of one thread; on a GPU seconds.
        wall: seconds by the clock.
        flops: of the matrix products.
        gflops: of this machine's matrix product.
    """

    size: str
    device: str
    steps: int
    parallel: int
    precision: Precision
    seconds: float
    wall: float
    flops: float
    gflops: float

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        unit = "cpu_s" if self.device == "cpu" else "s"
        return {
            "size": self.size,
            "device": self.device,
            "steps": self.steps,
            "parallel_states": self.parallel,
            "precision": self.precision,
            unit: self.seconds,
            "wall_s": self.wall,
            f"steps_per_{'core_s' if unit == 'cpu_s' else 's'}": self.steps / self.seconds,
            "matmul_gflops": self.gflops,
            "fraction_of_matmul": self.flops / 1e9 / self.gflops / self.seconds,
        }


def dream_speed(
    size: str = "1m",
    steps: int = 10_000_000,
    device: str = "cpu",
    parallel: int | None = None,
    precision: Precision = "float32",
    progress: Callable[[int, int], None] | None = None,
) -> DreamSpeed:
    """Imagine so many actions, each chosen by an actor, and time it: the whole of it is done, nothing is scaled up.

    Args:
        size: of the RSSM.
        steps: at least so many; rounded up to whole dreams of 15 steps from `parallel` states.
        device: where to compute.
        parallel: states that dream side by side; by default what is quickest: 1,024 on a CPU, 65,536 on a GPU.
        precision: of matrix products.
        progress: called with (steps done, steps).
    """
    torch.manual_seed(0)
    count = parallel or (1024 if device == "cpu" else 65_536)
    model = RSSM(vector_spec(), FAMILY.config(size)).to(device).eval()
    agent = Dreamer(model, units=model.config.units, horizon=HORIZON).to(device)
    dream = _dream(model, agent, count, precision)
    gflops, flops = matmul_gflops(device), count_flops(dream)
    dreams = -(-steps // (count * HORIZON))
    on_gpu = torch.device(device).type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    began, started = time.perf_counter(), clock()
    for done in range(1, dreams + 1):
        dream()
        if progress is not None:
            progress(done * count * HORIZON, dreams * count * HORIZON)
    if on_gpu:
        torch.cuda.synchronize()
    return DreamSpeed(
        size=size,
        device=device,
        steps=dreams * count * HORIZON,
        parallel=count,
        precision=precision,
        seconds=clock() - started,
        wall=time.perf_counter() - began,
        flops=float(flops) * dreams,
        gflops=gflops,
    )


def dream_sweep(
    sizes: Sequence[str], parallel: Sequence[int], device: str = "cpu", precision: Precision = "float32"
) -> Iterator[DreamSpeed]:
    """Time the dreams of models of several sizes, from few to many states side by side.

    Args:
        sizes: of the RSSM.
        parallel: numbers of states; each dreams at least three times, and 30,000 steps.
        device: where to compute.
        precision: of matrix products.

    Yields:
        One figure for every size and number of states, in this order.
    """
    for size in sizes:
        for states in parallel:
            yield dream_speed(size, max(30_000, 3 * HORIZON * states), device, states, precision)


def _dream(model: RSSM, agent: Dreamer, states: int, precision: Precision) -> Callable[[], None]:
    start, device = model.initial(states), str(next(model.parameters()).device)

    def dream() -> None:
        with torch.no_grad(), lowered(device, precision):
            model.follow(start, agent.policy, HORIZON)

    return dream
