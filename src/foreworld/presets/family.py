"""What the registry holds for a family: its sizes, its training defaults and how to build it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from foreworld.core import Spec, TrainableModel
from foreworld.core.errors import UnknownName
from foreworld.core.registry import unknown
from foreworld.train import FitConfig


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family of world models, as presets, the CLI and run folders know it.

    Attributes:
        name: registered name.
        config_type: the config dataclass.
        build: makes the model from a Spec and a config.
        configs: size name to config.
        fits: size name to training defaults.
        of: for a family whose models are made of another family's: from that one's name to this family with its
            sizes; the config names it in the field `member`.
    """

    name: str
    config_type: type
    build: Callable[[Spec, Any], TrainableModel[Any]]
    configs: dict[str, Any]
    fits: dict[str, FitConfig]
    of: Callable[[str], Family] | None = None

    @property
    def sizes(self) -> tuple[str, ...]:
        """Names of the sizes, smallest first."""
        return tuple(self.configs)

    def config(self, size: str = "tiny") -> Any:
        """Return the complete config of a size.

        Raises:
            UnknownName: no such size; near ones are listed.
        """
        self._check(size)
        return self.configs[size]

    def fit(self, size: str = "tiny") -> FitConfig:
        """Return the training defaults of a size."""
        self._check(size)
        return self.fits[size]

    def _check(self, size: str) -> None:
        if size not in self.configs:
            raise UnknownName(unknown(f"size of {self.name}", size, list(self.configs)))
