"""What the README and the documentation say runs as it stands.

Every ```python block of a page is executed, in order, in one namespace and one folder; then every `foreworld` line of
its ```bash blocks, in a folder of their own. A page that reads `episodes` or `runs/first` and does not make them gets
those that the first page makes. A block that must not run opens with ```python no-run or ```bash no-run.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from foreworld.cli.main import VERBS, main
from foreworld.presets.linear import FITS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
sys.path.append(str(DOCS))

import generated  # noqa: E402 - lies beside the pages

PAGES = ["README.md", *(str(p.relative_to(ROOT)) for p in sorted(DOCS.glob("**/*.md")) if "_build" not in p.parts)]
START = "docs/start.md"
BLOCK = re.compile(r"^```(?P<kind>python|bash)[ ]*$\n(?P<code>.*?)^```[ ]*$", re.MULTILINE | re.DOTALL)
MADE = ("episodes", "runs/first")
UPDATES = "6"
SKIPPED = ("demo", "bench")
"""Verbs that take too long for a page; the tests of studies run them."""


def blocks(text: str) -> list[tuple[str, str]]:
    """Cut the blocks that run out of a page, each pushed down to its line, so that a traceback points into the page."""
    found = BLOCK.finditer(text)
    return [(block["kind"], "\n" * text.count("\n", 0, block.start("code")) + block["code"]) for block in found]


def commands(code: str) -> list[list[str]]:
    """Return the arguments of every `foreworld` line of a block; training is cut to a few updates."""
    lines = code.replace("\\\n", " ").splitlines()
    found = [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("foreworld ")]
    for args in found:
        if args[0] == "train" and "--steps" in args:
            args[args.index("--steps") + 1] = UPDATES
    return [args for args in found if args[0] not in SKIPPED]


def run_page(page: Path, folder: Path, given: Path | None = None) -> dict[str, object]:
    """Run the blocks of a page in `folder`; what it reads and does not make is copied from `given`."""
    namespace: dict[str, object] = {"__name__": "__page__"}
    for kind in ("python", "bash"):
        codes = [code for found, code in blocks(page.read_text()) if found == kind]
        place = folder / kind
        place.mkdir()
        for name in missing("".join(codes)) if given else ():
            shutil.copytree(given / name, place / name)
        with contextlib.chdir(place):
            for code in codes:
                if kind == "python":
                    exec(compile(code, str(page), "exec"), namespace)
                    continue
                for args in commands(code):
                    assert main(args) == 0, f"{page}: foreworld {shlex.join(args)}"
    return namespace


def missing(code: str) -> list[str]:
    """Name what code reads and does not make."""
    return [name for name in MADE if re.search(rf"\b{name}\b", code) and not re.search(rf'out[ =]"?{name}\b', code)]


@pytest.fixture(scope="module", autouse=True)
def small_baseline() -> Iterator[None]:
    """Fit the linear baseline of every evaluation on a few batches: pages show how, not how well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FITS, "tiny", replace(FITS["tiny"], calibration=8))
        yield


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with the episodes and the run that the commands of the first page make."""
    folder = tmp_path_factory.mktemp("first")
    run_page(ROOT / START, folder)
    return folder / "bash"


@pytest.mark.docs
@pytest.mark.usefixtures("gru_installed")
@pytest.mark.parametrize("page", [page for page in PAGES if page != START])
def test_code_of_page_runs(page: str, first: Path, tmp_path: Path) -> None:
    run_page(ROOT / page, tmp_path, first)


@pytest.mark.docs
def test_the_first_page_runs(first: Path) -> None:
    assert all((first / name).is_dir() for name in MADE)
    assert (first / "runs" / "first" / "report.html").is_file()


def test_blocks_share_a_namespace_in_order(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Page\n```python\na = 1\n```\ntext\n```bash\nexit 1\n```\n```python\na += 1\n```\n")
    assert run_page(page, tmp_path)["a"] == 2


def test_no_run_blocks_are_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    text = "```python no-run\nraise RuntimeError\n```\n```\nraise RuntimeError\n```\n"
    page.write_text(text + "```bash no-run\nforeworld nonsense\n```\n")
    run_page(page, tmp_path)


def test_a_failing_block_names_page_and_line(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n```python\nok = 1\n1 / 0\n```\n")
    with pytest.raises(ZeroDivisionError) as caught:
        run_page(page, tmp_path)
    last = caught.traceback[-1]
    assert (Path(str(last.path)).name, last.lineno + 1) == ("page.md", 5)


def test_a_failing_command_names_its_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```bash\nforeworld inspect nowhere\n```\n")
    with pytest.raises(AssertionError, match=r"page\.md: foreworld inspect nowhere"):
        run_page(page, tmp_path)


def test_what_code_lacks_is_found() -> None:
    assert missing("foreworld eval --run runs/first --data episodes") == ["episodes", "runs/first"]
    assert missing("foreworld collect --env E --out episodes\nforeworld inspect episodes") == []
    assert missing('fw.fit(model, data, out="runs/first")') == []


def test_training_on_a_page_is_short() -> None:
    assert commands("foreworld train --steps 500 --out r  # a minute\n") == [
        ["train", "--steps", UPDATES, "--out", "r"]
    ]


def test_every_mark_of_a_page_stands_for_something() -> None:
    used = [mark["name"] for page in PAGES for mark in generated.MARK.finditer((ROOT / page).read_text())]
    assert sorted(used) == sorted(generated.PARTS)


def test_the_command_line_page_has_every_verb_with_its_help_and_an_example() -> None:
    page = generated.fill((DOCS / "cli.md").read_text())
    for verb, what in VERBS.items():
        assert f"| [`{verb}`](#{verb}) | {what} |" in page
        section = page.partition(f"\n## {verb}\n")[2].partition("\n## ")[0]
        assert f"usage: foreworld {verb}" in section
        assert f"example: foreworld {verb}" in section
        assert "--json" in section


def test_the_results_page_has_the_measured_numbers() -> None:
    page = generated.fill((DOCS / "results.md").read_text())
    result = json.loads(generated.DEMO.read_text())["result"]
    for kind in ("horizons", "changed_pixels"):
        for step, cell in result[kind].items():
            numbers = [f"{cell[name]:.2f}" for name in ("model", "copy_last", "mean", "linear", "skill")]
            assert f"| {step} | {' | '.join(numbers)} ({cell['skill_ci_low']:.2f} to " in page
    for step, cell in result["actions"].items():
        assert f"| {step} | {cell['true']:.2f} | {cell['shuffled']:.2f} | {cell['gain']:.2f} (" in page
    assert f"| {result['useful_horizon']} steps |" in page
