"""What cannot be done is told in one line that says what to do instead."""

import os
import shutil
import subprocess
import sys

import pytest

CLOSED = "http://127.0.0.1:9/simple"


@pytest.fixture(scope="module")
def place(copy_of):
    return copy_of()


def first_lines(said):
    """What is said, but for make's own last line."""
    return [line for line in said.splitlines() if line and not line.startswith("make")]


def refused(stranger, place, *words, **names):
    code, said = stranger.make(place, "setup", *words, **names)
    assert code != 0
    lines = first_lines(said)
    assert "Traceback" not in said
    return lines


def test_python_out_of_range(stranger, place, foreign_python):
    (line,) = refused(stranger, place, f"PYTHON={foreign_python}")
    assert "TuneMatrix needs Python 3.10 to 3.14" in line
    assert "make PYTHON=" in line


def test_no_such_python(stranger, place):
    (line,) = refused(stranger, place, "PYTHON=python3.99")
    assert "there is no python3.99 here" in line


def test_a_build_of_torch_that_does_not_exist(stranger, place):
    (line,) = refused(stranger, place, "TORCH=gpu")
    assert line == "TORCH=gpu: there are cpu and cuda; leave it out to let the machine decide"


def test_debian_without_its_package_for_environments(place, bare):
    """As Debian ships Python: venv is there, ensurepip is not."""
    program = "import runpy, sys; sys.modules['ensurepip'] = None; sys.argv = sys.argv[1:]; "
    program += "runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", program, "install/environment.py", "elsewhere", "--torch", "cpu"]
    done = subprocess.run(command, cwd=place, env=bare, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    package = f"python3.{sys.version_info[1]}-venv"
    assert done.stderr.strip().endswith(f"cannot make environments: on Debian and Ubuntu, apt install {package}")
    assert not (place / "elsewhere").exists()


def test_a_disk_that_is_too_small(place, bare, tmp_path):
    mount = f"mount -t tmpfs -o size=50m none '{tmp_path}' && exec '{sys.executable}' install/environment.py"
    apart = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"]), "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*apart, "true"], capture_output=True, check=False).returncode:
        pytest.skip("a small disk needs unshare, which is not allowed here")
    command = [*apart, f"{mount} '{tmp_path}/venv' --torch cpu"]
    done = subprocess.run(command, cwd=place, env=bare, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "needs 2,800 MB of disk while it is made; 50 MB are free there" in done.stderr


def test_no_network(stranger, place):
    names = {"PIP_INDEX_URL": CLOSED, "PIP_RETRIES": "0", "PIP_NO_CACHE_DIR": "1", "PIP_CONFIG_FILE": os.devnull}
    lines = refused(stranger, place, "TORCH=cuda", without=("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"), **names)
    assert lines[-1].startswith("pip reached no package index")
    assert "install.log" in lines[-1]


def test_no_cpu_build_where_one_was_asked_for(stranger, place):
    names = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1"}
    lines = refused(stranger, place, "TORCH=cpu", f"CPU_INDEX={CLOSED}", without=("PIP_FIND_LINKS",), **names)
    assert lines[-1].startswith(f"TORCH=cpu: {CLOSED} cannot be reached; CPU_INDEX=… names another place")
