"""All that error curves tell, in one answer."""

from __future__ import annotations

import json

import numpy as np
import pytest

from foreworld.core.errors import ConfigError, TooFewEpisodes
from foreworld.core.files import finite
from foreworld.eval.trust import measure_trust

KEYS = {
    "safe_horizon",
    "at_least",
    "confidence",
    "violation_rate",
    "episodes",
    "growth_law",
    "growth_rate",
    "growth_rate_reason",
    "doubling_time",
    "plateau",
    "replan_every",
    "naive",
    "meaning",
    "bands",
}


def chaotic(n: int = 300, steps: int = 100, seed: int = 0) -> np.ndarray:
    """Errors that double every five steps or so, up to 1.4."""
    rng = np.random.default_rng(seed)
    logs = np.log(1e-5) + rng.normal(size=(n, 1)) + (0.14 + 0.1 * rng.normal(size=(n, steps))).cumsum(1)
    return 1.4 / (1 + 1.4 * np.exp(-logs))


def test_the_parts_agree() -> None:
    found = measure_trust(chaotic(), dt=0.05, latency=0.1)
    answer = found.to_json()
    assert set(answer) >= KEYS
    assert answer["growth_law"] == "logistic"
    assert answer["growth_rate"] == pytest.approx(0.14, rel=0.03)
    assert answer["doubling_time"] == pytest.approx(np.log(2) / answer["growth_rate"])
    assert answer["growth_rate_per_second"] == pytest.approx(answer["growth_rate"] / 0.05)
    assert answer["safe_horizon"] <= answer["marginal_horizon"]["steps"] <= answer["naive"]["mean_curve"]["steps"]
    assert answer["safe_horizon_seconds"] == pytest.approx(0.05 * answer["safe_horizon"])
    assert answer["replan_latency_checked"] is True
    assert list(answer["bands"]) == ["1", "10", "50"] and answer["band_level"] == 0.9
    json.dumps(finite(answer), allow_nan=False)
    lines = found.in_words().splitlines()
    assert lines[0].startswith("Trust ") and lines[1].startswith("Errors double every")
    assert lines[2].startswith("Small errors change by +14.7 % a step") and "double in 5.06 steps" in lines[2]
    assert any(line.startswith("Replan every") for line in lines) and "exchange" not in lines[-1]
    assert "calibrate on plans that it chose" in lines[-1]


def test_without_a_law_there_is_still_a_horizon() -> None:
    found = measure_trust(np.zeros((40, 20)))
    answer = found.to_json()
    assert (answer["safe_horizon"], answer["at_least"]) == (20, True)
    for name in ("growth_law", "growth_rate", "doubling_time", "plateau"):
        assert answer[name] is None and "errors are 0" in answer[f"{name}_reason"]
    assert "No law of growth: the errors are 0" in found.in_words()
    assert measure_trust(np.full((40, 3), 0.1)).growth is None


def test_the_same_seed_gives_the_same_answer() -> None:
    errors, episode = chaotic(), np.repeat(np.arange(100), 3)
    first, again = (measure_trust(errors, episode, seed=4).to_json() for _ in range(2))
    assert first == again
    assert first["episodes"] == 100


def test_it_refuses_what_cannot_be_said() -> None:
    with pytest.raises(TooFewEpisodes, match="29 are needed"):
        measure_trust(chaotic(20))
    with pytest.raises(ConfigError, match="needs dt"):
        measure_trust(chaotic(), latency=0.1)
