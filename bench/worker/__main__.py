"""`python -m bench.worker RUN_FOLDER`: one run in a process of its own, its specification read from spec.json there."""

from __future__ import annotations

import faulthandler
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from bench.processes.lifetime import end_as
from bench.records.events import EVENTS_FILE, EventWriter
from bench.records.json_files import read_json
from bench.records.spec import RunSpec
from bench.worker.loop import PausedError
from bench.worker.pause import PAUSED
from bench.worker.run import failure, run
from strategies.quiet import quiet


@quiet()
def main(arguments: Sequence[str]) -> int:
    """Run the specification in a folder; exit status 0 exactly when the run ended ok, 75 when it paused."""
    folder = Path(arguments[0])
    spec = RunSpec.from_json(read_json(folder / "spec.json"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what was measured is still reported
    faulthandler.enable()  # a segmentation fault says where, in the log
    with closing(EventWriter(folder / EVENTS_FILE)) as emit:
        try:
            run(spec, folder, emit)
        except PausedError:
            return PAUSED
        except Exception as error:  # noqa: BLE001  (any failure is a row: it is recorded, logged and exits non-zero)
            traceback.print_exc()
            status, reason = failure(error)
            emit("end", status=status, reason=reason, at=time.time())
            return 1
        emit("end", status="ok", at=time.time())
        return 0


if __name__ == "__main__":
    end_as(main)
