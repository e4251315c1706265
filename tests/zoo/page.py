"""The page docs/models.md and the file of cases beside it, docs/models.csv: what `make zoo` found, and its limits."""

import csv
import io
import re
from collections import Counter, defaultdict
from importlib.metadata import version
from pathlib import Path

from tests.zoo.architectures import NO_KERNEL, ROWS
from tests.zoo.plans import PLANS
from tests.zoo.run import Case

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE, CASES = "models.md", "models.csv"
PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "torchao")
MOST_REFUSED = 0.1  # of all cases
MOST_ALIKE = 20  # architectures that one reason may stop
NOTHING_NEW = ("llama", "gpt2", "t5", "clip", "functional")  # where `freeze` is tried all the same
SHOWN = 6  # architectures named behind a reason


def wanted():
    """Give the plans of every architecture."""
    return {name: [plan.text for plan in PLANS.values() if is_wanted(name, plan)] for name in ROWS}


def is_wanted(name, plan):
    """Leave out what nobody would ask for, but for a few: `freeze` where nothing is new, kernels that are not used."""
    nothing = plan.trains == "new" and not ROWS[name].new and name not in NOTHING_NEW
    kernel = plan.text.startswith("attention") and name in NO_KERNEL
    return name in plan.only if plan.only else not (nothing or kernel)


def as_csv(cases):
    """Give all cases as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("architecture", "plan", "outcome", "reason"))
    writer.writerows(case[:4] for case in cases)
    return text.getvalue()


def read_cases(path):
    """Read them back."""
    with path.open(encoding="utf-8", newline="") as file:
        return [Case(*row) for row in list(csv.reader(file))[1:]]


def kind_of_reason(reason):
    """Give a reason without what differs from model to model: names, numbers, shapes."""
    reason = re.sub(r"^[^:]*\+[^:]*: ", "", reason)
    reason = re.sub(r"'[^']*'|\b\w+(?:\.\w+)+\b", "…", reason)
    reason = re.sub(r"\b[A-Z]\w*(?:For|Model|LM|MT)\w*", "…", reason)
    reason = re.sub(r"; (?:it has|there is): .*", "", re.sub(r"\d[\d,.]*", "…", reason))
    return re.sub(r"…(?:,? …)+", "…", reason)


def failures(cases):
    """Say why the zoo fails: faults, too much refused, one reason for too many."""
    faults = [case for case in cases if case.outcome == "fault"]
    refused = [case for case in cases if case.outcome == "refused"]
    if faults:
        yield f"{len(faults)} faults"
    if len(refused) > MOST_REFUSED * len(cases):
        yield f"{len(refused)} of {len(cases)} are refused, more than {MOST_REFUSED:.0%}"
    stopped = defaultdict(set)
    for case in refused:
        stopped[kind_of_reason(case.reason)].add(case.architecture)
    for reason, names in stopped.items():
        if len(names) > MOST_ALIKE:
            yield f"one reason stops {len(names)} architectures: {reason}"


def counts(cases):
    """Give the counts as people read them."""
    number = Counter(case.outcome for case in cases)
    skipped = len(ROWS) * len(PLANS) - sum(map(len, wanted().values()))
    return (
        f"{len({case.architecture for case in cases})} architectures, {len({case.plan for case in cases})} plans, "
        f"{len(cases)} cases: {number['ok']} ok, {number['refused']} refused ({number['refused'] / len(cases):.1%}), "
        f"{number['fault']} faults; {skipped} left out"
    )


def as_page(cases):
    """Give the page in Markdown."""
    kinds = list(dict.fromkeys(plan.kind for plan in PLANS.values()))
    lines = [
        "# On which models it was tried",
        "",
        "Written by `make zoo` (`python -m tests.zoo`), which takes architectures of transformers, tiny and",
        "random, and models of plain torch, and trains each under every plan for seven updates on a CPU. A base",
        "is saved and loaded as people do it, with new heads of another seed; batches are padded where a model takes",
        "padding. Each case is checked against plain torch and PEFT alone: what should train moved and nothing else",
        "did, adapters sit where a reader of the paper would put them, the loss falls, a fresh process with other new",
        "parts loads what was saved and gives the same outputs, merging keeps them, and the first update of LoRA,",
        "DoRA, IA³ and OFT is PEFT's own. A test repeats a part. All cases: [models.csv](models.csv).",
        "",
        f"Versions: {', '.join(f'{package} {version(package)}' for package in PACKAGES)}.",
        "",
        f"**{counts(cases)}.** Left out are `compile`, which is tried on three, and most of what would do",
        "nothing: `freeze` where nothing is new, `attention` where torch's function for it is not called.",
        "",
        "How many plans of a kind run, of how many; the rest is refused, for the reasons below.",
        "",
        *_table(cases, kinds),
        "",
        "## Refused",
        "",
        *_reasons([case for case in cases if case.outcome == "refused"]),
        "",
        *_faults([case for case in cases if case.outcome == "fault"]),
        "## The plans",
        "",
        *(f"- {kind}: {', '.join(f'`{plan.text}`' for plan in PLANS.values() if plan.kind == kind)}" for kind in kinds),
    ]
    return "\n".join(lines) + "\n"


def _table(cases, kinds):
    """Draw a line for each architecture, a column for each kind of plan."""
    found = defaultdict(list)
    for case in cases:
        found[case.architecture, PLANS[case.plan].kind].append(case.outcome)
    lines = [["family", "architecture", *kinds], ["---", "---", *["--:"] * len(kinds)]]
    for name, row in ROWS.items():
        cells = [(found[name, kind].count("ok"), len(found[name, kind])) for kind in kinds]
        if any(number for _, number in cells):
            lines.append([row.family, f"`{name}`", *(f"{ok} of {of}" if ok < of else f"{of}" for ok, of in cells)])
    return [f"| {' | '.join(line)} |" for line in lines]


def _reasons(refused):
    """List reasons, the commonest first, each with what it stops."""
    grouped = defaultdict(list)
    for case in refused:
        grouped[kind_of_reason(case.reason)].append(case)
    lines = []
    for cases in sorted(grouped.values(), key=len, reverse=True):
        plans = ", ".join(f"`{plan}`" for plan in dict.fromkeys(case.plan for case in cases))
        names = list(dict.fromkeys(case.architecture for case in cases))
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        lines.append(f"- {plans} on {', '.join(names[:SHOWN])}{more}: {_plain(cases[0].reason)}")
    return lines or ["- nothing"]


def _faults(faults):
    """List what is wrong."""
    lines = [f"- `{case.plan}` on {case.architecture}: {_plain(case.reason)}" for case in faults]
    return ["## Faults", "", *lines, ""] if lines else []


def _plain(reason):
    """Keep a reason from being taken for Markdown."""
    return re.sub(r"([|*_<>\[\]`])", r"\\\1", reason)


def write(cases, folder):
    """Write page and cases."""
    (folder / CASES).write_text(as_csv(cases), encoding="utf-8")
    (folder / PAGE).write_text(as_page(cases), encoding="utf-8")
