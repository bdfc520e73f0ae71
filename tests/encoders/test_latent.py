"""Encoders to a latent: any size of picture, any mix of observations, and latents that are given."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from foreworld.core import Segment, Space, Spec
from foreworld.core.errors import ConfigError, SpecError
from foreworld.encoders.latent import ChannelScale, GivenLatents, LatentEncoder, Vision
from foreworld.encoders.vision import Impala, RotaryViT, ViT, means_of_fields
from foreworld.testing import random_segment, specs


@pytest.mark.parametrize("shape", [(3, 65, 65), (1, 64, 48), (3, 96, 96), (2, 33, 41), (3, 12, 12)])
@pytest.mark.parametrize("patch", [1, 2])
def test_convolutions_know_their_width(shape: tuple[int, int, int], patch: int) -> None:
    net = Impala(shape, (4, 8), 1, patch)
    assert net(torch.zeros(2, *shape)).shape == (2, net.width)


@pytest.mark.parametrize("shape", [(3, 65, 65), (1, 64, 48), (3, 30, 31)])
def test_a_vision_transformer_pads_what_no_patch_fills(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    net, x = ViT(shape, 8, 16, 1, 2), torch.randn(2, *shape)
    assert net(x).shape == (2, 16)
    edge = x.clone()
    edge[..., -1, -1] += 1.0  # the last corner is seen too
    assert not torch.allclose(net(x), net(edge), atol=1e-6)


def test_pictures_that_do_not_fit_are_refused() -> None:
    with pytest.raises(SpecError, match="too small for 5 stages"):
        Impala((3, 16, 16), (4, 4, 4, 4, 4), 1)
    with pytest.raises(ConfigError, match="patches of 32 pixels do not fit"):
        ViT((3, 16, 16), 32, 8, 1, 2)
    two = {name: Space(kind="image", shape=(3, n, n), dtype="uint8") for name, n in (("near", 32), ("far", 64))}
    with pytest.raises(SpecError, match="must share one size"):
        LatentEncoder(Spec(obs=two, action=None), 8, 16, Vision())


def test_fields_are_means_of_the_patches_that_lie_there() -> None:
    tokens = torch.randn(3, 5 * 6, 4)
    found = means_of_fields(tokens, (5, 6), 3).unflatten(1, (4, 3, 3))
    square = tokens.unflatten(1, (5, 6))
    rows, columns = [(0, 2), (1, 4), (3, 5)], [(0, 2), (2, 4), (4, 6)]  # five rows: two of them are in two fields
    for i, (top, bottom) in enumerate(rows):
        for j, (left, right) in enumerate(columns):
            torch.testing.assert_close(found[:, :, i, j], square[:, top:bottom, left:right].mean((1, 2)))
    torch.testing.assert_close(means_of_fields(tokens, (5, 6), 1), tokens.mean(1))


@pytest.mark.parametrize("kind", ["vit", "dino", "vjepa"])
def test_fields_say_where_something_changed(kind: str) -> None:
    torch.manual_seed(0)
    shape, vision = (3, 32, 32), Vision(kind=kind, patch=8, tokens=12, blocks=1, heads=2, fields=2)  # type: ignore[arg-type]
    net, x = vision.build(shape), torch.randn(1, *shape)
    assert isinstance(net, ViT | RotaryViT) and net(x).shape == (1, net.width) == (1, 48)
    there = x.clone()
    there[..., 20:24, 4:8] += 3.0  # in the lower left
    change = (net(there) - net(x)).unflatten(1, (12, 2, 2)).square().sum(1)[0]
    assert change.flatten().argmax() == 2
    with pytest.raises(ConfigError, match="5 by 5 are more than 4 by 4 patches"):
        replace(vision, fields=5).build(shape)
    with pytest.raises(ConfigError, match="to a transformer"):
        replace(vision, kind="impala")


def test_channels_are_centred_and_scaled_together_by_the_training_data() -> None:
    scale = ChannelScale(2)
    frames = torch.randint(0, 256, (40, 2, 9, 9), dtype=torch.uint8)
    frames[:, 1] = frames[:, 1] // 4
    scale.fit(iter(frames.split(7)))
    units = scale(frames)
    assert torch.allclose(units.mean((0, 2, 3)), torch.zeros(2), atol=1e-3)
    assert float(units.square().mean()) == pytest.approx(1, abs=1e-3)
    assert float(units[:, 0].std() / units[:, 1].std()) == pytest.approx(4, abs=0.1)


def test_every_observation_reaches_the_latent() -> None:
    spec = specs()["mixed_discrete"]
    torch.manual_seed(0)
    net = LatentEncoder(spec, 8, 16, Vision(widths=(4,)))
    segment, other = (random_segment(spec, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    plain = net(segment.obs)
    for name in spec.obs:
        assert not torch.allclose(net(segment.obs | {name: other.obs[name]}), plain, atol=1e-6), name


def test_given_latents_are_standardised_and_nothing_else() -> None:
    spec = Spec(obs={"dino": Space(kind="vector", shape=(2, 3), dtype="float32")}, action=None)
    net = GivenLatents(spec)
    data = 5 + torch.arange(1.0, 7).view(2, 3) * torch.randn(50, 4, 2, 3)
    data[..., 1, 2] = 7.0  # does not vary
    none = torch.zeros(50, 4, dtype=torch.bool)
    net.fit(iter([Segment(obs={"dino": data}, prev_action=None, reward=none.float(), is_first=none,
                          is_terminal=none, is_last=none)]))  # fmt: skip
    z = net({"dino": data}).flatten(0, 1)
    assert z.shape == (200, 6)
    assert torch.allclose(z.mean(0), torch.zeros(6), atol=1e-4)
    assert torch.allclose(z[:, :5].std(0), torch.ones(5), atol=1e-4)
    assert torch.equal(z[:, 5], torch.zeros(200))
    with pytest.raises(SpecError, match="'image': latents that the data holds are vectors"):
        GivenLatents(specs()["plain_video"])
