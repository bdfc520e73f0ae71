"""What a dataset or a run looks like, on one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from einops import rearrange
from numpy.typing import NDArray

from foreworld.core.disk import open_regular
from foreworld.core.spaces import Space
from foreworld.data import Dataset
from foreworld.data.schema import ACTION, OBS
from foreworld.report import Html, Line, Page, Plot, details, grid, moving_picture, picture, section, table
from foreworld.studies.pages import training_curves
from foreworld.train import Run
from foreworld.train.videos import list_videos

EPISODES = 4
COLUMNS = 10
ROWS = 2
MOST_PLOTS = 12

Fact = str | int | float | None


def data_page(data: Dataset, facts: Mapping[str, Fact]) -> Page:
    """Show a dataset: episodes, what was seen, what was done.

    Args:
        data: the dataset.
        facts: what is known about it, by name.

    Returns:
        A page, to be written with `write`.
    """
    found = data.summary()
    shown = np.unique(np.linspace(0, data.episodes - 1, min(EPISODES, data.episodes)).round().astype(int)).tolist()
    blocks = [
        section("Episodes", grid(_per_episode(data), "One point for each episode, in the order of the dataset.")),
        section("What was seen", *(_seen(data, episode, key) for key in data.spec.obs for episode in shown)),
    ]
    if data.spec.action is not None:
        blocks.append(section("What was done", _done(data, data.spec.action)))
    blocks.append(section("What is known", details("Sizes, columns, source", facts)))
    headline = f"{found.episodes} episodes, {found.steps} steps of {found.source.env or 'an unnamed world'}"
    return Page(title="dataset", headline=headline, blocks=tuple(blocks))


def run_page(run: Run, history: Sequence[Mapping[str, float]], facts: Mapping[str, Fact]) -> Page:
    """Show a run: its last video, curves of its training and where its parameters are.

    Args:
        run: the run.
        history: its metrics, one entry a line.
        facts: what is known about it, by name.

    Returns:
        A page, to be written with `write`.
    """
    counts: dict[str, int] = {}
    for name, parameter in run.model.named_parameters():
        part = name.split(".")[0]
        counts[part] = counts.get(part, 0) + parameter.numel()
    total = sum(counts.values())
    rows = [[part, count, f"{count / total:.1%}"] for part, count in sorted(counts.items(), key=lambda pair: -pair[1])]
    blocks = [section("Parameters", table(["part", "parameters", "share"], [*rows, ["all", total, "100%"]]))]
    if history:
        blocks.insert(0, section("Training", *training_curves(history)))
    if videos := list_videos(run.path):
        blocks.insert(0, section("Real beside dreamed", _filmed(videos)))
    blocks.append(section("What is known", details("Command, seed, versions, data", facts)))
    return Page(title="run", headline=f"{run.family} after {run.step} updates", blocks=tuple(blocks))


def contact_sheet(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lay frames [T, C, H, W] out in rows: at most 20, from the first to the last.

    Returns:
        [rows * H, columns * W, 3 or 1].
    """
    columns, rows = min(COLUMNS, len(frames)), ROWS if len(frames) >= COLUMNS * ROWS else 1
    chosen = frames[np.linspace(0, len(frames) - 1, columns * rows).round().astype(int)]
    if chosen.shape[1] not in (1, 3):
        chosen = chosen[:, -1:]
    laid = rearrange(chosen, "(row column) c h w -> (row h) (column w) c", row=rows)
    return laid if laid.shape[-1] == 3 else np.repeat(laid, 3, -1)


def _filmed(videos: Sequence[Path]) -> Html:
    last = videos[-1]
    caption = f"A dream after {int(last.stem)} updates, on rows held out."
    if earlier := len(videos) - 1:
        caption += f" {earlier} earlier of the same rows {'lies' if earlier == 1 else 'lie'} in {last.parent}."
    with open_regular(last) as file:
        return moving_picture(file.read(), "a dream beside the truth", caption)


def _per_episode(data: Dataset) -> list[Plot]:
    returns = [float(data.raw(i)["reward"].sum()) for i in range(data.episodes)]
    numbers = np.arange(data.episodes)
    return [
        Plot(lines=(Line(numbers, values, style="model"),), title=title, x_label="episode", legend=False)
        for title, values in (("rows", data.lengths.astype(float)), ("return", returns))
    ]


def _seen(data: Dataset, episode: int, key: str) -> Html:
    values = data.raw(episode)[OBS + key]
    rewards = float(data.raw(episode)["reward"].sum())
    caption = f"{key}, episode {episode}: {len(values)} rows, return {rewards:.4g}"
    if data.spec.obs[key].kind == "image":
        return picture(
            contact_sheet(values), f"frames of episode {episode}", f"{caption}; from the first row to the last"
        )
    flat = np.asarray(values, float).reshape(len(values), -1)[:, :MOST_PLOTS]
    rows = np.arange(len(flat))
    plots = [
        Plot(lines=(Line(rows, column, style="real"),), title=f"{key}[{i}]", x_label="row", legend=False)
        for i, column in enumerate(flat.T)
    ]
    return grid(plots, caption)


def _done(data: Dataset, action: Space) -> Html:
    taken = np.concatenate([data.raw(i)[ACTION][1:] for i in range(data.episodes)])
    taken = taken.reshape(len(taken), -1)
    if action.kind == "discrete" and len(action.classes) == 1:
        chosen, counts = np.unique(taken, return_counts=True)
        rows = [
            [str(a), int(n), f"{n / len(taken):.1%}"] for a, n in zip(chosen.tolist(), counts.tolist(), strict=True)
        ]
        return table(["action", "times", "share"], rows, "How often each action was taken.")
    rows = [[str(i), *(float(f(part)) for f in (np.min, np.mean, np.max, np.std))] for i, part in enumerate(taken.T)]
    return table(["component", "least", "mean", "largest", "deviation"], rows, "The actions taken.")
