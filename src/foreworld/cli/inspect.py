"""`foreworld inspect`: what a dataset or a run holds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro

from foreworld.cli.options import existing, parse, print_json, print_table
from foreworld.core.errors import DataError
from foreworld.core.files import claim_output, read_json
from foreworld.data import Dataset, load
from foreworld.data.schema import SCHEMA_FILE
from foreworld.studies.overview import data_page, run_page
from foreworld.train import Run, load_run, state_hash
from foreworld.train.log import METRICS, read_metrics
from foreworld.train.run import CONFIG
from foreworld.train.videos import list_videos

MOST_SHOWN = 8
"""Entries of a list written out for people; the last ones."""


@dataclass(frozen=True, kw_only=True)
class Inspect:
    """Show what a dataset or a run holds: spaces, episodes, returns; family, parameters, videos, last metrics.

    example: foreworld inspect episodes

    example: foreworld inspect runs/first --out run.html
    """

    path: Annotated[Path, tyro.conf.Positional]
    """Folder of a dataset or a run."""
    out: Path | None = None
    """Also write a page: frames and curves of some episodes, or the last video and the curves of the training."""
    overwrite: bool = False
    """Replace the page when it is there."""
    json: bool = False
    """Print JSON for machines."""


def run(argv: list[str]) -> None:
    """Run the verb."""
    args = parse(Inspect, argv, "inspect")
    path = existing(args.path, "folder")
    if (path / CONFIG).is_file():
        trained, history = load_run(path), read_metrics(path / METRICS)
        facts = _run_facts(path, trained, history)
        page = partial(run_page, trained, history, _texts(facts))
    elif (path / SCHEMA_FILE).is_file():
        data = load(path)
        facts = _data_facts(data)
        page = partial(data_page, data, _texts(facts))
    else:
        raise DataError(f"{path}: neither a dataset (no {SCHEMA_FILE}) nor a run (no {CONFIG})")
    if args.out is not None:
        page().write(claim_output(args.out, args.overwrite))
        facts["page"] = str(args.out)
    if args.json:
        print_json(facts)
    else:
        print_table(str(path), ["what", "value"], [[name, text] for name, text in _texts(facts).items()])


def _data_facts(data: Dataset) -> dict[str, Any]:
    found = data.summary()
    return {
        "kind": "dataset",
        "env": found.source.env,
        "episodes": found.episodes,
        "steps": found.steps,
        "rows": found.rows,
        "MiB": round(found.bytes / 2**20, 2),
        "episode rows (min, mean, max)": [found.length_min, round(found.length_mean, 1), found.length_max],
        "return (min, mean, max)": [found.return_min, round(found.return_mean, 3), found.return_max],
        "ended in a terminal state": round(found.terminal, 3),
        "frame skip": data.spec.frame_skip,
        "frames per second": data.spec.fps,
        "columns": {name: f"{column.dtype} {list(column.shape)}" for name, column in found.columns.items()},
    }


def _run_facts(path: Path, trained: Run, history: list[dict[str, float]]) -> dict[str, Any]:
    environment = read_json(path / "env.json")
    return {
        "kind": "run",
        "family": trained.family,
        "parameters": sum(p.numel() for p in trained.model.parameters()),
        "updates": trained.step,
        "provides": sorted(trained.model.provides),
        "observations": {key: f"{s.kind} {list(s.shape)}" for key, s in trained.model.spec.obs.items()},
        "action floats": trained.model.spec.action_width,
        "trained on": str(trained.data),
        "command": environment.get("command"),
        "seed": environment.get("seed"),
        "state hash": state_hash(path),
        "videos": [str(video.relative_to(path)) for video in list_videos(path)],
        "last metrics": history[-1] if history else {},
    }


def _texts(facts: dict[str, Any]) -> dict[str, str]:
    return {name: _text(value) for name, value in facts.items()}


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{k}: {v:.4g}" if isinstance(v, float) else f"{k}: {v}" for k, v in value.items())
    if isinstance(value, list):
        left_out = len(value) - MOST_SHOWN
        shown = value if left_out <= 1 else [f"({left_out} earlier)", *value[left_out:]]
        return ", ".join(str(v) for v in shown) or "–"
    return "–" if value is None else str(value)
