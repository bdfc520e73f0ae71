"""The usual remedies against compounding error, each on and off in the same world: what is each of them worth?"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from foreworld.core import Segment, Spec, seeded, tree
from foreworld.data import Dataset
from foreworld.eval import Evaluation, evaluate_open_loop
from foreworld.eval.predictors import last_state
from foreworld.eval.quantities import predicted_return
from foreworld.models.ensemble import Ensemble
from foreworld.models.rssm import RSSM, RSSMConfig
from foreworld.ops import Interval, bootstrap, bootstrap_ratio
from foreworld.rollout import collect, imagine
from foreworld.rollout.policies import RandomPolicy
from foreworld.studies.grounded import Grounded
from foreworld.train import FitConfig, fit
from foreworld.worlds import Acting, build

HORIZONS = (1, 10, 50)


@dataclass(frozen=True, kw_only=True)
class MitigationsConfig:
    """How much the study does.

    Attributes:
        env: a bundled world with vectors and actions.
        episodes: of which three tenths are held out.
        max_steps: of an episode.
        seeds: trainings of everything.
        members: of an ensemble.
        steps: updates of a training.
        context: rows that a model sees before it predicts.
        samples: futures per prediction.
        starts: episodes that are acted in, for replanning.
        candidates: random action sequences that a plan is chosen from.
        intervals: steps after which a plan is made anew.
    """

    env: str = "foreworld/Pendulum-v0"
    episodes: int = 200
    max_steps: int = 100
    seeds: int = 3
    members: int = 5
    steps: int = 1500
    context: int = 10
    samples: int = 8
    starts: int = 32
    candidates: int = 64
    intervals: tuple[int, ...] = (1, 5, 15, 50)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One remedy, off and on.

    Attributes:
        remedy: which.
        off: what is done without it.
        on: what is done with it.
        measure: what is compared: errors are in units of the deviation.
        without: the measure without it.
        with_it: the measure with it.
        effect: with / without for errors, with - without for returns; its interval is over episodes.
        verdict: `helps`, `hurts`, or `no clear difference` where the interval holds 1 (or 0).
    """

    remedy: str
    off: str
    on: str
    measure: str
    without: float
    with_it: float
    effect: Interval
    verdict: str


def mitigations(config: MitigationsConfig, show: Callable[[str], None] = lambda _: None) -> list[Row]:
    """Measure multi-step training, ensembles, replanning, and latent against observation space.

    Args:
        config: how much to do.
        show: told what is being done.

    Returns:
        One row per remedy and measure.
    """
    with tempfile.TemporaryDirectory() as folder:
        data = collect(
            config.env, episodes=config.episodes, num_envs=8, max_steps=config.max_steps, out=Path(folder) / "episodes"
        )
        train, heldout = data.split(0.3)
        plain, multi, together = [], [], []
        for seed in range(config.seeds):
            group = [_trained(train, config, config.members * seed + member) for member in range(config.members)]
            show(f"seed {seed}: {config.members} members trained")
            plain.append(group[0])
            together.append(Ensemble.of(group, [train.sample(64, 16, seed=0)]))
            multi.append(_trained(train, config, config.members * seed, dream_share=0.3))
            show(f"seed {seed}: multi-step model trained")
        found = {
            name: [_judged(model, heldout, config) for model in models]
            for name, models in {
                "plain": plain,
                "multi": multi,
                "ensemble": together,
                "grounded": [Grounded(model) for model in plain],
            }.items()
        }
        show("errors measured")
        return [
            *_errors("multi-step training loss", "one step", "multi-step", found["plain"], found["multi"]),
            *_members(found["ensemble"], config.members),
            *_errors("predict in latent space", "observations", "latent", found["grounded"], found["plain"]),
            *_replanning_errors(found["plain"], config),
            *_replanning_returns(plain, data.spec, config, show),
        ]


