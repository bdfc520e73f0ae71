"""The losses of an agent against plain Python, their gradients against torch's own distributions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from expected_losses import CASES, Case, expect_gradients, expect_losses
from plain_dreamer import entropy, log_prob
from torch.distributions import Normal, OneHotCategorical

from foreworld.nn.actions import BoundedNormal, OneHots

AGENTS: dict[str, dict[str, Any]] = {
    "official": {},
    "other": {
        "horizon": 1, "discount": 0.5, "lam": 0.3, "entropy": 0.7, "unimix": 0.2, "slow_weight": 0.4,
        "range_rate": 0.6, "range_low": 0.2, "range_high": 0.7, "range_least": 0.01,
    },
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("fields", AGENTS.values(), ids=AGENTS)
def test_losses_equal_those_of_plain_python(case: Case, fields: dict[str, Any]) -> None:
    expect_losses(case, **fields)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_gradients_are_those_of_reinforce_and_cross_entropy(case: Case) -> None:
    expect_gradients(case)


def test_the_plain_formulas_are_those_of_torch() -> None:
    params = [0.3, -1.0, 2.0, 0.1, 0.7]
    ones = OneHots((3, 2), unimix=0.1)
    parts = torch.tensor(params).double().split([3, 2])
    said = [OneHotCategorical(probs=0.9 * p.softmax(-1) + 0.1 / len(p)) for p in parts]
    action = [0.0, 1.0, 0.0, 1.0, 0.0]
    chosen = torch.tensor(action).double().split([3, 2])
    assert log_prob(ones, params, action) == pytest.approx(
        sum(float(d.log_prob(a)) for d, a in zip(said, chosen, strict=True))
    )
    assert entropy(ones, params) == pytest.approx(sum(float(d.entropy()) for d in said))
    normal = Normal(
        torch.tensor(params[:2]).double().tanh(), 0.9 * (torch.tensor(params[2:4]).double() + 2).sigmoid() + 0.1
    )
    box, action = BoundedNormal(2), [0.4, -1.7]
    assert log_prob(box, params[:4], action) == pytest.approx(
        float(normal.log_prob(torch.tensor(action).double()).sum())
    )
    assert entropy(box, params[:4]) == pytest.approx(float(normal.entropy().sum()))
