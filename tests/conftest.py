"""What all tests share: where a real slice of VQA v2 lies, if one is here, and a cache of their own."""

import gc
import os
import signal
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parent.parent
# How long one example takes says who else is at work; where a change is judged, it meets the examples it met before.
PROFILE = {"deadline": None, "derandomize": bool(os.environ.get("CI"))}
if not os.access(ROOT, os.W_OK):
    PROFILE["database"] = None  # hypothesis keeps failures here, and warns where it cannot
hypothesis.settings.register_profile("suite", **PROFILE)
hypothesis.settings.load_profile("suite")
SLICE = "TUNEMATRIX_VQA_SLICE"
NO_SLICE = f"needs a real slice of VQA v2 with its pictures: set {SLICE} to its folder"
IN_SLICE = (
    *(f"v2_{name}.json" for name in ("OpenEnded_mscoco_train2014_questions", "mscoco_train2014_annotations")),
    *(f"v2_{name}.json" for name in ("OpenEnded_mscoco_val2014_questions", "mscoco_val2014_annotations")),
    *("train2014", "val2014", "extra/official_eval_golden.json.gz", "extra/official_norm_golden.json"),
)


def find_slice():
    """Folder of the slice: the one that is named, or the one beside the project, or None where there is neither."""
    beside = ROOT.parent / "shared" / "data" / "vqa_v2_slice"
    named = os.environ.get(SLICE)
    return Path(named).resolve() if named else beside if beside.is_dir() else None


def pytest_configure(config):
    """Refuse a slice that is named or lies beside the project, but is not whole; collect garbage more rarely."""
    gc.set_threshold(100_000, 20, 20)
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
        if signal.getsignal(number) == signal.SIG_IGN:  # a shell's background job; tests interrupt their children
            signal.signal(number, handler)
    folder = find_slice()
    missing = [name for name in IN_SLICE if folder and not (folder / name).exists()]
    if missing:
        what = f"has no {', '.join(missing)}" if folder.is_dir() else "is no folder"
        raise pytest.UsageError(f"{SLICE}: {folder} {what}; name the folder of a slice of VQA v2, or unset it")


def pytest_collection_modifyitems(items):
    """Begin with the files that take longest, shared between two processes: else one waits for the other in the end."""
    if (ROOT / "tests" / "durations.py").exists():  # it does not in copies of this file alone
        from tests.durations import in_halves, recorded

        files = {item.nodeid.partition("::")[0] for item in items}
        place = {file: number for number, file in enumerate(in_halves(files, recorded()))}
        items.sort(key=lambda item: place[item.nodeid.partition("::")[0]])


def pytest_terminal_summary(terminalreporter):
    """Let the summary have one line for each reason to skip tests, and how many: it counts by place and reason."""
    for report in terminalreporter.stats.get("skipped", []):
        if isinstance(report.longrepr, tuple):
            report.longrepr = ("tests", None, report.longrepr[2])


@pytest.fixture(scope="module", autouse=True)
def _what_stays_is_not_searched_for_garbage():
    """Modules and tests are millions of objects: Trainer alone collects after each run, and would take a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _the_environment_is_as_it_was():
    """What libraries set in it (Trainer does) would keep children from being forks."""
    before = dict(os.environ)
    yield
    for name in {*before, *os.environ}:
        if not name.startswith("PYTEST_") and os.environ.get(name) != before.get(name):
            os.environ.pop(name, None)
            os.environ.update({name: before[name]} if name in before else {})


@pytest.fixture(scope="session")
def root():
    return ROOT


@pytest.fixture(scope="session")
def slice_dir():
    """Folder of the real slice; without one the test is skipped, with REQUIRE_SLICE=1 it fails."""
    folder = find_slice()
    if folder is None and os.environ.get("REQUIRE_SLICE", "0") not in ("", "0"):
        pytest.fail(f"{NO_SLICE}, or REQUIRE_SLICE to 0", pytrace=False)
    if folder is None:
        pytest.skip(NO_SLICE)
    return folder


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """A cache of its own for every test session, so that tests see a fresh machine."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("TUNEMATRIX_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory, worker_id):
    """A folder for what one test makes and another looks at, in whatever processes they run."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def forks():
    """A server with what runs import: runs, looks at a sweep and commands started in this process are its forks."""
    from bench.processes.start import fork_server
    from bench.sweep.child_processes import modules_to_preload
    from bench.task import DEFAULT_TASK
    from strategies import parse_plans

    with fork_server(modules_to_preload(DEFAULT_TASK, parse_plans("lora, qlora"))):
        yield


@pytest.fixture(scope="session")
def run_matrix(forks):
    """`run_matrix.py` as a function of its words, and of `cwd` where it is not the project's folder."""
    from tests.command_line import run_matrix

    return lambda *words, cwd=ROOT: run_matrix(*words, cwd=cwd)
