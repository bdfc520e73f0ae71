from __future__ import annotations

import numpy as np
import pytest

from foreworld.core.errors import SpecError
from foreworld.report.svg import Shade
from foreworld.report.traces import Trace, trace_plots


def test_step_zero_is_the_last_row_seen() -> None:
    trace = Trace(np.zeros((6, 2)), np.ones((6, 2)), 2)
    assert trace.steps.tolist() == [-1, 0, 1, 2, 3, 4]


def test_one_plot_a_dimension_with_the_context_shaded() -> None:
    real = np.arange(12.0).reshape(6, 2)
    plots = trace_plots(Trace(real, real + 1, 2, ("angle (rad)", "speed (m/s)")))
    assert [plot.title for plot in plots] == ["angle (rad)", "speed (m/s)"]
    assert plots[1].shades == (Shade(-1.0, 0.0, "context"),)
    truth, dream = plots[1].lines
    assert (truth.style, dream.style) == ("real", "model")
    np.testing.assert_array_equal(truth.y, [1, 3, 5, 7, 9, 11])
    np.testing.assert_array_equal(dream.y, [2, 4, 6, 8, 10, 12])


def test_without_context_nothing_is_shaded() -> None:
    assert trace_plots(Trace(np.zeros((3, 1)), np.zeros((3, 1)), 0))[0].shades == ()


def test_bad_traces_are_refused() -> None:
    with pytest.raises(SpecError, match="one shape"):
        Trace(np.zeros((3, 1)), np.zeros((3, 2)), 1)
    with pytest.raises(SpecError, match="outside"):
        Trace(np.zeros((3, 1)), np.zeros((3, 1)), 4)
    with pytest.raises(SpecError, match="2 names for 1"):
        Trace(np.zeros((3, 1)), np.zeros((3, 1)), 1, ("a", "b"))
