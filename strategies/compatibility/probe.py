"""Every pair of strategies, tried, for `docs/compatibility.md`: `python -m strategies.compatibility.probe`.

Nothing on that page is a guess: `ok` ran and both members left a trace, `refused` gives the reason a user gets,
`unverified here` says what this machine lacks. A pair of which one needs a frozen base is tried with `lora` beside it;
two that decide which weights train are tried on one tower each.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from importlib.metadata import version
from itertools import combinations
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from strategies.compatibility.trial import Outcome, Trace, try_plan
from strategies.language.catalogue import catalogue
from strategies.protocol import FROZEN, FROZEN_BASE, WEIGHTS, Strategy

if TYPE_CHECKING:
    from collections.abc import Sequence

DOCS = Path(__file__).resolve().parents[2] / "docs"
FULL = "full"
HELPER = "lora"  # gives a frozen base to what needs one
TOWERS = ("vision", "text")
SIGNS = {"ok": "✓", "refused": "·", "unverified": "?", "inert": "INERT", "crashed": "CRASH"}
MAX_LISTED = 12  # pairs behind one reason on the page; the CSV has all
PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "torchao")


class Row(NamedTuple):
    """A pair, whether its members share a slot, the sum that was tried, and what came of it."""

    one: str
    other: str
    same_slot: bool
    tried: str
    status: str
    reason: str


def term(name: str, scope: str | None = None) -> str:
    """Write a strategy with the options its class wants for a trial, on a scope if given."""
    options = dict(catalogue()[name].trial) | ({"scope": scope} if scope else {})
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in options.items())})" if options else name


def terms(one: str, other: str) -> list[str]:
    """Give the sum that tries a pair: its two members, and what they need beside them.

    Two that decide which weights train get a tower each; so does one beside a member that needs a tower at rest.
    """
    names, pair = (one, other), [catalogue()[one], catalogue()[other]]
    decide = [WEIGHTS in part.slots and _has_scope(part) for part in pair]
    if all(decide):
        return [term(one, TOWERS[0]), term(other, TOWERS[1])]
    if any(FROZEN in part.requires for part in pair):
        if any(FROZEN in part.provides or (WEIGHTS in part.slots and not _has_scope(part)) for part in pair):
            return [term(one), term(other)]
        frozen_base = term("freeze", None if any(FROZEN_BASE in part.requires for part in pair) else TOWERS[0])
        return [*(term(name, TOWERS[1] if own else None) for name, own in zip(names, decide, strict=True)), frozen_base]
    needy = any(FROZEN_BASE in part.requires for part in pair) and not any(WEIGHTS in part.slots for part in pair)
    return [term(one), term(other), *([HELPER] if needy else [])]


def probe_pair(pair: tuple[str, str]) -> Row:
    """Try one pair; what runs without a trace of one member is inert."""
    tried = terms(*pair)
    outcome, trace = _try_once("+".join(tried))
    for index, name in enumerate(pair):
        rest = "+".join(tried[:index] + tried[index + 1 :]) or FULL
        if trace is not None and _try_once(rest)[1] == trace:
            outcome = Outcome("inert", f"{name} changes nothing beside {pair[1 - index]}")
    return Row(*pair, _share_slot(*pair), "+".join(tried), outcome.status, outcome.reason)


def probe_all(jobs: int) -> list[Row]:
    """Try every pair in fresh worker processes."""
    pairs = list(combinations(sorted(catalogue()), 2))
    rows: list[Row] = []
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        for row in pool.map(probe_pair, pairs, chunksize=16):
            rows.append(row)
            if sys.stderr.isatty() or len(rows) % 100 == 0:
                print(f"\r{len(rows)} of {len(pairs)} pairs", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return rows


def as_csv(rows: Sequence[Row]) -> str:
    """Give all rows as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([Row._fields, *rows])
    return text.getvalue()


