"""Probes that read known simulator state off features."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from foreworld.core import Segment, Space, Spec, Step
from foreworld.core.errors import SpecError
from foreworld.data import Dataset, Episode, Writer, load
from foreworld.eval import evaluate_open_loop, fit_probes, to_json
from foreworld.eval.predictors import copy_last
from foreworld.eval.probe import in_words
from foreworld.eval.quantities import truth_spaces

SPEC = Spec(
    obs={"obs": Space(kind="vector", shape=(2,), dtype="float32")},
    action=Space(kind="vector", shape=(1,), dtype="float32", low=(-1.0,), high=(1.0,)),
)
TRUTH = {
    "state": Space(kind="vector", shape=(3,), dtype="float32"),
    "mode": Space(kind="discrete", shape=(), dtype="int64", classes=(2,), start=(0,)),
}


class Turning:
    """Knows the truth: its observation is a point on a circle that turns by a tenth of the action every step."""

    provides = frozenset({"decode"})

    def __init__(self, seen: bool = True) -> None:
        self.seen = seen

    def initial(self, batch: int) -> Tensor:
        return torch.zeros(batch, 2)

    def observe(self, state: Tensor, segment: Segment) -> Tensor:
        return segment.obs["obs"] if self.seen else torch.randn_like(segment.obs["obs"])

    def step(self, state: Tensor, action: Tensor) -> Tensor:
        turn = 0.1 * action[..., 0]
        x, y = state[..., 0], state[..., 1]
        return torch.stack([x * turn.cos() - y * turn.sin(), x * turn.sin() + y * turn.cos()], -1)

    def read(self, state: Tensor) -> Step:
        return Step(feat=state)

    def decode(self, state: Tensor) -> dict[str, Tensor]:
        return {"obs": state}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Turns; the state is the point, linear in the observation, x times y, which is not, and what never changes."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("probe") / "turns"
    with Writer(path, SPEC, truth=TRUTH) as writer:
        for _ in range(40):
            action = rng.uniform(-1, 1, (30, 1)).astype(np.float32)
            action[0] = 0
            angle = rng.uniform(0, 2 * np.pi) + 0.1 * action.cumsum(0)[:, 0]
            obs = np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)
            state = np.stack([2 * obs[:, 0] + 1, obs[:, 0] * obs[:, 1], np.full(30, 7.0)], 1).astype(np.float32)
            mode = (obs[:, 0] > 0).astype(np.int64)
            writer.add(Episode(obs={"obs": obs}, prev_action=action, truth={"state": state, "mode": mode}))
    return load(path)


def test_the_better_of_two_probes_reads_the_state(data: Dataset) -> None:
    train, heldout = data.split(0.3)
    found = fit_probes(Turning(), train, heldout)
    assert list(found) == ["truth/state"]  # integers are not probed
    probe = found["truth/state"]
    assert probe.kind == "mlp"
    assert probe.r2s["ridge"][0] > 0.999 and probe.r2s["ridge"][1] < 0.1
    assert probe.r2[0] > 0.98 and probe.r2[1] > 0.98 and np.isnan(probe.r2[2])
    feat = torch.tensor([[[0.6, 0.8]]])
    assert torch.allclose(probe(feat), torch.tensor([[[2.2, 0.48, 7.0]]]), atol=0.1)
    assert "nonlinear probe explains" in in_words(found) and "2 variables that vary" in in_words(found)


def test_what_features_do_not_hold_no_probe_can_read(data: Dataset) -> None:
    train, heldout = data.split(0.3)
    torch.manual_seed(0)
    found = fit_probes(Turning(seen=False), train, heldout)
    assert np.nanmax(found["truth/state"].r2) < 0.1


def test_probes_leave_the_random_state_alone_and_repeat_exactly(data: Dataset) -> None:
    train, heldout = data.split(0.3)
    before = torch.get_rng_state()
    first, second = (fit_probes(Turning(), train, heldout)["truth/state"] for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first(torch.ones(1, 2)), second(torch.ones(1, 2)))


def test_errors_of_the_state_have_the_probes_floor_below_them(data: Dataset) -> None:
    train, heldout = data.split(0.3)
    spaces = dict(data.spec.obs) | truth_spaces(data)
    found = evaluate_open_loop(
        Turning(),
        heldout,
        {"copy_last": copy_last(spaces)},
        probes=fit_probes(Turning(), train, heldout),
        horizon=10,
        context=2,
        samples=1,
    )
    part = found.judgements["truth/state"]
    model, floor, copied = (part.every.errors[name].value for name in ("model", "floor", "copy_last"))
    assert (model < 0.15).all() and np.allclose(model, floor, atol=1e-3)
    assert copied[9] > 3 * model[9] and part.useful_horizon == 10
    written = to_json(found)
    assert written["quantities"]["truth/mode"]["reason"].startswith("no probe reads it")
    assert written["probes"]["truth/state"]["kind"] == "mlp"
    assert written["probes"]["truth/state"]["r2_mlp"][2] is None


def test_some_entries_of_the_state_are_judged_by_themselves(data: Dataset) -> None:
    train, heldout = data.split(0.3)
    probes = fit_probes(Turning(), train, heldout)

    def errors(key: str, samples: int = 1) -> np.ndarray:
        found = evaluate_open_loop(
            Turning(), heldout, {}, probes=probes, key=key, horizon=6, context=2, samples=samples
        )
        assert found.key == key and (found.main.spread.ratio.sum() > 0) == (samples > 1)
        return found.main.errors

    first, second = errors("truth/state[0]"), errors("truth/state[1:2]", samples=2)
    assert not np.allclose(first, second)
    assert np.allclose(errors("truth/state[0:2]") ** 2, (first**2 + second**2) / 2, rtol=1e-4)
    assert np.array_equal(errors("truth/state[1,0]"), errors("truth/state[0,1]"))


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("truth/state[3]", "entries 0 to 2"),
        ("truth/stat[0]", "did you mean 'truth/state'"),
        ("truth/mode[0]", "only a vector has entries"),
        ("truth/state[]", "unknown quantity"),
        ("truth/state[2:1]", "unknown quantity"),
    ],
)
def test_entries_that_are_not_there_are_refused(data: Dataset, key: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        evaluate_open_loop(Turning(), data, {}, key=key, horizon=6, context=2, samples=1)


def test_simulator_state_of_windows_is_that_of_their_rows(data: Dataset) -> None:
    cut = data.truth([3, 5], [10, 25], 8)
    assert torch.equal(cut["state"][0], torch.from_numpy(data.raw(3)["truth/state"][10:18].copy()))
    assert torch.equal(cut["state"][1, :5], torch.from_numpy(data.raw(5)["truth/state"][25:].copy()))
    assert (cut["state"][1, 5:] == 0).all()
