"""Lets the tests of agents share worlds that are known exactly, and an agent in plain Python."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
