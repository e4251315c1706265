"""The rooms and the one direction through them: who may import whom, and no hidden arrows."""

import ast
from pathlib import Path

import pytest

from strategies import catalogue, recipes

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("bench", "report", "strategies", "vqa_model")
ARROWS = {
    "strategies": {"strategies"},
    "vqa_model": {"vqa_model"},
    "bench": {"bench", "strategies"},
    "report": {"report", "bench.records.record"},
}
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def imports(node):
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        return [node.module]
    return []


def first_party(names):
    return [name for name in names if name.split(".")[0] in ROOMS]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_arrows(path):
    allowed = ARROWS[path.relative_to(ROOT).parts[0]]
    for node in ast.walk(ast.parse(path.read_text())):
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"line {node.lineno}: relative import"
        for name in first_party(imports(node)):
            assert name in allowed or name.split(".")[0] in allowed, f"line {node.lineno}: no arrow to {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_first_party_import_hides_in_a_function(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            hidden = [name for inner in ast.walk(node) for name in first_party(imports(inner))]
            assert not hidden, f"{node.name} (line {node.lineno}) imports {hidden}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_stay_small(path):
    assert len(path.read_text().splitlines()) <= 250
    assert path.name != "utils.py"


def test_bench_names_no_method():
    words = set(catalogue()) | set(recipes())
    for path in sorted((ROOT / "bench").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare | ast.Match | ast.If | ast.IfExp):
                named = {
                    n.value
                    for n in ast.walk(getattr(node, "test", node))
                    if isinstance(n, ast.Constant) and isinstance(n.value, str)
                }
                assert not named & words, f"{path.name} line {node.lineno} decides on {named & words}"


def test_every_python_file_says_what_room_it_is():
    for path in FILES:
        assert ast.get_docstring(ast.parse(path.read_text())), path
