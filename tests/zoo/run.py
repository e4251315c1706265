"""Runs the zoo: two processes an architecture, one that trains all plans and a fresh one that loads what it saved.

Both are forks of a server that has imported everything and trained nothing. A process that dies or takes too long is a
fault of the plan it was at; another one goes on with the rest.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from bench.processes.environment import child_environment
from bench.processes.start import fork_server, kill_group, start, wait_for_server

MODULES = ("peft.tuners", "bitsandbytes", "torchao.optim", "schedulefree", "tests.zoo.trial")
PROCESSES = 2
LONGEST_SECONDS = 600  # of one phase of an architecture
REST_SECONDS = 0.02
CANNOT_READ = 2  # a row of the zoo is wrong


class Case(NamedTuple):
    """An architecture under a plan: "ok", "refused" with the reason, or "fault" with all that is wrong."""

    architecture: str
    plan: str
    outcome: str
    reason: str = ""
    seconds: float = 0.0


class Child:
    """A process at one phase of an architecture."""

    def __init__(self, phase, name, folder, texts):
        self.phase, self.name, self.folder, self.texts = phase, name, Path(folder), list(texts)
        self.began = time.monotonic()
        self.log = (self.folder / f"{phase}.log").open("ab")
        arguments = [phase, name, str(folder), *texts]
        number = self.log.fileno()
        environment = child_environment({"OMP_NUM_THREADS": "1"})
        self.process = start("tests.zoo.trial", arguments, environment, output=number, errors=number)

    def status(self):
        """Give the exit status, None while it runs; a process that takes too long is ended."""
        if self.process.poll() is None and time.monotonic() - self.began > LONGEST_SECONDS:
            kill_group(self.process)
        return self.process.poll()

    def told(self):
        """Give what it has found so far, plan → line."""
        self.log.close()
        file = self.folder / f"{self.phase}.jsonl"
        lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        return {line["plan"]: line for line in lines}

    def last_words(self):
        lines = (self.folder / f"{self.phase}.log").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""


class Architecture:
    """What is left to do for an architecture, and what came of it."""

    def __init__(self, name, texts, folder):
        self.name, self.texts = name, list(texts)
        self.folder = Path(folder) / name
        self.folder.mkdir(parents=True)
        self.found = {}

    def next(self, ended=None):
        """Give the process that comes next, or None; `ended` is the one before."""
        phase = ended.phase if ended else "train"
        if ended:
            told, status = ended.told(), ended.process.returncode
            if status == CANNOT_READ:
                raise ValueError(ended.last_words())
            left = [text for text in ended.texts if text not in told]
            if left:
                line = {"plan": left[0], "outcome": "fault", "seconds": 0.0}
                line["reasons"] = [f"its process ended with {status}: {ended.last_words()}"]
                with (self.folder / f"{phase}.jsonl").open("a") as file:
                    print(json.dumps(line), file=file)
                told[left[0]], left = line, left[1:]
            self.found[phase] = told
            if left:
                return Child(phase, self.name, self.folder, left)
            if phase == "load":
                return None
            phase = "load"
        texts = self.texts if phase == "train" else [text for text in self.texts if self.is_saved(text)]
        return Child(phase, self.name, self.folder, texts) if texts else None

    def is_saved(self, text):
        """Say whether a plan came as far as being saved, right or wrong."""
        from tests.zoo.plans import PLANS
        from tests.zoo.trial import place

        return (self.folder / f"{place(PLANS[text])}.pt").exists()

    def cases(self):
        """Give the outcome of every plan: that of loading, where training was right."""
        for text in self.texts:
            lines = [self.found[phase][text] for phase in ("train", "load") if text in self.found.get(phase, {})]
            outcomes = [line["outcome"] for line in lines]
            outcome = next((one for one in ("fault", "refused") if one in outcomes), "ok")
            if outcomes[1:] == ["refused"]:  # what was saved can be loaded
                outcome = "fault"
            reasons = [reason for line in lines for reason in line["reasons"]]
            yield Case(self.name, text, outcome, "; ".join(reasons), sum(line["seconds"] for line in lines))


def run(wanted, *, processes=PROCESSES, progress=lambda architecture, cases: None):
    """Try plans on architectures, some at a time; gives the cases. `wanted`: architecture → plans, as their words."""
    cases = {}
    with tempfile.TemporaryDirectory(prefix="zoo-") as folder, fork_server(MODULES):
        wait_for_server()
        waiting = [Architecture(name, texts, folder) for name, texts in wanted.items() if texts]
        working = {}
        try:
            while waiting or working:
                while waiting and len(working) < processes:
                    architecture = waiting.pop(0)
                    working[architecture] = architecture.next()
                time.sleep(REST_SECONDS)
                for architecture, child in list(working.items()):
                    if child.status() is None:
                        continue
                    working[architecture] = architecture.next(child)
                    if working[architecture] is None:
                        del working[architecture]
                        cases[architecture.name] = list(architecture.cases())
                        progress(architecture.name, cases[architecture.name])
        finally:
            for child in working.values():
                kill_group(child.process)
    return [case for name in wanted for case in cases.get(name, ())]
