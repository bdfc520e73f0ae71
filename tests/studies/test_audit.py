"""What a check finds in datasets that were spoiled on purpose, and that it lets good ones pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foreworld.core import Space, Spec
from foreworld.core.errors import DataError
from foreworld.data import Episode, Writer
from foreworld.data.episode import stored_rows
from foreworld.data.schema import Schema
from foreworld.data.shard import write_shard
from foreworld.studies.audit import Audit, Finding, check

STATE = Space(kind="vector", shape=(3,), dtype="float32", low=(-9.0,) * 3, high=(9.0,) * 3)
IMAGE = Space(kind="image", shape=(1, 16, 16), dtype="uint8")
CHOICE = Space(kind="discrete", shape=(), dtype="int64", classes=(3,), start=(0,))
SPEC = Spec(obs={"obs": STATE, "image": IMAGE}, action=CHOICE)
ROWS = 20

Columns = dict[str, np.ndarray]


def episodes(count: int = 6) -> list[Episode]:
    """Walks that the actions push, so that the actions are seen to be aligned."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(count):
        action = rng.integers(0, 3, ROWS)
        action[0] = 0
        push = np.where(np.arange(ROWS) > 0, action - 1.0, 0.0)
        state = np.stack([np.cumsum(0.2 * push), push, rng.uniform(-1, 1, ROWS)], 1).astype(np.float32)
        image = rng.integers(0, 256, (ROWS, 1, 16, 16), dtype=np.uint8)
        found.append(Episode(obs={"obs": state, "image": image}, prev_action=action, reward=push))
    return found


def write(path: Path, spoil: Callable[[list[Columns]], Any] = lambda columns: None) -> Audit:
    """Store episodes past the checks of the writer, spoiled before they are sealed."""
    with Writer(path, SPEC):
        schema = Schema.read(path)
    rows = [stored_rows(episode, schema) for episode in episodes()]
    spoil(rows)
    write_shard(path / "shards" / "000000", schema.columns, rows)
    return check(path)


def only(audit: Audit, topic: str) -> Finding:
    found = [finding for finding in audit.findings if finding.check == topic]
    assert len(found) == 1, audit.findings
    return found[0]


def test_a_good_dataset_passes_without_a_word(tmp_path: Path) -> None:
    stages: list[str] = []
    write(tmp_path / "d")
    audit = check(tmp_path / "d", progress=lambda stage, done, total: stages.append(stage))
    assert audit.ok
    assert audit.findings == ()
    assert [found.verdict for found in audit.alignments] == ["aligned", "aligned"]
    found = audit.statistics
    assert found is not None
    assert (found.episodes, found.rows, found.steps, found.length_min, found.length_max) == (6, 120, 114, 20, 20)
    assert (found.terminal, found.truncated, found.repeated) == (0, 6, 0.0)
    assert found.return_min <= found.return_median <= found.return_max
    assert list(dict.fromkeys(stages)) == ["verify", "read", "prev_action", "reward"]


def spoil_value(name: str, value: float) -> Callable[[list[Columns]], None]:
    def spoil(rows: list[Columns]) -> None:
        rows[2][name][5] = value

    return spoil