def _trained(train: Dataset, config: MitigationsConfig, seed: int, **settings: Any) -> RSSM:
    torch.manual_seed(seed)
    sizes = RSSMConfig(deter=128, units=64, latents=8, blocks=4, layers=2, latent="gaussian")
    model = RSSM(train.spec, sizes)
    schedule = FitConfig(steps=config.steps, batch=8, length=32, watch=8, lr=1e-3, warmup=100, decay=0.5, seed=seed)
    fit(model, train, schedule, **settings)
    return model.eval()


def _judged(model: Any, heldout: Dataset, config: MitigationsConfig) -> Evaluation:
    settings = {"context": config.context, "samples": config.samples, "per_episode": 1, "key": "obs"}
    return evaluate_open_loop(model, heldout, {}, horizon=HORIZONS[-1], **settings)


def _squares(found: Sequence[Evaluation]) -> np.ndarray:
    """Return squared errors averaged over the seeds, [W, H]: all have the same windows."""
    return np.mean([evaluation.main.errors**2 for evaluation in found], 0)


def _errors(remedy: str, off: str, on: str, without: Sequence[Evaluation], using: Sequence[Evaluation]) -> list[Row]:
    before, after = _squares(without), _squares(using)
    return [
        _compared(remedy, off, on, f"error at step {step}", before[:, step - 1], after[:, step - 1])
        for step in HORIZONS
    ]


def _members(found: Sequence[Evaluation], members: int) -> list[Row]:
    """Compare the mean of the members with one of them, on average."""
    single = np.mean([evaluation.main.spread.single for evaluation in found], 0)
    mean = np.mean([evaluation.main.spread.mean for evaluation in found], 0)
    on = f"mean of {members}"
    return [
        _compared("ensemble", "one model", on, f"error at step {step}", single[:, step - 1], mean[:, step - 1])
        for step in HORIZONS
    ]


def _replanning_errors(found: Sequence[Evaluation], config: MitigationsConfig) -> list[Row]:
    """Compare the mean error over the steps acted on, when the model looks again after some of them."""
    squares, last = _squares(found), config.intervals[-1]
    return [
        _compared(
            "replan often", f"every {last} steps", f"every {every}", "error over the steps acted on",
            squares[:, :last].mean(1), squares[:, :every].mean(1),
        )
        for every in config.intervals[:-1]
    ]  # fmt: skip


def _compared(remedy: str, off: str, on: str, measure: str, before: np.ndarray, after: np.ndarray) -> Row:
    """Compare squared errors of the same windows, one per episode."""
    effect = bootstrap_ratio(after, before, root=True)
    verdict = "helps" if effect.high < 1 else "hurts" if effect.low > 1 else "no clear difference"
    without, with_it = (float(np.sqrt(part.mean())) for part in (before, after))
    return Row(
        remedy=remedy, off=off, on=on, measure=measure, without=without, with_it=with_it, effect=effect, verdict=verdict
    )


def _replanning_returns(
    models: Sequence[Any], spec: Spec, config: MitigationsConfig, show: Callable[[str], None]
) -> list[Row]:
    """Act in the world by random shooting, planning as far ahead as the longest interval; and with the true world."""
    world, last = cast(Acting, build(config.env)), config.intervals[-1]
    rows = []
    imaginers = {"the model": [_dreamer(model, config) for model in models], "the true world": [_simulator(world)]}
    for name, each in imaginers.items():
        returns = {}
        for every in config.intervals:
            returns[every] = np.mean(
                [_act(world, spec, imagine_returns, config, every, seed) for seed, imagine_returns in enumerate(each)],
                0,
            )
            show(f"acted with {name}, a new plan every {every} steps")
        for every in config.intervals[:-1]:
            effect = bootstrap(lambda x: x.mean(1), returns[every] - returns[last])
            verdict = "helps" if effect.low > 0 else "hurts" if effect.high < 0 else "no clear difference"
            rows.append(
                Row(
                    remedy="replan often",
                    off=f"every {last} steps",
                    on=f"every {every}",
                    measure=f"return of {last} steps, plans imagined by {name}",
                    without=float(returns[last].mean()),
                    with_it=float(returns[every].mean()),
                    effect=effect,
                    verdict=verdict,
                )
            )
    return rows


