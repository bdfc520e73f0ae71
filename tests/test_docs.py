"""The Python of the README and of the documentation runs as it stands.

Every ```python block of a page is executed, in order, in one namespace, in an empty folder.
A block that must not run opens with ```python no-run.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *(str(page.relative_to(ROOT)) for page in sorted((ROOT / "docs").glob("**/*.md")))]
BLOCK = re.compile(r"^```python[ ]*$\n(?P<code>.*?)^```[ ]*$", re.MULTILINE | re.DOTALL)


def code_blocks(text: str) -> list[str]:
    """Cut the Python blocks out of a page, each pushed down to its line, so that a traceback points into the page."""
    return ["\n" * text.count("\n", 0, found.start("code")) + found["code"] for found in BLOCK.finditer(text)]


def run_page(page: Path) -> dict[str, object]:
    namespace: dict[str, object] = {"__name__": "__page__"}
    for block in code_blocks(page.read_text()):
        exec(compile(block, str(page), "exec"), namespace)
    return namespace


@pytest.mark.parametrize("page", PAGES)
def test_code_of_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_page(ROOT / page)


def test_blocks_share_a_namespace_in_order(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Page\n```python\na = 1\n```\ntext\n```bash\nexit 1\n```\n```python\na += 1\n```\n")
    assert run_page(page)["a"] == 2


def test_no_run_blocks_are_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python no-run\nraise RuntimeError\n```\n```\nraise RuntimeError\n```\n")
    run_page(page)


def test_a_failing_block_names_page_and_line(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n```python\nok = 1\n1 / 0\n```\n")
    with pytest.raises(ZeroDivisionError) as caught:
        run_page(page)
    last = caught.traceback[-1]
    assert (Path(str(last.path)).name, last.lineno + 1) == ("page.md", 5)
