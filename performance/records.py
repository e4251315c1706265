"""Seconds to collect the records of a sweep and to report them, at 500, 1,000 and 2,000 records.

python performance/records.py [--quick] [--from SWEEP]

Records are those of a committed sweep and copies of them: other ids, another rate each time (so that every copy
is a recipe of its own), three seeds, and figures a few percent away. All are of one setting, so that nothing is
left undrawn. Reporting is `python -m report all`, a process of its own, every figure included.
"""

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from measuring import save, show

from bench.records.collect import collect

ROOT = Path(__file__).resolve().parent.parent
SIZES = (500, 1000, 2000)
SEEDS = 3


def varied(records: list[dict[str, Any]], count: int) -> Iterator[dict[str, Any]]:
    """Give the records, then copies of those that are no controls until there are `count`, in sets of three seeds."""
    rng = random.Random(0)
    recipes = [record for record in records if record["row"]["kind"] != "control" and record["row"]["seed"] == 0]
    yield from records[:count]
    for number in range(count - len(records)):
        copy, place = divmod(number, SEEDS * len(recipes))
        record = json.loads(json.dumps(recipes[place // SEEDS]))
        row = record["row"]
        for name, value in row.items():
            if name.endswith(("_seconds", "_bytes")) or name == "vqa_accuracy":
                row[name] = type(value)(value * rng.uniform(0.95, 1.0))
        run_id = hashlib.sha256(str(number).encode()).hexdigest()[:12]
        rated = {name: f"{row[name]} at rate {copy + 1}" for name in ("strategy", "plan")}
        row |= rated | {"run_id": run_id, "kind": "run", "seed": number % SEEDS}
        yield record | {"run_id": run_id}


def write(records: Iterator[dict[str, Any]], folder: Path) -> None:
    for record in records:
        run = folder / "runs" / record["run_id"]
        run.mkdir(parents=True)
        (run / "record.json").write_text(json.dumps(record, indent=1))


def seconds_of(count: int, records: list[dict[str, Any]]) -> tuple[float, float]:
    """Seconds to collect and to report."""
    with tempfile.TemporaryDirectory() as name:
        write(varied(records, count), Path(name))
        start = time.perf_counter()
        assert len(collect(Path(name))) == count
        collected = time.perf_counter()
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-m", "report", "all", name], env=environment, check=True, capture_output=True)
        return collected - start, time.perf_counter() - collected


def main(source: Path, *, quick: bool) -> None:
    records = [json.loads(file.read_text()) for file in sorted(source.glob("runs/*/record.json"))]
    figures = {}
    for count in (20, 40) if quick else SIZES:
        collecting, reporting = seconds_of(count, records)
        figures[str(count)] = {"collect_seconds": collecting, "report_seconds": reporting}
    show(
        ["records", "collect s", "report s", "both, ms per record"],
        [
            [count, *(f"{value:.2f}" for value in f.values()), f"{1e3 * sum(f.values()) / int(count):.2f}"]
            for count, f in figures.items()
        ],
    )
    save("records", {"source": source.name, "records": len(records), "seconds": figures})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="source", type=Path, default=ROOT / "results" / "embedded-bonus", help="a sweep")
    parser.add_argument("--quick", action="store_true", help="40 records: does it run?")
    main(**vars(parser.parse_args()))
