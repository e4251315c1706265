"""The wheel, in an environment without the project: everything in it, types for consumers, and a run.

Around it are the packages that `make setup` installed; that the wheel asks for these and for no others is tested.
"""

import csv
import re
import runpy
import subprocess
import sys
import tarfile
import zipfile

import pytest
from packaging.specifiers import SpecifierSet

ROOMS = ("bench", "report", "strategies", "vqa_model")
INDEX_PAGE = '<!DOCTYPE html><html><body><a href="{name}">{name}</a></body></html>'
CONSUMER = """\
from bench.records.record import schema_markdown
from report.frames.results import load
from strategies import compose
from vqa_model.task import VQATask

reveal_type(compose("lora"))
page: int = schema_markdown()
load(1)
VQATask(sizee=3)
"""


@pytest.fixture(scope="module")
def built(copy_of, bare, tmp_path_factory):
    """The sdist, and the wheel made from it and from nothing else."""
    out = tmp_path_factory.mktemp("dist")
    make = f"from setuptools.build_meta import build_sdist; build_sdist({str(out)!r})"
    subprocess.run([sys.executable, "-c", make], cwd=copy_of(), env=bare, check=True, capture_output=True)
    (sdist,) = out.glob("*.tar.gz")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(out), str(sdist)]
    subprocess.run(command, cwd=out, env=bare, check=True, capture_output=True)
    (wheel,) = out.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def torch_wheel(root, bare, large_folder):
    """PyTorch's CPU build for this Python, as a file, from its index or from where pip is told to look."""
    folder = large_folder("torch")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--constraint", "constraints.txt"]
    command += ["--index-url", runpy.run_path(str(root / "install/environment.py"))["CPU_INDEX"], "--retries", "1"]
    subprocess.run([*command, "--dest", str(folder), "torch"], cwd=root, env=bare, check=False, capture_output=True)
    wheels = list(folder.glob("*+cpu-*.whl"))
    if not wheels:
        pytest.skip("no CPU build of torch for this Python can be had here")
    return wheels[0]


@pytest.fixture(scope="module")
def installed(built, packages_for_runs, root, bare):
    """The programs of an environment into which pip installed the wheel, and found all that it asks for."""
    command = [str(packages_for_runs / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check"]
    command += ["--constraint", str(root / "constraints.txt"), str(built[1])]
    done = subprocess.run(command, cwd=built[1].parent, env=bare, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "Successfully installed tunematrix-0.1.0"
    return packages_for_runs / "bin"


def metadata_in(wheel):
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith("METADATA")]
    return archive.read(name).decode()


def test_wheel_and_sdist_hold_every_file_that_git_has(built, root):
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "--deduplicate", *ROOMS],
        cwd=root, capture_output=True, text=True, check=True,
    )  # fmt: skip
    files = {name for name in listed.stdout.splitlines() if (root / name).is_file()}
    assert {"bench/forecast/gpus.json", *(f"{room}/py.typed" for room in ROOMS)} <= files
    held = {name for name in zipfile.ZipFile(built[1]).namelist() if name.partition("/")[0] in ROOMS}
    assert held == files
    with tarfile.open(built[0]) as archive:
        source = {name.partition("/")[2] for name in archive.getnames()}
    assert files <= source
    assert zipfile.ZipFile(built[1]).namelist().count("run_matrix.py") == 1


def test_what_the_wheel_says_of_itself(built):
    text = metadata_in(built[1])
    (asked,) = re.findall(r"^Requires-Python: (.*)$", text, re.MULTILINE)
    assert SpecifierSet(asked) == SpecifierSet(">=3.10,!=3.14.1,<3.15")
    assert not re.search(r"^Requires-Dist: (pytest|selenium|mypy)(?!.*extra ==)", text, re.MULTILINE)


def test_it_asks_for_what_set_up_installed(built, clone):
    (known,) = clone.site_packages.glob("tunematrix-*.dist-info/METADATA")
    asked, known = (
        set(re.findall(r"^Requires-.*$", text, re.MULTILINE)) for text in (metadata_in(built[1]), known.read_text())
    )
    assert asked == known
    assert len(asked) > 20


def test_it_runs_in_an_empty_folder(installed, bare, tmp_path):
    command = [str(installed / "tunematrix"), "--strategies", "lora", "--max-steps", "5"]
    done = subprocess.run(command, cwd=tmp_path, env=bare, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (runs,) = (tmp_path / "results" / "local").rglob("runs.csv")
    with runs.open() as file:
        status = {row["strategy"]: row["status"] for row in csv.DictReader(file)}
    assert status["lora"] == "ok"
    assert set(status.values()) == {"ok"}
    assert list((runs.parent / "figures").glob("*.png"))


def test_nothing_in_it_contradicts_itself(installed, bare, tmp_path):
    done = subprocess.run(
        [str(installed / "python"), "-m", "pip", "check"],
        cwd=tmp_path, env=bare, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_a_consumers_mypy_sees_the_types(installed, bare, tmp_path):
    (tmp_path / "consumer.py").write_text(CONSUMER)
    command = [sys.executable, "-m", "mypy", "--python-executable", str(installed / "python"), "--no-error-summary"]
    done = subprocess.run(
        [*command, "consumer.py"], cwd=tmp_path, env=bare, capture_output=True, text=True, check=False
    )
    told = {int(line.split(":")[1]): line for line in done.stdout.splitlines() if line.startswith("consumer.py")}
    assert sorted(told) == [6, 7, 8, 9], done.stdout
    assert "strategies." in told[6]
    assert 'has type "str"' in told[7]
    assert 'incompatible type "int"' in told[8]
    assert "sizee" in told[9]


def test_pip_takes_the_cpu_build_for_the_pinned_torch(torch_wheel, root, bare, tmp_path):
    """By pip's rules 2.13.0+cpu satisfies torch==2.13.0, and goes before PyPI's 2.13.0 where both are listed."""
    index = tmp_path / "index" / "torch"
    index.mkdir(parents=True)
    (index / torch_wheel.name).symlink_to(torch_wheel)
    (index / "index.html").write_text(INDEX_PAGE.format(name=torch_wheel.name))
    environment = {name: value for name, value in bare.items() if name != "PIP_FIND_LINKS"}
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-deps", "--constraint"]
    for option in ("--index-url", "--extra-index-url"):
        done = subprocess.run(
            [*command, "constraints.txt", option, index.parent.as_uri(), "torch"],
            cwd=root, env={**environment, "PIP_CONFIG_FILE": "/dev/null"}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.stdout.splitlines()[-1] == "Would install torch-2.13.0+cpu", done.stdout + done.stderr
