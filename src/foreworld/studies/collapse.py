"""Watching for collapse while an embedding is trained."""

from __future__ import annotations

from typing import Any

from foreworld.data import Dataset
from foreworld.eval.collapse import Embedding, inspect_embedding
from foreworld.train.log import complain
from foreworld.train.monitor import Monitor


def watch_collapse(heldout: Dataset, rows: int = 512) -> Monitor:
    """Return what `fit` needs to look for collapse at every checkpoint, and to warn with advice.

    The same advice is given once.

    Args:
        heldout: episodes that the model is not trained on.
        rows: how many of them are looked at.

    Returns:
        A monitor, for the argument of that name: it logs `embed/rank`, `embed/dead`, `embed/std_least` and
        `embed/alike`.

    Example:
        >>> import tempfile, foreworld as fw
        >>> from foreworld.train.log import read_metrics
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data = fw.collect("CartPole-v1", episodes=4, out=f"{folder}/episodes")
        ...     train, heldout = data.split(0.5)
        ...     model = fw.JEPA(data.spec, latent=8, units=16)
        ...     _ = fw.fit(model, train, steps=1, batch=4, out=f"{folder}/run", monitor=fw.watch_collapse(heldout))
        ...     found = read_metrics(Path(folder) / "run" / "metrics.jsonl")
        >>> "embed/rank" in found[-1]
        True
    """
    told: set[str] = set()

    def look(model: Any) -> dict[str, float]:
        found = inspect_embedding(model, heldout.with_spec(model.spec), rows=rows)
        kind, advice = _kind(found), found.advice()
        if advice and kind not in told:
            told.add(kind)
            complain(advice)
        return {
            "embed/rank": found.rank,
            "embed/dead": found.dead,
            "embed/std_least": found.std_least,
            "embed/alike": found.alike,
        }

    return look


def _kind(found: Embedding) -> str:
    """Tell advice apart, whatever numbers it holds."""
    return found.advice().partition(":")[0].translate(str.maketrans("", "", "0123456789.%"))
