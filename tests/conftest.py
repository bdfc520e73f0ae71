"""What every test gets: one thread, and the same random numbers each time."""

from __future__ import annotations

import os

# The tensors of a test are tiny: threads cost more than they give, and wait for each other on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """Start every test from the same state of the global generators."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - third parties still draw from it
