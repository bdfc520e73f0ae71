"""Errors and spread in an embedding that training does not change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import foreworld as fw
from foreworld.core import deterministic, tree
from foreworld.data import Dataset
from foreworld.eval import Evaluation, calibrate, evaluate_open_loop
from foreworld.eval.predictors import COPY_LAST, copy_last
from foreworld.eval.quantities import EMBED
from foreworld.eval.windows import choose_windows
from foreworld.studies.answers import Limits, answer

CONTEXT, HORIZON, MEMBERS = 3, 5, 3
EACH: dict[str, Any] = {"latent": 4, "units": 16, "layers": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("embedding") / "data"
    return fw.collect("foreworld/PointMaze-v0", episodes=6, max_steps=20, out=folder)


def built(data: Dataset, **each: Any) -> fw.Ensemble:
    """Build an ensemble whose weights are all noise, so that it disagrees."""
    torch.manual_seed(1)
    model = fw.Ensemble(data.spec, member="jepa", members=MEMBERS, each=EACH | each)
    model.calibrate(lambda: iter([data.sample(8, 8, seed=0)]))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.1)
    return model.eval()


def evaluated(model: Any, data: Dataset) -> Evaluation:
    settings: dict[str, Any] = {"context": CONTEXT, "horizon": HORIZON, "samples": 2, "per_episode": 1}
    with deterministic():
        return evaluate_open_loop(model, data, {COPY_LAST: copy_last(data.spec.obs)}, **settings)


@pytest.mark.parametrize("encoder", ["frozen", "given"])
def test_members_are_judged_one_by_one_where_they_have_one_encoder(encoder: str, data: Dataset) -> None:
    model = built(data, encoder=encoder)
    found = evaluated(model, data)
    part = found.judgements[EMBED]
    assert part.spread.members == MEMBERS and len(part.quantity.unit) == model.models[0].latent
    # an evaluation and the model itself say the same, once both use the unit of these rows
    model.unit.copy_(part.quantity.unit.sqrt())
    ((_, segment, _),) = choose_windows(data, CONTEXT, HORIZON, 1).batches(data, 32)
    with torch.no_grad():
        state = tree.index(model.observe(model.initial(segment.batch), segment.rows(0, CONTEXT)), (slice(None), -1))
        dream = fw.imagine(model, state, segment.prev_action[:, CONTEXT:], keep=("spread", "embed"))
        true = model.encoder(segment.obs)
    assert dream.spread is not None and dream.embed is not None
    wrong = ((dream.embed - true[:, CONTEXT:]).square() / part.quantity.unit).mean(-1).sqrt()
    still = ((true[:, CONTEXT - 1 : CONTEXT] - true[:, CONTEXT:]).square() / part.quantity.unit).mean((0, 2)).sqrt()
    assert np.allclose(part.errors, wrong, atol=1e-5)
    assert np.allclose(np.sqrt(part.spread.variance), dream.spread, atol=1e-5)
    assert np.allclose(part.every.errors[COPY_LAST].value, still, atol=1e-5)
    assert float(dream.spread.min()) > 1e-3 and float(still.min()) > 1e-3
    calibration = calibrate(part.spread, part.errors, found.episode, 0.2)
    assert calibration.members == MEMBERS and np.isfinite(calibration.spread_skill.value).all()
    assert float(part.every.errors["floor"].value.max()) < 1e-5


def test_a_learned_embedding_is_judged_by_nobody_and_answers_say_why(data: Dataset) -> None:
    for encoder, reason in (("learned", "each an embedding of its own"), ("given", "")):
        model = built(data, encoder=encoder)
        found = evaluated(model, data)
        assert (EMBED in found.judgements) == (encoder == "given")
        said = answer(model, found, data, Limits(states=0))
        assert reason in said.no_calibration and (said.calibration is not None) == (encoder == "given")
    assert said.calibrated == EMBED and "Measured in the embedding that the members share" in said.in_words()
    assert said.to_json()["calibration"]["quantity"] == EMBED
