"""What every test gets: one thread, no clock, the same random numbers, and the example package where it asks."""

from __future__ import annotations

import os
import signal
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

# The tensors of a test are tiny: threads cost more than they give, and wait for each other on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

# On a machine that others use too, an example that takes a millisecond sometimes takes half a second: by default that
# fails the test (200 ms an example, and a limit on drawing it), though nothing is wrong.
settings.register_profile("foreworld", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("foreworld")

EXAMPLE = Path(__file__).parents[1] / "examples" / "third_party_family"
sys.path.append(str(EXAMPLE / "src"))


@pytest.fixture
def gru_installed(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Announce the example package as an installer would, unless it is installed."""
    if any(point.name == "gru" for point in entry_points(group="foreworld.models")):
        return
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    site = tmp_path_factory.mktemp("site")
    folder = site / f"foreworld_gru-{project['version']}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = project["entry-points"]["foreworld.models"]
    lines = ["[foreworld.models]", *(f"{name} = {value}" for name, value in points.items())]
    (folder / "entry_points.txt").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(site)


@pytest.fixture
def plain_handlers() -> Iterator[None]:
    """Start from Python's own handlers: in a background job SIGINT is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler), signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGINT, before[0])
    signal.signal(signal.SIGTERM, before[1])


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """Start every test from the same state of the global generators."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - third parties still draw from it
