"""The rooms and the one direction through them: who may import whom, how folders are laid out, what stays public."""

import ast
import importlib.util
import re
from itertools import permutations
from pathlib import Path

import pytest

import strategies
from strategies import catalogue, recipes

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("bench", "report", "strategies", "vqa_model")
ARROWS = {
    "strategies": {"strategies"},
    "vqa_model": {"vqa_model"},
    "bench": {"bench", "strategies"},
    "report": {"report", "bench.records.record", "bench.records.json_files"},
}
# Folders and top-level files of each package, from the top down: imports, type-only ones too, run down this order.
ORDER = {
    "bench": ("bench", "commands", "sweep", "worker", "forecast", "processes", "records", "task"),
    "report": (
        "report", "__main__", "check", "rendered", "write",
        "page", "paper", "text", "figures", "frames", "files", "errors",
    ),
    "strategies": (
        "strategies", "compatibility", "cards", "recipe", "prediction", "integrations", "training", "saving",
        "language", "methods", "structure", "quiet", "protocol", "execution", "layout", "options", "errors",
    ),
    "vqa_model": (
        "vqa_model", "demo", "describe", "download", "find_data", "inspect", "predict", "pretrain", "score", "task",
        "options", "controls", "commands", "answering", "inspection", "downloading", "pretraining", "modeling", "data",
        "picture_world", "cache_folder", "quiet",
    ),
}  # fmt: skip
MOST_MODULES = 15
CATALOGUE = ROOT / "strategies" / "methods"  # one file a method, so as many as there are
COMMAND_LINES = 80  # of a file that is `python -m vqa_model.<verb>`
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
FOLDERS = sorted({path.parent for path in FILES})
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "Makefile",
    ".ci/run",
    *(f"docs/{path.name}" for path in ROOT.glob("docs/*.md")),
)


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def imports(node):
    """Give the first-party modules that an import statement names."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        inner = [f"{node.module}.{alias.name}" for alias in node.names]
        names = [name if name in MODULES else node.module for name in inner]
    else:
        names = []
    return [name for name in names if name.split(".")[0] in ROOMS]


TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
IMPORTED = {
    module: {name for node in ast.walk(TREES[path]) for name in imports(node)} - {module}
    for module, path in MODULES.items()
}


def place_of(module):
    package, *rest = module.split(".")
    return ORDER[package].index(rest[0] if rest else package)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_arrows(path):
    allowed = ARROWS[path.relative_to(ROOT).parts[0]]
    for node in ast.walk(TREES[path]):
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"line {node.lineno}: relative import"
        for name in imports(node):
            assert name in allowed or name.split(".")[0] in allowed, f"line {node.lineno}: no arrow to {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_first_party_import_hides_in_a_function(path):
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            hidden = [name for inner in ast.walk(node) for name in imports(inner)]
            assert not hidden, f"{node.name} (line {node.lineno}) imports {hidden}"


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_down_the_order(module):
    inside = [name for name in IMPORTED[module] if name.split(".")[0] == module.split(".")[0]]
    up = [name for name in inside if place_of(name) < place_of(module)]
    assert not up, f"{module} imports {up}, which stand above it"


def test_no_circle_of_files():
    left = {module: names & MODULES.keys() for module, names in IMPORTED.items()}
    while ends := [module for module, names in left.items() if not names & left.keys()]:
        for module in ends:
            del left[module]
    assert not left, f"these import each other, or what does: {sorted(left)}"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_folder_holds_few_modules_and_says_what_lives_there(folder):
    modules = [path for path in folder.glob("*.py") if path.stem != "__init__"]
    assert len(modules) <= MOST_MODULES or folder.parent == CATALOGUE
    init = folder / "__init__.py"
    assert init in TREES, "no __init__.py"
    told = (ast.get_docstring(TREES[init]) or "").splitlines()
    assert told, "its __init__.py does not say what lives there"
    if folder.parent != ROOT:
        assert re.search(r"[Ii]mport", " ".join(told)), "its __init__.py does not say what may enter"
        assert len(told) <= MOST_MODULES // 2
        assert len(TREES[init].body) == 1, "an __init__.py holds no code"


@pytest.mark.parametrize(
    "folder", [f for f in FOLDERS if f.parent != CATALOGUE], ids=lambda path: str(path.relative_to(ROOT))
)
def test_no_near_homonyms_among_siblings(folder):
    for kind in (folder.glob("*.py"), (path for path in folder.glob("*/") if (path / "__init__.py").exists())):
        names = sorted(path.stem for path in kind)
        for one, other in permutations(names, 2):
            ending = other[len(one) - 1 :]
            assert not (len(one) > 3 and other.startswith(one[:-1]) and "_" not in ending), f"{one} and {other}"


def test_commands_are_thin():
    for path in (ROOT / "vqa_model").glob("*.py"):
        if '__name__ == "__main__"' in path.read_text(encoding="utf-8"):
            functions = [node.name for node in TREES[path].body if isinstance(node, ast.FunctionDef)]
            assert set(functions) <= {"make_parser", "main"}, path
            assert len(path.read_text(encoding="utf-8").splitlines()) <= COMMAND_LINES, path


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_stay_small(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 250
    assert path.name != "utils.py"


def test_bench_names_no_method():
    words = set(catalogue()) | set(recipes())
    for path in sorted((ROOT / "bench").rglob("*.py")):
        for node in ast.walk(TREES[path]):
            if isinstance(node, ast.Compare | ast.Match | ast.If | ast.IfExp):
                named = {
                    n.value
                    for n in ast.walk(getattr(node, "test", node))
                    if isinstance(n, ast.Constant) and isinstance(n.value, str)
                }
                assert not named & words, f"{path.name} line {node.lineno} decides on {named & words}"


def test_every_python_file_says_what_room_it_is():
    for path in FILES:
        assert ast.get_docstring(TREES[path]), path


def test_contributing_lists_every_room():
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for folder in FOLDERS:
        purpose = ast.get_docstring(TREES[folder / "__init__.py"]).splitlines()[0].removesuffix(".")
        assert re.search(rf"^{folder.relative_to(ROOT)}/ +{re.escape(purpose)}$", page, re.MULTILINE), folder


def test_tests_mirror_the_packages():
    tests = ROOT / "tests"
    tested = {path.parent.relative_to(tests) for room in ROOMS for path in (tests / room).rglob("test_*.py")}
    folders = {folder.relative_to(ROOT): [p for p in folder.glob("*.py") if p.stem != "__init__"] for folder in FOLDERS}
    strange, untested = tested - folders.keys(), {folder for folder, modules in folders.items() if modules} - tested
    assert not strange, f"tests of no folder: {sorted(map(str, strange))}"
    assert not untested, f"folders without tests: {sorted(map(str, untested))}"


def test_public_paths_stay():
    assert all(hasattr(strategies, name) for name in strategies.__all__)
    for module in ("vqa_model.task", "bench.task", "strategies.protocol", "strategies.options", "strategies.errors"):
        assert module in MODULES
    assert 'tunematrix = "bench.commands.cli:main"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def check_command(module):
    """`python -m module` is there and runs something."""
    where = importlib.util.find_spec(module)
    assert where, f"python -m {module}: no such module"
    runs = Path(where.origin)
    runs = runs.with_name("__main__.py") if runs.stem == "__init__" else runs
    assert '__name__ == "__main__"' in runs.read_text(encoding="utf-8"), f"python -m {module} runs nothing"


@pytest.mark.parametrize("page", PAGES)
def test_commands_that_pages_name_are_there(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for module in set(re.findall(r"-m ([a-z_]+(?:\.[a-z_]+)*)", text)):
        if module.split(".")[0] in ROOMS:
            check_command(module)
    for name in re.findall(r"(?<![\w./])((?:bench|report|strategies|vqa_model|tests)/[\w/.]+\.py)", text):
        assert (ROOT / name).is_file(), f"{name}: no such file"


def test_commands_that_code_starts_are_there():
    folders = [*ROOMS, "tests", "performance", "examples"]
    texts = [path.read_text(encoding="utf-8") for folder in folders for path in (ROOT / folder).rglob("*.py")]
    started = r'(?:"-m",\s*|run_child\(|WORKER: Final = )"([a-z_.]+)"'
    modules = {module.removesuffix(".__main__") for text in texts for module in re.findall(started, text)}
    ours = {module for module in modules if module.split(".")[0] in ROOMS}
    assert {"bench.worker", "bench.sweep.prepare", "bench.processes.server", "report"} <= ours
    for module in ours:
        check_command(module)
