"""Windows, attention and predictors of latents."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foreworld.core.errors import ConfigError
from foreworld.nn.attention import Attention, Block
from foreworld.nn.latents import RecurrentPredictor, TransformerPredictor
from foreworld.nn.window import Windows, slide


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 4), st.integers(1, 7))
def test_windows_are_those_of_a_loop(data: st.DataObject, width: int, length: int) -> None:
    """One row after the other is shifted in; an episode's first row, or the first that is seen, fills the window."""
    first = torch.tensor([data.draw(st.lists(st.booleans(), min_size=length, max_size=length))])
    seen = torch.tensor([data.draw(st.booleans())])
    before, rows = -1.0 - torch.arange(width).view(1, width, 1).float(), torch.arange(length).view(1, length, 1).float()
    found = Windows.over(first, seen, width)
    window, known, repeats = before[0, :, 0].tolist(), bool(seen), [False] * width
    for t in range(length):
        fresh = bool(first[0, t]) or not known
        repeats = [True] * (width - 1) + [False] if fresh else [*repeats[1:], False]
        window = [float(t)] * width if fresh else [*window[1:], float(t)]
        known = True
        assert found.of(before, rows)[0, t, :, 0].tolist() == window
        assert found.repeated[0, t].tolist() == repeats


def test_slide_drops_the_oldest() -> None:
    window = torch.arange(6.0).view(1, 3, 2)
    assert slide(window, torch.tensor([[9.0, 9.0]])).tolist() == [[[2.0, 3.0], [4.0, 5.0], [9.0, 9.0]]]


def test_attention_is_softmax_of_products() -> None:
    torch.manual_seed(0)
    layer, x = Attention(8, 2), torch.randn(1, 5, 8)
    query, key, value = (part.view(5, 2, 4) for part in layer.inward(x)[0].chunk(3, -1))
    heads = []
    for h in range(2):
        weights = torch.softmax(query[:, h] @ key[:, h].T / 2.0, -1)
        heads.append(weights @ value[:, h])
    assert torch.allclose(layer(x)[0], layer.outward(torch.cat(heads, -1)), atol=1e-5)


def test_causal_blocks_do_not_look_ahead() -> None:
    torch.manual_seed(0)
    block, x = Block(8, 2, causal=True, condition=3), torch.randn(2, 6, 8)
    torch.nn.init.normal_(block.adapt.weight)
    condition = torch.randn(2, 6, 3)
    changed, other = x.clone(), condition.clone()
    changed[:, 4:], other[:, 4:] = 7.0, 7.0
    before, after = block(x, condition), block(changed, other)
    assert torch.allclose(before[:, :4], after[:, :4], atol=1e-5)
    assert not torch.allclose(before[:, 4:], after[:, 4:], atol=1e-2)


def test_a_conditioned_block_begins_as_the_identity() -> None:
    block, x = Block(8, 2, condition=3), torch.randn(2, 6, 8)
    assert torch.equal(block(x, torch.randn(2, 6, 3)), x)


def test_heads_share_the_width() -> None:
    with pytest.raises(ConfigError, match="divisible"):
        Attention(10, 4)


@pytest.mark.parametrize("kind", [RecurrentPredictor, lambda *a: TransformerPredictor(*a, 2)])
def test_a_predictor_learns_where_actions_lead(kind: object) -> None:
    """A rotation that the action speeds up, seen through its last two positions."""
    torch.manual_seed(0)
    model = kind(2, 1, 2, 32, 1)  # type: ignore[operator]
    adam = torch.optim.Adam(model.parameters(), lr=3e-3)

    def batch(n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        angle, action = 6.28 * torch.rand(n), torch.rand(n, 2, 1) * 2 - 1
        path = torch.stack([angle, angle + 0.3 * action[:, 0, 0], angle + 0.3 * action.sum((1, 2))], 1)
        points = torch.stack([path.cos(), path.sin()], -1)
        return points[:, :2], action, points[:, 2]

    for _ in range(400):
        latents, actions, target = batch(256)
        loss = (model(latents, actions) - target).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    latents, actions, target = batch(1000)
    still = (latents[:, -1] - target).square().mean()
    assert (model(latents, actions) - target).square().mean() < 0.1 * still
