"""`Dropped`: what a store once held at its beginning and was made to forget, so that a gap there is no damage."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from foreworld.core.config import to_json
from foreworld.core.errors import DataError
from foreworld.core.files import read_sealed, write_json

DROPPED_FILE = "dropped.json"
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """The oldest shards of a store, which are no longer there; written as `dropped.json` before they go.

    Attributes:
        shards: how many: all with a lower number.
        episodes: in these; later episodes keep their number.
        fingerprint: of the store, from its very first shard.
    """

    shards: int = 0
    episodes: int = 0
    fingerprint: str = ""

    def write(self, store: Path) -> None:
        """Write `dropped.json`.

        Raises:
            WriteFailed: the disk refused; the old content is intact.
        """
        write_json(store / DROPPED_FILE, to_json(self), sealed=True)

    @classmethod
    def read(cls, store: Path) -> Dropped:
        """Read `dropped.json`; of most stores there is none, and nothing was dropped.

        Raises:
            DataError: it is damaged.
        """
        path = store / DROPPED_FILE
        if not path.exists():
            return cls()
        found = read_sealed(path, {"shards", "episodes", "fingerprint"})
        shards, episodes, fingerprint = (found.get(name) for name in ("shards", "episodes", "fingerprint"))
        if type(shards) is not int or type(episodes) is not int or not 0 < shards <= episodes < 2**40:
            raise DataError(f"{path}: {shards!r:.30} shards of {episodes!r:.30} episodes cannot be; it is damaged")
        if not isinstance(fingerprint, str) or not _HASH.fullmatch(fingerprint):
            raise DataError(f"{path}: has no valid fingerprint; it is damaged, restore it from a copy")
        return cls(shards=shards, episodes=episodes, fingerprint=fingerprint)