def as_page(rows: Sequence[Row]) -> str:
    """Give the page in Markdown: a summary, tables of pairs, and the reasons."""
    cross_slot = [row for row in rows if not row.same_slot]
    ran = sum(row.status == "ok" for row in cross_slot)
    counts = Counter(row.status for row in rows)
    weights = [name for name, part in sorted(catalogue().items()) if WEIGHTS in part.slots]
    others = [name for name in sorted(catalogue()) if name not in weights]
    status = {frozenset((row.one, row.other)): row.status for row in rows}
    towers = [row for row in rows if TOWERS[0] in row.tried and row.same_slot]
    kinds = ", ".join(f"{number} {name}" for name, number in sorted(counts.items()))
    lines = [
        "# Which strategies go together",
        "",
        "Written by `make compatibility` (`python -m strategies.compatibility.probe`), which trains every pair that is",
        "not refused for three updates on a tiny ViT + BERT on CPU, evaluates in between and checks that each member",
        "leaves a trace. A test repeats it.",
        "All rows, with the sum that was tried and the whole reason: [compatibility.csv](compatibility.csv).",
        "",
        *_options(),
        "",
        f"Versions: {', '.join(f'{package} {version(package)}' for package in PACKAGES)}.",
        "",
        f"**{len(catalogue())} strategies, {len(rows)} pairs: {kinds}.**",
        f"Of the {len(cross_slot)} pairs from different slots {ran} run ({ran / max(len(cross_slot), 1):.0%}).",
        "",
        "`✓` runs, `·` refused (the reason is below), `?` unverified here (needs other hardware).",
        "",
        "![Which strategies go together](compatibility.png)",
        "",
        "## What trains, with everything else",
        "",
        *_grid(weights, others, status),
        "",
        "## Everything else, pair by pair",
        "",
        *_grid(others, others, status),
        "",
        "## Two that decide which weights train",
        "",
        "They share a slot, so on the same weights they are refused; here each had a tower of its own.",
        f"{sum(row.status == 'ok' for row in towers)} of {len(towers)} such pairs run. The others:",
        "",
        *_reasons([row for row in towers if row.status != "ok"]),
        "",
        "## Slots",
        "",
        "Two strategies of one slot exclude each other where their scopes overlap.",
        "",
        *_slots(),
        "",
        "## Why not",
        "",
        *_reasons([row for row in cross_slot if row.status != "ok"]),
    ]
    return "\n".join(lines) + "\n"


def _grid(names: Sequence[str], columns: Sequence[str], status: dict[frozenset[str], str]) -> list[str]:
    """Draw a table of pairs."""
    head = ["", *columns]
    cells = [
        [f"**{name}**", *(SIGNS.get(status.get(frozenset((name, other)), ""), "") for other in columns)]
        for name in names
    ]
    return [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *cells)]


def _options() -> list[str]:
    """Say which strategies were tried with other options than their defaults."""
    changed = [f"`{term(name)}`" for name, part in sorted(catalogue().items()) if part.trial]
    why = "Tried with options that suit two layers on a CPU (so `compile` without its code generator)"
    return [f"{why}: {', '.join(changed)}."]


def _slots() -> list[str]:
    """List the slots that more than one strategy could take."""
    taken: dict[str, list[str]] = {}
    for name, part in sorted(catalogue().items()):
        for slot in part.slots:
            taken.setdefault(slot, []).append(f"`{name}`")
    return [f"- {slot}: {', '.join(names)}" for slot, names in sorted(taken.items()) if len(names) > 1]


def _reasons(rows: Sequence[Row]) -> list[str]:
    """List reasons, each with the pairs it stops."""
    grouped: dict[str, list[str]] = {}
    for row in rows:
        grouped.setdefault(row.reason, []).append(f"`{row.one}+{row.other}`")
    return [
        f"- {reason.replace('|', '/')}: {', '.join([*pairs[:MAX_LISTED], *_more(pairs)])}"
        for reason, pairs in grouped.items()
    ] or ["- none"]


def _more(pairs: Sequence[str]) -> list[str]:
    """Say how many pairs a list leaves out."""
    return [f"and {len(pairs) - MAX_LISTED} more"] if len(pairs) > MAX_LISTED else []


def _has_scope(strategy: type[Strategy]) -> bool:
    return "scope" in strategy.__dataclass_fields__


def _share_slot(one: str, other: str) -> bool:
    return bool(catalogue()[one].slots & catalogue()[other].slots)


@cache
def _try_once(text: str) -> tuple[Outcome, Trace | None]:
    """Try a sum once per process."""
    return try_plan(text)


def _one_thread() -> None:
    """Prepare a worker: the model is so small that two threads only wait for each other."""
    import torch

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def main() -> int:
    """Write the page and the CSV; exit status 1 when a pair crashes or is inert."""
    parser = argparse.ArgumentParser(prog="python -m strategies.compatibility.probe", description=__doc__)
    parser.add_argument("--out", type=Path, default=DOCS, help="folder to write to (default: docs/)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one per core)")
    options = parser.parse_args()
    rows = probe_all(options.jobs)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "compatibility.csv").write_text(as_csv(rows), encoding="utf-8")
    (options.out / "compatibility.md").write_text(as_page(rows), encoding="utf-8")
    wrong = [row for row in rows if row.status in {"crashed", "inert"}]
    for row in wrong:
        print(f"{row.tried}: {row.status}: {row.reason}", file=sys.stderr)
    print(f"{len(rows)} pairs written to {options.out / 'compatibility.md'}")
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main())
