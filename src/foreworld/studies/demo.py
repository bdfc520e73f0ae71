"""The demo: play Atari, learn a small world model in minutes, and show its dreams beside the truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from foreworld.core.errors import SpecError
from foreworld.core.files import claim_output, write_atomic, write_json
from foreworld.core.interrupt import Interrupted
from foreworld.envs import make
from foreworld.eval.summary import to_json
from foreworld.presets.rssm import FAMILY
from foreworld.report.png import encode
from foreworld.rollout import collect
from foreworld.studies.answers import Limits
from foreworld.studies.openloop import Study, study
from foreworld.studies.pages import filmstrip_picture
from foreworld.train import fit, load_run

EPISODES = "episodes"

Show = Callable[[str, int, int, str], None]
"""Called with (stage, done, total, note)."""


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """How much the demo does.

    Attributes:
        env: environment to play.
        episodes: games to play.
        max_steps: steps after which a game is cut; None for whole games. Freeway's score flashes in the last
            ten of its 136 seconds, which nothing before announces.
        num_envs: games played side by side.
        repeat: mean number of steps that the random player holds an action.
        steps: updates of the world model.
        minutes: training is over after this time on a slower machine; 0 for no limit.
        heldout: share of every game, its end, that is kept for the evaluation.
        context: frames that the model sees before it dreams.
        horizon: steps that it dreams.
        samples: dreams averaged for one prediction.
        per_episode: stretches evaluated per game.
        max_error: error, in deviations, that the safe horizon is for.
        seed: of everything.
    """

    env: str = "ALE/Freeway-v5"
    episodes: int = 32
    max_steps: int | None = 1850
    num_envs: int = 8
    repeat: float = 8.0
    steps: int = 4600
    minutes: float = 12.9
    heldout: float = 0.25
    context: int = 30
    horizon: int = 50
    samples: int = 8
    per_episode: int = 2
    max_error: float = 0.5
    seed: int = 0


QUICK = DemoConfig(episodes=8, max_steps=400, steps=60, minutes=1.0, samples=2, per_episode=2)
"""Small enough for CI: every part runs, the dream is still blurred."""

INTRO = (
    "The model watches {context} frames and then dreams on, told only the player's actions. "
    "It was trained on the first {trained:.0%} of every game; the stretches below come from the rest. "
    "The player was a random one; {sprite}"
)

SPRITES = {"ALE/Freeway-v5": "the player is the small yellow chicken at the left that the actions move up and down."}


def demo(out: Path, config: DemoConfig, show: Show, overwrite: bool = False) -> tuple[dict[str, Any], Study]:
    """Run the whole path from a game to a report.

    Args:
        out: run folder: episodes, config, metrics, checkpoints, report.html, result.json, filmstrip.png.
        config: how much to do.
        show: progress.
        overwrite: replace an earlier demo.

    Returns:
        What `foreworld demo --json` prints, and the study behind it.

    Raises:
        OutputExists: `out` is there and `overwrite` is false.
        MissingExtra: the Atari package is not installed.
        SpecError: the environment shows no pictures.
        Interrupted: a signal ended the training.
    """
    env = make(config.env, num_envs=config.num_envs, max_steps=config.max_steps)
    if not env.spec.images:
        env.close()
        raise SpecError(f"{config.env} shows no pictures, which the demo is about; use collect, train and eval instead")
    claim_output(out, overwrite)
    data = collect(
        env,
        episodes=config.episodes,
        repeat=config.repeat,
        seed=config.seed,
        out=out / EPISODES,
        progress=lambda done, total: show("play", done, total, ""),
    )
    env.close()
    train, _ = data.split(config.heldout, by="time")
    torch.manual_seed(config.seed)
    model = FAMILY.build(train.spec, FAMILY.config("tiny"))
    settings = replace(FAMILY.fit("tiny"), steps=config.steps, minutes=config.minutes, seed=config.seed)
    note = ""

    def report(step: int, steps: int, metrics: dict[str, float]) -> None:
        nonlocal note
        note = f"pixel loss {metrics['loss/pixels']:.0f}" if metrics else note
        show("learn", step, steps, note)

    trained = fit(model, train, settings, out=out, report=report)
    if trained.interrupted is not None:
        raise Interrupted(trained.interrupted, f"stopped at update {trained.steps}; begin again with --overwrite")
    run = load_run(out)
    found = study(
        run,
        data,
        report=out / "report.html",
        horizon=config.horizon,
        context=config.context,
        samples=config.samples,
        per_episode=config.per_episode,
        limits=Limits(max_error=config.max_error, states=0),
        seed=config.seed,
        title=f"foreworld demo: {config.env}",
        intro=" ".join(filter(None, (_intro(config), cut_short(config, run.step)))),
        progress=lambda done, total: show("judge", done, total, ""),
    )
    return _finish(out, run.step, found), found


def cut_short(config: DemoConfig, steps: int) -> str:
    """Say that the time limit ended the training before it was done; empty where it did not.

    Args:
        config: how much was asked for.
        steps: updates that were done.
    """
    if steps >= config.steps:
        return ""
    return (
        f"Training was ended by its limit of {config.minutes:g} minutes, after {steps:,} of {config.steps:,} updates, "
        "and the dreams are worse for it; --minutes 0 sets no limit."
    )


def _finish(out: Path, steps: int, found: Study) -> dict[str, Any]:
    result = {"env": found.env, "steps_trained": steps} | to_json(found.evaluation) | found.answers.to_json()
    result["report"] = str(out / "report.html")
    write_json(out / "result.json", result)
    write_atomic(out / "filmstrip.png", encode(filmstrip_picture(found.dreams, found.evaluation.key)))
    return result


def _intro(config: DemoConfig) -> str:
    sprite = SPRITES.get(config.env, "the actions move the player's figure.")
    return INTRO.format(context=config.context, trained=1 - config.heldout, sprite=sprite)
