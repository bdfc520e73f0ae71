"""The safe horizon: exact on cases worked out by hand, and as often right as it promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from foreworld.core.errors import ConfigError, DataError, TooFewEpisodes
from foreworld.eval.horizon import horizons, measure_horizon, one_per_episode

NAN = np.nan


def ramps(horizon: np.ndarray, steps: int = 60) -> np.ndarray:
    """Errors that first exceed 0.2 right after the given steps."""
    return np.where(np.arange(1, steps + 1) <= horizon[:, None], 0.1, 0.3)


def test_a_horizon_is_the_last_step_before_the_limit_is_first_exceeded() -> None:
    errors = np.array(
        [
            [0.1, 0.2, 0.3, 0.1],  # exactly the limit is not above it; coming back does not help
            [0.3, 0.1, 0.1, 0.1],
            [0.1, 0.1, 0.1, 0.1],  # censored at K
            [0.1, 0.1, NAN, NAN],  # ended by itself
            [0.1, 0.3, NAN, NAN],
            [0.1, np.inf, np.inf, np.inf],
        ]
    )
    assert horizons(errors, 0.2).tolist() == [2, 0, np.inf, np.inf, 1, 1]
    cut = np.array([False, False, True, True, True, False])
    assert horizons(errors, 0.2, cut).tolist() == [2, 0, np.inf, 2, 1, 1]
    with pytest.raises(DataError, match="one value for each of 6"):
        horizons(errors, 0.2, cut[:5])


def test_the_guarantee_is_the_order_statistic() -> None:
    """Of 29 episodes the shortest counts, of 50 the second, of 100 the fifth, of 200 the thirteenth."""
    rng = np.random.default_rng(0)
    for count, order in ((29, 1), (50, 2), (100, 5), (200, 13)):
        lasting = rng.permutation(count) + 1
        found = measure_horizon(ramps(lasting, 300))
        assert (found.order, found.safe.steps, found.safe.at_least) == (order, order, False)
        assert found.safe.exceeded == pytest.approx((order - 1) / count)
        assert found.episodes == count
        # floor((n + 1) / 10), from the conformal lower quantile
        assert found.marginal is not None and found.marginal.steps == (count + 1) // 10


def test_what_never_exceeds_the_limit_gives_at_least_so_many_steps() -> None:
    found = measure_horizon(np.full((40, 25), 0.1))
    assert (found.safe.steps, found.safe.at_least) == (25, True)
    assert "at least 25 steps" in found.in_words()
    assert found.mean_curve.at_least and found.to_json()["at_least"] is True


def test_what_exceeds_it_at_once_gives_none() -> None:
    found = measure_horizon(np.full((40, 25), 0.3))
    assert (found.safe.steps, found.safe.at_least, found.safe.exceeded) == (0, False, 0.0)
    assert found.in_words().startswith("Trust no step")


def test_nothing_is_said_beyond_what_enough_trajectories_reach() -> None:
    errors = np.full((60, 50), 0.1)
    errors[:35, 20:] = NAN
    found = measure_horizon(errors)
    assert (found.longest, found.safe.steps, found.safe.at_least) == (20, 20, True)
    assert measure_horizon(errors[:, :20]).safe == found.safe
    assert found.ended == 35 and "35 ended early and count as never exceeding it" in found.in_words()
    assert measure_horizon(errors[:, :20]).ended == 0


def test_a_recording_that_ends_early_is_not_taken_for_safe() -> None:
    errors = np.full((100, 50), 0.1)
    errors[:10, 8:] = NAN
    assert measure_horizon(errors).safe.steps == 50
    found = measure_horizon(errors, cut=np.arange(100) < 10)
    assert (found.safe.steps, found.ended) == (8, 0) and "ended early" not in found.in_words()
    with pytest.raises(DataError, match="one value for each of 100"):
        measure_horizon(errors, cut=np.arange(99) < 10)


@pytest.mark.parametrize(
    ("count", "confidence", "rate", "words"),
    [
        (20, 0.95, 0.1, "20 episodes, 29 are needed for violations of at most 10 % with 95 % confidence; collect 9"),
        (20, 0.95, 0.1, "lower the confidence to 87 % or allow violations of 14 %"),
        (1, 0.95, 0.1, "1 episode, 29 are needed"),
        (28, 0.95, 0.1, "collect 1 more"),
        (29, 0.99, 0.1, "44 are needed"),
        (50, 0.95, 0.05, "59 are needed"),
    ],
)
def test_too_few_episodes_are_refused_with_what_would_do(
    count: int, confidence: float, rate: float, words: str
) -> None:
    with pytest.raises(TooFewEpisodes, match=words):
        measure_horizon(np.full((count, 9), 0.1), confidence=confidence, violation_rate=rate)


def test_what_the_refusal_offers_is_accepted() -> None:
    errors = ramps(np.arange(20))
    assert measure_horizon(errors, confidence=0.87).order == 1
    assert measure_horizon(errors, violation_rate=0.14).order == 1


def test_many_trajectories_of_one_episode_count_once() -> None:
    errors, episode = np.full((200, 9), 0.1), np.repeat(np.arange(20), 10)
    with pytest.raises(TooFewEpisodes, match="20 episodes"):
        measure_horizon(errors, episode)
    episode = np.repeat(np.arange(40), 5)
    found = measure_horizon(errors, episode)
    assert found.episodes == 40 and episode[found.chosen].tolist() == list(range(40))


def test_one_of_each_episode_is_chosen_evenly_whatever_its_error() -> None:
    episode = np.array([3, 1, 3, 1, 3, 7])
    chosen = [tuple(one_per_episode(episode, seed)) for seed in range(600)]
    assert all(sorted(episode[list(pick)]) == [1, 3, 7] for pick in chosen)
    counts = np.bincount([index for pick in chosen for index in pick], minlength=6) / 600
    assert counts == pytest.approx([1 / 3, 1 / 2, 1 / 3, 1 / 2, 1 / 3, 1], abs=0.1)
    assert one_per_episode(episode, 5).tolist() == one_per_episode(episode, 5).tolist()


def test_rules_of_thumb_stand_beside_it() -> None:
    """1 % after one step gives 22 steps; one trajectory more exceeds at every step, and the mean passes at the 31st."""
    errors = np.where(np.arange(1, 61) <= np.arange(60)[:, None] + 1, 0.01, 0.4)
    found = measure_horizon(errors)
    assert found.closed_form.steps == 22
    # the mean is 0.01 + 0.39 (k - 1) / 60, above 0.2 from k = 31 on
    assert found.mean_curve.steps == 30
    assert found.mean_curve.exceeded == pytest.approx(29 / 60)
    assert found.safe.steps < found.closed_form.steps < found.mean_curve.steps


@pytest.mark.parametrize(
    "options", [{"max_error": 0.0}, {"max_error": NAN}, {"confidence": 1.0}, {"violation_rate": 0}]
)
def test_limits_that_mean_nothing_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        measure_horizon(np.full((40, 9), 0.1), **options)


@given(arrays(float, (40, 12), elements=st.floats(0, 1)), st.floats(0.05, 0.9), st.floats(0.05, 0.9))
def test_a_larger_limit_never_gives_fewer_steps(errors: np.ndarray, first: float, second: float) -> None:
    low, high = sorted((first, second))
    assert measure_horizon(errors, max_error=low).safe.steps <= measure_horizon(errors, max_error=high).safe.steps


@given(arrays(float, (60, 12), elements=st.floats(0, 1)))
def test_more_confidence_or_fewer_violations_never_give_more_steps(errors: np.ndarray) -> None:
    usual = measure_horizon(errors).safe.steps
    assert measure_horizon(errors, confidence=0.99).safe.steps <= usual
    assert measure_horizon(errors, violation_rate=0.05).safe.steps <= usual


def test_the_promise_is_kept_as_often_as_it_says() -> None:
    """Horizons uniform on 1..200: a promise h is violated by (h - 1) / 200; kept in 95 % of 1,000 repeats at least."""
    rng = np.random.default_rng(0)
    kept = [(measure_horizon(ramps(rng.integers(1, 201, 60), 200)).safe.steps - 1) / 200 <= 0.1 for _ in range(1000)]
    # exactly: P(Binomial(60, 0.1) >= 2) = 0.986, as the next order statistic would be right in 94.9 % only
    assert np.mean(kept) == pytest.approx(0.986, abs=0.012)


def test_the_weaker_promise_is_kept_on_average() -> None:
    rng = np.random.default_rng(1)
    found = [measure_horizon(ramps(rng.integers(1, 201, 59), 200)).marginal for _ in range(1000)]
    # the 6th smallest of 59 lies at 6/60 of the distribution on average
    assert np.mean([(steps.steps - 1) / 200 for steps in found if steps]) == pytest.approx(0.1, abs=0.006)
