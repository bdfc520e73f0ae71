"""The rules of the house: sizes, docstrings, annotations, names, nothing unsafe, imports that do nothing."""

from __future__ import annotations

import ast
import os
import re
import resource
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "foreworld"
MODULES = sorted(PACKAGE.rglob("*.py"))

MODULE_LINES = 600
FUNCTION_LINES = 80
BANNED_WORDS = {"util", "utils", "helper", "helpers", "manager", "misc"}
BANNED_NAMES = {"info_dict", "data_dict"}
PICKLERS = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
CALLS = {"eval", "exec", "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "torch.load"}
CALLS |= {"yaml.load", "yaml.unsafe_load", "yaml.full_load", "compile", "__import__", "builtins.eval", "builtins.exec"}
KEYWORDS = {"shell": False, "allow_pickle": False, "weights_only": True}

Function = ast.FunctionDef | ast.AsyncFunctionDef
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def sizes(tree: ast.Module, source: str) -> Iterator[str]:
    """Find modules and functions that are too long."""
    if (lines := source.count("\n")) > MODULE_LINES:
        yield f"1: module of {lines} lines, at most {MODULE_LINES}"
    for node in ast.walk(tree):
        if isinstance(node, Function) and (lines := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES:
            yield f"{node.lineno}: {node.name} has {lines} lines, at most {FUNCTION_LINES}"


def public(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Walk the public functions and classes of a module and of its public classes."""
    for node in body:
        if isinstance(node, DEFINITIONS) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body)


def undocumented(tree: ast.Module) -> Iterator[str]:
    """Find public modules, classes and functions without docstring or without full annotations."""
    if not ast.get_docstring(tree):
        yield "1: the module has no docstring"
    for node in public(tree.body):
        if not ast.get_docstring(node):
            yield f"{node.lineno}: {node.name} has no docstring"
        if isinstance(node, Function):
            yield from (f"{node.lineno}: {node.name}: {name} has no annotation" for name in unannotated(node))


def unannotated(node: Function) -> Iterator[str]:
    args = node.args
    for arg in [*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg]:
        if arg is not None and arg.annotation is None and arg.arg not in ("self", "cls"):
            yield arg.arg
    if node.returns is None:
        yield "the return"


def words(name: str) -> set[str]:
    """Split a name in either case style into its words: `DataManager` is data and manager."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


def empty_names(tree: ast.Module, path: Path) -> Iterator[str]:
    """Find names that say nothing."""
    defined = [(1, part) for part in path.with_suffix("").parts]
    for node in ast.walk(tree):
        if isinstance(node, DEFINITIONS):
            defined.append((node.lineno, node.name))
        elif isinstance(node, ast.arg):
            defined.append((node.lineno, node.arg))
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            defined.append((node.lineno, node.id))
    for line, name in defined:
        if words(name) & BANNED_WORDS or name in BANNED_NAMES:
            yield f"{line}: {name} says nothing; name what it does"


def unsafe(tree: ast.Module) -> Iterator[str]:
    """Find what could execute data: pickles, eval, exec, shells."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            origin = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names = {part.split(".")[0] for part in origin + [alias.name for alias in node.names]}
            yield from (f"{node.lineno}: {name} executes what it loads" for name in sorted(names & PICKLERS))
        elif isinstance(node, ast.Call):
            if (called := ast.unparse(node.func)) in CALLS:
                yield f"{node.lineno}: {called}() is not allowed"
            for keyword in node.keywords:
                safe = KEYWORDS.get(keyword.arg or "")
                if safe is not None and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is safe):
                    yield f"{node.lineno}: {keyword.arg} must be {safe}"


def through_the_root(tree: ast.Module) -> Iterator[str]:
    """Find imports of the package's own root: its lazy names would slip past the layer contracts."""
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")} | {"__version__"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and any(alias.name == "foreworld" for alias in node.names):
            yield f"{node.lineno}: import the module that defines the name, not foreworld"
        elif isinstance(node, ast.ImportFrom) and node.module == "foreworld":
            lazy = sorted({alias.name for alias in node.names} - folders)
            yield from (f"{node.lineno}: import {name} from the module that defines it, not foreworld" for name in lazy)


def violations(source: str, path: Path = Path("module.py")) -> list[str]:
    tree = ast.parse(source)
    found = [
        *sizes(tree, source),
        *undocumented(tree),
        *empty_names(tree, path),
        *unsafe(tree),
        *through_the_root(tree),
    ]
    return [f"{path}:{line}" for line in found]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_keeps_the_rules(path: Path) -> None:
    assert violations(path.read_text(), path.relative_to(ROOT)) == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = 1\n", "the module has no docstring"),
        ('"""M."""\n' + "x = 1\n" * 600, "module of 601 lines"),
        ('"""M."""\ndef _f():\n' + "    x = 1\n" * 80, "_f has 81 lines"),
        ('"""M."""\nclass A:\n    """A."""\n    def f(self) -> None: ...\n', "f has no docstring"),
        ('"""M."""\ndef f(x, *a: int) -> None:\n    """F."""\n', "f: x has no annotation"),
        ('"""M."""\nasync def f(x: int):\n    """F."""\n', "f: the return has no annotation"),
        ('"""M."""\nclass _DataManager: ...\n', "_DataManager says nothing"),
        ('"""M."""\ninfo_dict = {}\n', "info_dict says nothing"),
        ('"""M."""\nfrom pickle import loads\n', "pickle executes"),
        ('"""M."""\nimport numpy, dill\n', "dill executes"),
        ('"""M."""\neval("1")\n', "eval() is not allowed"),
        ('"""M."""\nimport yaml\nyaml.load("x")\n', "yaml.load() is not allowed"),
        ('"""M."""\nload("x", weights_only=flag)\n', "weights_only must be True"),
        ('"""M."""\nimport os\nos.system("ls")\n', "os.system() is not allowed"),
        ('"""M."""\nrun("ls", shell=True)\n', "shell must be False"),
        ('"""M."""\nnp.load("x", allow_pickle=flag)\n', "allow_pickle must be False"),
        ('"""M."""\nload("x", weights_only=False)\n', "weights_only must be True"),
        ('"""M."""\nimport foreworld as fw\n', "not foreworld"),
        ('"""M."""\nfrom foreworld import RSSM, __version__, core\n', "import RSSM from"),
    ],
)
def test_the_rules_catch(source: str, expected: str) -> None:
    found = violations(source)
    assert len(found) == 1
    assert expected in found[0]


def test_the_rules_let_pass() -> None:
    source = (
        '"""M."""\n'
        "from contextlib import contextmanager\n"
        "def train(model: Module, *, steps: int = 1, **extra: int) -> None:\n"
        '    """Train."""\n'
        "    model.eval()\n"
        "    run(['ls'], shell=False)\n"
        "def _inner(x): ...\n"
    )
    assert violations(source) == []


def test_a_module_name_must_say_something() -> None:
    assert len(violations('"""M."""\n', Path("src/foreworld/nn/utils.py"))) == 1


def test_layer_contract_knows_every_folder_that_must_not_know_families() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    contract = next(c for c in contracts if c.get("forbidden_modules") == ["foreworld.models"])
    folders = ("plan", "agents", "eval", "rollout", "train")
    there = {name for name in folders if (PACKAGE / name / "__init__.py").exists()}
    assert {module.removeprefix("foreworld.") for module in contract["source_modules"]} == there


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-B", "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


HEAVY = "{'torch', 'numpy', 'gymnasium', 'av'} & set(sys.modules)"


def test_importing_the_package_loads_nothing_heavy() -> None:
    done = python(f"import sys, foreworld; print(sorted({HEAVY}))")
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


HELP = f"""
import sys
sys.argv = ["foreworld", "--help"]
from foreworld.cli.main import main
try:
    code = main()
except SystemExit as end:
    code = end.code
print("heavy:", sorted({HEAVY}), "code:", code or 0)
"""


def test_help_answers_at_once_without_torch() -> None:
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = python(HELP)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert done.stdout.endswith("heavy: [] code: 0\n"), done.stdout + done.stderr
    assert min(seconds) < 0.5


QUIET = """
import contextlib, importlib, os, pkgutil, sys
for name in sys.argv[2:]:
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
acts = ("socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.mkdir",
        "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink", "shutil.", "urllib.", "tempfile.")
found = []
def audit(event, args):
    if event.startswith(acts):
        found.append((event, args))
    elif event == "open":
        path, mode, flags = args
        if set(mode or "") & set("wax+") or (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            found.append((event, args))
sys.addaudithook(audit)
import foreworld
names = [sys.argv[1]] if sys.argv[1] else [
    m.name for m in pkgutil.walk_packages(foreworld.__path__, "foreworld.") if not m.name.endswith(".__main__")
]
for name in names:
    importlib.import_module(name)
quiet = not found
os.write(1, f"{len(names)} modules, {'quiet' if quiet else found}".encode())
"""


def third_parties() -> list[str]:
    """Name the top-level packages that the package imports, so that only its own acts are seen."""
    found = set()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module)
    return sorted(name for name in found if name.split(".")[0] not in ("foreworld", "__future__"))


def test_importing_opens_no_socket_starts_no_process_writes_no_file() -> None:
    done = python(QUIET, "", *third_parties())
    expected = len([path for path in MODULES if path.name != "__main__.py"]) - 1  # the root itself is not walked
    assert done.stdout == f"{expected} modules, quiet", done.stdout + done.stderr


def test_the_audit_sees_a_module_that_acts(tmp_path: Path) -> None:
    (tmp_path / "acting.py").write_text(f"open({str(tmp_path / 'made')!r}, 'w').close()\n")
    command = [sys.executable, "-B", "-c", QUIET, "acting"]
    search = os.pathsep.join([str(tmp_path), str(ROOT / "src")])
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": search}, check=True)
    assert done.stdout.startswith("1 modules, [('open'")
