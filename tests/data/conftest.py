"""Lets the tests of the replay share the rows they are fed with."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
