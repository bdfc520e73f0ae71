"""What a recorded update needs: fixed addresses, nothing read on the host; checked here without a GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import foreworld as fw
from foreworld.agents import DreamerLearner
from foreworld.core import Segment, tree
from foreworld.envs import make
from foreworld.models import rssm
from foreworld.testing import random_segment
from foreworld.train.captured import Captured
from foreworld.train.optim import AdamW, LaProp, set_rate
from foreworld.train.update import Outcome, update

SMALL = {"deter": 32, "units": 16, "latents": 4, "classes": 4}


class Trainee:
    """A small agent and its optimiser."""

    def __init__(self, optimizer: str = "laprop") -> None:
        torch.manual_seed(0)
        self.model = fw.RSSM(make("CartPole-v1").spec, **SMALL)
        self.learner = DreamerLearner(self.model, fw.Dreamer(self.model, units=16, horizon=3)).train()
        params = [p for p in self.learner.parameters() if p.requires_grad]
        self.optimizer: LaProp | AdamW = LaProp(params, warmup=1) if optimizer == "laprop" else AdamW(params, 1e-3, 0.1)

    def update(self, segment: Segment, state: Any, rate: Tensor | float) -> Outcome:
        set_rate(self.optimizer, rate)  # type: ignore[arg-type]
        return update(self.learner, self.optimizer, segment, state=state)

    def tensors(self) -> list[Tensor]:
        """Return all that an update changes."""
        slots = [slot for param in self.learner.parameters() for slot in tree.leaves(dict(self.optimizer.state[param]))]
        return [*self.learner.parameters(), *self.learner.buffers(), *slots]


def batch(seed: int) -> Segment:
    with fw.seeded(seed):
        return random_segment(make("CartPole-v1").spec, 4, 6)


@pytest.mark.parametrize("optimizer", ["laprop", "adamw"])
def test_an_update_changes_everything_where_it_lies(optimizer: str) -> None:
    one = Trainee(optimizer)
    one.update(batch(0), one.model.initial(4), 1e-3)
    places = [x.data_ptr() for x in one.tensors()]
    before = [x.clone() for x in one.learner.parameters()]
    for seed in (1, 2):
        one.update(batch(seed), one.model.initial(4), 1e-3)
    assert [x.data_ptr() for x in one.tensors()] == places
    changed = [not torch.equal(a, b) for a, b in zip(before, one.learner.parameters(), strict=True)]
    assert sum(changed) > len(changed) / 2


class NothingRead(TorchDispatchMode):
    """Refuse what makes the host wait for numbers."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default), func
        return func(*args, **(kwargs or {}))


def test_an_update_reads_nothing_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    # on a CPU the model looks which rows begin an episode; on a GPU it does not
    monkeypatch.setattr(rssm, "_resets", lambda is_first, keep: list(keep.unbind(1)))
    one = Trainee()
    one.update(batch(0), one.model.initial(4), torch.tensor(1e-3))
    segment, rate = batch(1), torch.tensor(1e-3)
    with NothingRead():
        one.update(segment, one.model.initial(4), rate)
    with pytest.raises(AssertionError), NothingRead():
        one.model.initial(1).deter.sum().item()


def test_through_fixed_inputs_updates_are_the_same() -> None:
    plain, fixed = Trainee(), Trainee()
    captured = Captured(fixed.update, torch.device("cpu"))
    for seed in range(3):
        states = plain.model.initial(4)
        states.deter.fill_(seed)
        with fw.seeded(seed):
            wanted = plain.update(batch(seed), states, 1e-3 * (seed + 1))
        with fw.seeded(seed):
            found = captured(batch(seed), states, 1e-3 * (seed + 1))
        assert torch.equal(found.checked, wanted.checked)
    for a, b in zip(plain.learner.parameters(), fixed.learner.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_a_batch_of_another_shape_is_refused_not_squeezed_in() -> None:
    one = Trainee()
    captured = Captured(one.update, torch.device("cpu"))
    captured(batch(0), one.model.initial(4), 1e-3)
    with fw.seeded(0), pytest.raises(RuntimeError):
        captured(random_segment(one.model.spec, 4, 7), one.model.initial(4), 1e-3)


@pytest.mark.gpu
def test_a_recorded_update_equals_a_plain_one() -> None:
    device = torch.device("cuda")
    plain, recorded = Trainee(), Trainee()
    for one in (plain, recorded):
        one.learner.to(device)
    captured = Captured(recorded.update, device)
    with fw.deterministic():  # a replay draws other random numbers
        for seed in range(8):
            segment, states = tree.to(batch(seed), device), plain.model.initial(4)
            wanted, found = plain.update(segment, states, 1e-3), captured(segment, states, 1e-3)
            torch.testing.assert_close(found.checked, wanted.checked, rtol=1e-3, atol=1e-4)
    for a, b in zip(plain.learner.parameters(), recorded.learner.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
