"""`foreworld check` as a user meets it: its words and its exit codes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from foreworld.cli.main import main
from foreworld.core import Space, Spec
from foreworld.data import Episode, Writer, load

SPEC = Spec(
    obs={"obs": Space(kind="vector", shape=(2,), dtype="float32")},
    action=Space(kind="vector", shape=(1,), dtype="float32", low=(-1.0,), high=(1.0,)),
)


def write(path: Path, shift: int = 0) -> str:
    """Random walks that the actions push."""
    rng = np.random.default_rng(0)
    with Writer(path, SPEC) as writer:
        for _ in range(8):
            action = rng.uniform(-1, 1, (40, 1)).astype(np.float32)
            action[0] = 0
            obs = np.concatenate([np.cumsum(action, 0), rng.normal(size=(40, 1))], 1).astype(np.float32)
            stored = np.roll(action, shift, 0)
            stored[0] = 0
            writer.add(Episode(obs={"obs": obs}, prev_action=stored))
    return str(path)


def test_a_good_dataset_exits_with_0_and_shows_the_shifts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", write(tmp_path / "d")]) == 0
    shown = capsys.readouterr()
    assert "prev_action: aligned, judged on 296 rows" in shown.out
    assert "stored one row later" in shown.out
    assert "note: the reward is always zero" in shown.err
    assert shown.err.rstrip().endswith("fit to train on")
    assert "error" not in shown.err


@pytest.mark.parametrize(
    ("shift", "words"), [(-1, "import again with Episode.from_transitions"), (1, "one row earlier")]
)
def test_a_shift_exits_with_1_and_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], shift: int, words: str
) -> None:
    assert main(["check", write(tmp_path / "d", shift)]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "actions look shifted by one row" in errors[0]
    assert words in errors[0]


def test_json_for_machines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", write(tmp_path / "d", 1), "--json"]) == 1
    caught = capsys.readouterr()
    found = json.loads(caught.out)
    assert caught.err == ""
    assert (found["ok"], found["statistics"]["episodes"]) == (False, 8)
    assert found["findings"][0]["severity"] == "error"
    scan = found["alignments"][0]
    assert (scan["column"], scan["verdict"], scan["best"]) == ("prev_action", "shifted", 1)
    assert [shift["shift"] for shift in scan["shifts"]] == [-1, 0, 1]


def test_a_flipped_bit_exits_with_1_and_names_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write(tmp_path / "d")
    load(data)  # it is remembered as whole
    file = tmp_path / "d" / "shards" / "000000" / "obs" / "obs.npy"
    stat, content = file.stat(), bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # a disk that rots does not touch the clock
    assert main(["check", data]) == 1
    caught = capsys.readouterr()
    assert f"error: {file}: its content does not match its hash" in caught.err
    assert "Traceback" not in caught.err


def test_bad_input_exits_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path / "nowhere")]) == 2
    assert "no such folder" in capsys.readouterr().err
    assert main(["check", str(tmp_path)]) == 2
    assert "not a foreworld dataset" in capsys.readouterr().err
