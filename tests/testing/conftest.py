"""The example family is imported from `examples/`, installed or not."""

from __future__ import annotations

import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "third_party_family"

sys.path.append(str(EXAMPLE / "src"))