@pytest.mark.parametrize("name", ["obs/obs", "reward"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_named(tmp_path: Path, name: str, value: float) -> None:
    audit = write(tmp_path / "d", spoil_value(name, value))
    assert not audit.ok
    assert f"column '{name}', episode 2, row 5: NaN or infinite (in 1 rows)" in only(audit, "values").message
    assert audit.alignments == ()


def freeze(rows: list[Columns]) -> None:
    for name in ("obs/obs", "obs/image"):
        rows[1][name][:] = rows[1][name][:1]


def copy(rows: list[Columns]) -> None:
    rows[4] = rows[3]


def stop_component(rows: list[Columns]) -> None:
    for row in rows:
        row["obs/obs"][:, 2] = 1


def blacken(rows: list[Columns]) -> None:
    for row in rows:
        row["obs/image"][:] = 0


def cut_to_integers(rows: list[Columns]) -> None:
    for row in rows:
        row["obs/image"] //= 128


def repeat_rows(rows: list[Columns]) -> None:
    for row in rows:
        for name in ("obs/obs", "obs/image"):
            row[name][:] = row[name][np.arange(ROWS) // 4]


def drop_class(rows: list[Columns]) -> None:
    for row in rows:
        row["prev_action"][row["prev_action"] == 2] = 1


def first_action(rows: list[Columns]) -> None:
    rows[0]["prev_action"][0] = 1


def end_early(rows: list[Columns]) -> None:
    rows[3]["is_last"][7] = True


def no_reward(rows: list[Columns]) -> None:
    for row in rows:
        row["reward"][:] = 0


@pytest.mark.parametrize(
    ("spoil", "topic", "severity", "words"),
    [
        (freeze, "frames", "error", "episode 1 never changes"),
        (repeat_rows, "frames", "warning", "79% of the rows repeat"),
        (copy, "copies", "warning", "1 of 6 episodes are copies of earlier ones (episode 4 of episode 3)"),
        (stop_component, "constant", "warning", "obs/obs[2] never change"),
        (blacken, "constant", "warning", "'obs/image' never changes"),
        (cut_to_integers, "values", "warning", "only use 0 to 1"),
        (spoil_value("obs/obs", 10.0), "values", "warning", "obs/obs[0]: holds"),
        (spoil_value("prev_action", 3), "values", "error", "its space says 0 to 2"),
        (drop_class, "actions", "warning", "1 of 3 actions were never taken (2)"),
        (first_action, "rows", "error", "'prev_action', episode 0, row 0"),
        (end_early, "rows", "error", "'is_last', episode 3, row 7"),
        (no_reward, "reward", "note", "always zero"),
    ],
)
def test_what_is_spoiled_is_named(
    tmp_path: Path, spoil: Callable[[list[Columns]], None], topic: str, severity: str, words: str
) -> None:
    audit = write(tmp_path / "d", spoil)
    found = only(audit, topic)
    assert found.severity == severity
    assert words in found.message
    assert audit.ok == (severity != "error")


def test_an_episode_of_actions_that_do_nothing_may_stand_still(tmp_path: Path) -> None:
    def spoil(rows: list[Columns]) -> None:
        repeat_rows(rows)
        freeze(rows)
        rows[1]["prev_action"][1:] = 1

    audit = write(tmp_path / "d", spoil)
    assert audit.ok
    assert only(audit, "frames").severity == "warning"


def test_short_and_single_episodes_are_mentioned(tmp_path: Path) -> None:
    with Writer(tmp_path / "d", SPEC) as writer:
        writer.add(episodes(1)[0])
    audit = check(tmp_path / "d", window=50)
    assert audit.ok
    messages = [finding.message for finding in audit.findings if finding.check == "episodes"]
    assert len(messages) == 2
    assert "one episode only" in messages[0]
    assert "1 of 1 episodes are shorter than a window of 50 rows" in messages[1]


def test_plain_video_has_nothing_to_align(tmp_path: Path) -> None:
    with Writer(tmp_path / "d", Spec(obs={"image": IMAGE}, action=None)) as writer:
        for episode in episodes(2):
            writer.add(Episode(obs={"image": episode.obs["image"]}))
    audit = check(tmp_path / "d")
    assert audit.ok
    assert [finding.message for finding in audit.findings] == ["no actions: nothing to align"]


def test_errors_come_first(tmp_path: Path) -> None:
    def spoil(rows: list[Columns]) -> None:
        freeze(rows)
        copy(rows)
        no_reward(rows)

    severities = [finding.severity for finding in write(tmp_path / "d", spoil).findings]
    assert severities == sorted(severities, key=("error", "warning", "note").index)
    assert severities[0] == "error"


def test_what_is_no_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a foreworld dataset"):
        check(tmp_path)


def test_an_empty_store_is_an_error(tmp_path: Path) -> None:
    with Writer(tmp_path / "d", SPEC):
        pass
    audit = check(tmp_path / "d")
    assert not audit.ok
    assert "no finished episode" in audit.findings[0].message