Imaginer = Callable[[Segment, np.ndarray, np.ndarray], np.ndarray]
"""(rows so far [N, T], true states [N, S], raw actions [N, K, H, A]) to returns [N, K]."""


def _dreamer(model: Any, config: MitigationsConfig) -> Imaginer:
    @torch.no_grad()
    def returns(rows: Segment, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        count, candidates = actions.shape[:2]
        ready = model.spec.action.to_model(torch.from_numpy(actions).flatten(0, 1))
        with seeded(0):
            dream = imagine(model, tree.repeat(last_state(model, rows), candidates), ready)
        assert dream.reward is not None
        return predicted_return(dream.reward, dream.cont)[:, -1].view(count, candidates).numpy()

    return returns


def _simulator(world: Acting) -> Imaginer:
    def returns(rows: Segment, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        count, candidates, horizon = actions.shape[:3]
        state, total = np.repeat(states, candidates, 0), np.zeros(count * candidates)
        for step in range(horizon):
            act = actions[:, :, step].reshape(count * candidates, -1)
            before, state = state, world.step(state, act)
            total += world.reward(before, act, state)
        return total.reshape(count, candidates)

    return returns


def _act(
    world: Acting, spec: Spec, imagine_returns: Imaginer, config: MitigationsConfig, every: int, seed: int
) -> np.ndarray:
    """Act for the longest interval from the same starts; return what each of N episodes earned, [N]."""
    assert spec.action is not None
    count, horizon, lead = config.starts, config.intervals[-1], config.context
    state = world.start(np.random.default_rng(1), count)
    policy = RandomPolicy(spec.action, seed=seed, repeat=5)
    shown = [_row(world, spec, state, np.zeros((count, spec.action.width), np.float32), np.zeros(count), first=True)]
    total, plan = np.zeros(count), np.zeros((count, 0, spec.action.width))
    for step in range(lead - 1 + horizon):
        if step < lead - 1:  # a context under random actions, the same for all
            action = np.random.default_rng([2, step]).uniform(
                spec.action.low, spec.action.high, (count, spec.action.width)
            )
        else:
            at = (step - lead + 1) % every
            if at == 0:
                drawn = [policy.draw(np.full(count * config.candidates, h == 0)) for h in range(horizon)]
                actions = np.stack(drawn, 1).reshape(count, config.candidates, horizon, -1)
                if plan.shape[1]:  # what is left of the last plan stays a candidate, or a good one would be lost
                    actions[:, 0, : horizon - every] = plan[:, every:]
                best = imagine_returns(tree.cat(shown), state, actions).argmax(1)
                plan = actions[np.arange(count), best]
            action = plan[:, at]
        before, state = state, world.step(state, action)
        reward = world.reward(before, action, state)
        total += reward if step >= lead - 1 else 0
        shown.append(_row(world, spec, state, action.astype(np.float32), reward, first=False))
    return total


def _row(world: Acting, spec: Spec, state: np.ndarray, action: np.ndarray, reward: np.ndarray, first: bool) -> Segment:
    assert spec.action is not None
    count, no = len(state), torch.zeros(len(state), 1, dtype=torch.bool)
    ready = spec.action.to_model(torch.from_numpy(action)) * (not first)
    return Segment(
        obs={key: torch.from_numpy(value)[:, None] for key, value in world.observe(state).items()},
        prev_action=ready[:, None],
        reward=torch.from_numpy(reward).float()[:, None],
        is_first=torch.full((count, 1), first),
        is_terminal=no,
        is_last=no,
    )
