"""The metrics file and the display."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from foreworld.core.errors import DataError
from foreworld.train.log import Display, MetricsFile, in_words, read_metrics


class Clock:
    """Goes on by one second each time that it is asked."""

    def __init__(self, tick: float) -> None:
        self.now, self.tick = 0.0, tick

    def __call__(self) -> float:
        self.now += self.tick
        return self.now


def lines(capsys: pytest.CaptureFixture[str], tick: float, calls: int, total: int, limit: float = 0.0) -> list[str]:
    capsys.readouterr()
    with Display("train", "updates", limit=limit, clock=Clock(tick)) as display:
        for done in range(1, calls + 1):
            display.show(done, total, "loss 1")
    return capsys.readouterr().err.splitlines()


def test_plain_lines_show_pace_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    shown = lines(capsys, tick=1.0, calls=11, total=100)
    assert shown == [
        "train: 5/100 updates, 1 updates/s, 2 min left, loss 1",
        "train: 10/100 updates, 1 updates/s, 2 min left, loss 1",
    ]


def test_the_last_line_is_always_shown_and_lines_grow_rare(capsys: pytest.CaptureFixture[str]) -> None:
    assert lines(capsys, tick=0.001, calls=20, total=20) == ["train: 20/20 updates, 1e+03 updates/s, loss 1"]
    a_day = lines(capsys, tick=10.0, calls=8640, total=8640)
    assert 1440 <= len(a_day) < 1500
    gaps = [int(b.split("/")[0].split()[-1]) - int(a.split("/")[0].split()[-1]) for a, b in pairwise(a_day)]
    # in tens of seconds: a watchdog that waits for a minute and a bit is content
    assert max(gaps) == 6 and gaps[0] == 1


def test_a_limit_of_time_shortens_what_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    assert "41 s left" in lines(capsys, tick=1.0, calls=21, total=10**6, limit=60.0)[-1]


def test_quiet_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Display("train", quiet=True) as display:
        display.show(1, 1)
    assert capsys.readouterr().err == ""


def test_durations_are_said_as_people_say_them() -> None:
    assert [in_words(seconds) for seconds in (0.2, 89, 91, 5300, 6000, 200_000)] == [
        "0 s", "89 s", "2 min", "88 min", "1.7 h", "55.6 h",
    ]  # fmt: skip


def test_a_disk_that_refuses_metrics_is_named_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = MetricsFile(tmp_path / "gone", 0)
    file.write({"step": 1})
    file.write({"step": 2})
    assert capsys.readouterr().err.count("metrics are not written") == 1
    (tmp_path / "gone").mkdir()
    file.write({"step": 3})
    assert read_metrics(tmp_path / "gone" / "metrics.jsonl") == [{"step": 3}]


@pytest.mark.parametrize("bad", ["{", "3", "[]", "{}", '{"step": "x"}', "\udcff", "[" * 10_000])
def test_a_damaged_line_is_named(bad: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + bad.encode(errors="surrogateescape") + b'\n{"step": 2}\n{"step"')
    with pytest.raises(DataError, match=r"metrics.jsonl: line 2 is damaged"):
        read_metrics(path)
