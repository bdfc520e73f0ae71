"""Lets the tests of planners share planners in plain Python, and how bugs are seeded."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path += [str(HERE), str(HERE.parent / "agents")]
