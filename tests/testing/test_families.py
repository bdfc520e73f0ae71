"""The conformance kit on the built-in families, in all variants, and on ensembles of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from foreworld.core import Spec
from foreworld.encoders.latent import Vision
from foreworld.models.ensemble import Ensemble
from foreworld.models.jepa import JEPA, JEPAConfig
from foreworld.models.linear import Linear, LinearConfig
from foreworld.models.rssm import RSSM, RSSMConfig
from foreworld.testing import Check, Factory, check_alignment, check_compile, parametrize_conformance, specs

SMALL: dict[str, Any] = {"deter": 32, "units": 16, "latents": 4, "classes": 4, "blocks": 2, "depth": 2, "layers": 1}
COUNTS: dict[str, Any] = SMALL | {"deter": 64, "units": 32, "latents": 8}
SMALL_JEPA: dict[str, Any] = {"latent": 16, "units": 32, "layers": 1, "vision": Vision(widths=(4, 8))}
EACH_JEPA = SMALL_JEPA | {"vision": {"widths": [4, 8]}}
ALL = specs()
MIXED = {"mixed_discrete": ALL["mixed_discrete"]}
VECTORS = {"vector_box": ALL["vector_box"]}


def rssm(**fields: Any) -> Factory:
    config = RSSMConfig(**(SMALL | fields))
    return lambda spec: RSSM(spec, config)


def linear(**fields: Any) -> Factory:
    config = LinearConfig(**({"components": 8} | fields))
    return lambda spec: Linear(spec, config)


def jepa(**fields: Any) -> Factory:
    config = JEPAConfig(**(SMALL_JEPA | fields))
    return lambda spec: JEPA(spec, config)


def ensemble(member: str, each: dict[str, Any], **fields: Any) -> Factory:
    return lambda spec: Ensemble(spec, member=member, each=each, **({"members": 2} | fields))


@parametrize_conformance(rssm(convolutions="strided"), updates=0)
def test_rssm(check: Check) -> None:
    check()


@parametrize_conformance(rssm(latent="gaussian", convolutions="strided"), VECTORS, updates=0)
def test_rssm_gaussian(check: Check) -> None:
    check()


@parametrize_conformance(rssm(latent="deterministic", convolutions="strided"), VECTORS, updates=0)
def test_rssm_deterministic(check: Check) -> None:
    check()


@parametrize_conformance(rssm(convolutions="official"), MIXED, updates=0)
def test_rssm_official_convolutions(check: Check) -> None:
    check()


@parametrize_conformance(rssm(convolutions="strided", pixel_loss="normalised"), MIXED, updates=0)
def test_rssm_normalised_pixels(check: Check) -> None:
    check()


@parametrize_conformance(rssm(reward=False, cont=False), VECTORS, updates=0)
def test_rssm_without_heads(check: Check) -> None:
    check()


@parametrize_conformance(linear(window=1))
def test_linear_ridge(check: Check) -> None:
    check()


@parametrize_conformance(linear(window=3), MIXED | VECTORS, updates=0)
def test_linear_ridge_window(check: Check) -> None:
    check()


@parametrize_conformance(linear(window=1, fit="gradient"), MIXED | VECTORS)
def test_linear_trained(check: Check) -> None:
    check()


@parametrize_conformance(linear(window=3, fit="gradient"), VECTORS, updates=0)
def test_linear_trained_window(check: Check) -> None:
    check()


@parametrize_conformance(jepa())
def test_jepa(check: Check) -> None:
    check()


@parametrize_conformance(
    jepa(window=3, predictor="transformer", target="ema", sigreg=0.0, variance=1.0, covariance=1.0, similarity=0.5,
         inverse=1.0, vision=Vision(kind="vit", patch=8, tokens=32), decoder=True),
    MIXED | VECTORS | {"plain_video": ALL["plain_video"]},
    updates=0,
)  # fmt: skip
def test_jepa_transformer(check: Check) -> None:
    check()


@parametrize_conformance(
    jepa(window=2, target="stopped", sigreg=0.0, barlow=1.0, vision=Vision(kind="vjepa", patch=8, tokens=32)),
    MIXED | VECTORS,
    updates=0,
)
def test_jepa_barlow_twins(check: Check) -> None:
    check()


@parametrize_conformance(jepa(encoder="frozen", target="ema"), MIXED | VECTORS, updates=0)
def test_jepa_with_a_frozen_encoder(check: Check) -> None:
    check()


FIELDS = Vision(kind="dino", patch=8, tokens=8, blocks=1, heads=2, fields=2, out="principal")


@parametrize_conformance(jepa(encoder="frozen", latent=8, vision=FIELDS), MIXED, updates=0)
def test_jepa_with_a_frozen_encoder_in_principal_components(check: Check) -> None:
    check()


@parametrize_conformance(jepa(encoder="given", sigreg=0.0, window=2, reward=False), VECTORS, updates=0)
def test_jepa_of_given_latents(check: Check) -> None:
    check()


@parametrize_conformance(ensemble("jepa", EACH_JEPA | {"decoder": True}), VECTORS | MIXED, updates=0)
def test_ensemble_of_jepa(check: Check) -> None:
    check()


@parametrize_conformance(
    ensemble("jepa", EACH_JEPA | {"encoder": "frozen", "window": 2, "target": "ema"}), VECTORS | MIXED, updates=0
)
def test_ensemble_of_jepa_with_one_frozen_encoder(check: Check) -> None:
    check()


@parametrize_conformance(ensemble("jepa", EACH_JEPA | {"encoder": "given", "reward": False}), VECTORS, updates=0)
def test_ensemble_of_jepa_of_given_latents(check: Check) -> None:
    check()


@parametrize_conformance(
    ensemble("rssm", SMALL | {"convolutions": "strided"}),
    MIXED | VECTORS | {"plain_video": ALL["plain_video"]},
    updates=0,
)
def test_ensemble_of_rssm(check: Check) -> None:
    check()


@pytest.mark.slow
@parametrize_conformance(ensemble("rssm", SMALL | {"convolutions": "strided"}), updates=0)
def test_ensemble_of_rssm_on_every_spec(check: Check) -> None:
    check()


@parametrize_conformance(ensemble("rssm", SMALL | {"latent": "gaussian"}, members=3), VECTORS, updates=0)
def test_ensemble_of_rssm_gaussian(check: Check) -> None:
    check()


@parametrize_conformance(ensemble("rssm", SMALL | {"pixel_loss": "normalised"}, bootstrap=True), MIXED, updates=0)
def test_ensemble_of_rssm_bootstrapped(check: Check) -> None:
    check()


@parametrize_conformance(ensemble("rssm", SMALL | {"reward": False, "cont": False}, members=1), VECTORS, updates=0)
def test_ensemble_of_one(check: Check) -> None:
    check()


@parametrize_conformance(ensemble("linear", {"components": 8, "window": 1}, bootstrap=True), MIXED | VECTORS)
def test_ensemble_of_linear(check: Check) -> None:
    check()


@pytest.mark.slow
@parametrize_conformance(ensemble("linear", {"components": 8, "window": 1}, bootstrap=True))
def test_ensemble_of_linear_on_every_spec(check: Check) -> None:
    check()


@parametrize_conformance(ensemble("linear", {"components": 8, "window": 3, "fit": "gradient"}), VECTORS, updates=0)
def test_ensemble_of_linear_trained(check: Check) -> None:
    check()


@pytest.mark.usefixtures("gru_installed")
@parametrize_conformance(ensemble("gru", {"units": 16}), VECTORS, updates=0)
def test_ensemble_of_an_outside_family(check: Check) -> None:
    check()


@pytest.mark.slow
def test_ensemble_of_rssm_aligns_with_the_state_reached() -> None:
    check_alignment(ensemble("rssm", COUNTS | {"latent": "gaussian"}), "box", updates=300)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("latent", "action"),
    [("categorical", "discrete"), ("gaussian", "box"), ("deterministic", "box")],
)
def test_rssm_aligns_with_the_state_reached(latent: Any, action: Any) -> None:
    config = RSSMConfig(**(COUNTS | {"latent": latent}))
    check_alignment(lambda spec: RSSM(spec, config), action, updates=300)


@pytest.mark.slow
@pytest.mark.parametrize("make", [rssm(), linear(), ensemble("rssm", SMALL)], ids=["rssm", "linear", "ensemble"])
@pytest.mark.parametrize("spec", ALL.values(), ids=ALL)
def test_inductor(make: Factory, spec: Spec) -> None:
    check_compile(make, spec, backend="inductor")


@pytest.mark.slow
def test_inductor_leaves_the_common_cache_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    check_compile(linear(), ALL["vector_box"], backend="inductor")
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path) and not list(tmp_path.iterdir())
