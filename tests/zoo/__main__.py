"""The zoo: `python -m tests.zoo` tries every plan on every architecture and writes docs/models.md.

`--only` and `--plans` take regular expressions and try a part; then no page is written. The exit status is 1 where
there is a fault, where more than a tenth is refused, and where one reason stops more than twenty architectures.
"""

import argparse
import re
import sys
import time
from collections import Counter
from pathlib import Path

from tests.zoo.page import DOCS, PAGE, as_csv, counts, failures, kind_of_reason, wanted, write
from tests.zoo.run import run


def main():
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m tests.zoo", description=__doc__)
    parser.add_argument("--only", metavar="REGEX", default="", help="architectures to try, by name")
    parser.add_argument("--csv", metavar="FILE", type=Path, help="write the cases here, too")
    parser.add_argument("--plans", metavar="REGEX", default="", help="plans to try, as they are written")
    options = parser.parse_args()
    chosen = {
        name: [text for text in texts if re.search(options.plans, text)]
        for name, texts in wanted().items()
        if re.search(options.only, name)
    }
    began, number = time.monotonic(), 0

    def progress(name, cases):
        nonlocal number
        number += 1
        bad = [case for case in cases if case.outcome == "fault"]
        ok = sum(case.outcome == "ok" for case in cases)
        seconds = sum(case.seconds for case in cases)
        print(f"{number:>3} of {len(chosen)} {name}: {ok} of {len(cases)} ok, {len(bad)} faults, {seconds:.0f} s")
        for case in bad:
            print(f"      {case.plan}: {case.reason}")
        sys.stdout.flush()

    cases = run(chosen, progress=progress)
    if not cases:
        parser.error("nothing to try")
    print(f"{counts(cases)}; {time.monotonic() - began:.0f} s")
    if not (options.only or options.plans):
        write(cases, DOCS)
        print(f"written to {DOCS / PAGE}")
    if options.csv:
        options.csv.write_text(as_csv(cases), encoding="utf-8")
    kinds = Counter(
        kind_of_reason(line) for case in cases if case.outcome == "fault" for line in case.reason.split("; ")
    )
    for kind, times in kinds.most_common():
        print(f"{times:>5} × {kind}", file=sys.stderr)
    wrong = list(failures(cases))
    for line in wrong:
        print(line, file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main())
