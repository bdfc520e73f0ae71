"""A look at an embedding: sound, collapsed, dead in most dimensions, or about something else than the world."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import foreworld as fw
from foreworld.core.errors import MissingCapability
from foreworld.data import Dataset
from foreworld.eval.collapse import inspect_embedding
from foreworld.studies.collapse import watch_collapse


class Embedder(nn.Module):
    """Embed observations by a given function."""

    provides = frozenset({"embed"})

    def __init__(self, spec: fw.Spec, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.spec, self.function = spec, function

    def embed(self, obs: dict[str, Tensor]) -> Tensor:
        """Return [B, E]."""
        return self.function(obs["obs"])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    out = tmp_path_factory.mktemp("embedding") / "data"
    return fw.collect("foreworld/Linear-v0", steps=600, num_envs=8, max_steps=20, out=out)


def test_what_shows_the_state_is_sound(data: Dataset) -> None:
    wide = torch.randn(data.spec.obs["obs"].width, 16, generator=torch.Generator().manual_seed(0))
    found = inspect_embedding(Embedder(data.spec, lambda x: (x @ wide).sin()), data)
    assert found.by == "truth" and found.width == 16 and found.dead == 0
    assert found.rank > 3 and found.alike > 0.3 and found.advice() == ""


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda x: x.new_zeros(len(x), 16), "collapsed to 0.0 of its 16"),
        (lambda x: x[:, :1] * torch.ones(16), "collapsed to 1.0 of its 16"),
        (
            lambda x: torch.cat([torch.randn(len(x), 5), x.new_zeros(len(x), 11)], 1),
            "69% of the embedding's dimensions",
        ),
        (lambda x: torch.randn(len(x), 16), "hardly more alike than random rows"),
    ],
)
def test_every_fault_is_named(function: Callable[[Tensor], Tensor], said: str, data: Dataset) -> None:
    with fw.seeded(0):
        assert said in inspect_embedding(Embedder(data.spec, function), data).advice()


def test_neighbours_are_sought_in_other_episodes(data: Dataset) -> None:
    """An embedding that knows the episode alone finds nobody who is alike."""
    place = {tuple(row): float(i) for i in range(data.episodes) for row in data.raw(i)["obs/obs"].tolist()}

    def episode(x: Tensor) -> Tensor:
        number = torch.tensor([place[tuple(row)] for row in x.tolist()])
        return torch.stack([(number * k).sin() for k in range(1, 9)], 1)

    assert inspect_embedding(Embedder(data.spec, episode), data).alike < 0.1


def test_advice_is_given_once(data: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    look, model = watch_collapse(data), Embedder(data.spec, lambda x: x.new_zeros(len(x), 16))
    assert look(model)["embed/rank"] == look(model)["embed/rank"] == 0
    assert capsys.readouterr().err.count("collapsed") == 1


def test_a_model_without_embedding_is_refused(data: Dataset) -> None:
    with pytest.raises(MissingCapability, match="embed"):
        inspect_embedding(fw.Linear(data.spec), data)
