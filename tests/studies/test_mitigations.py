"""The study of the remedies, at a size at which every part runs."""

from __future__ import annotations

import numpy as np
import pytest

from foreworld.studies.mitigations import MitigationsConfig, mitigations

SMALL = MitigationsConfig(
    episodes=20, max_steps=70, seeds=1, members=2, steps=20, samples=2, starts=3, candidates=4, intervals=(5, 50)
)


@pytest.mark.slow
def test_every_remedy_is_judged_by_its_interval() -> None:
    rows = mitigations(SMALL)
    remedies = {"multi-step training loss", "ensemble", "predict in latent space", "replan often"}
    assert {row.remedy for row in rows} == remedies and len(rows) == 12
    for row in rows:
        returns = row.measure.startswith("return")
        better, worse = (
            (row.effect.low > 0, row.effect.high < 0) if returns else (row.effect.high < 1, row.effect.low > 1)
        )
        assert row.verdict == ("helps" if better else "hurts" if worse else "no clear difference")
        expected = row.with_it - row.without if returns else row.with_it / row.without
        assert float(row.effect.value) == pytest.approx(expected, rel=1e-6)
    members = [row for row in rows if row.remedy == "ensemble"]
    assert all(np.sqrt(1 / 2) - 1e-6 <= float(row.effect.value) <= 1 + 1e-6 for row in members)
