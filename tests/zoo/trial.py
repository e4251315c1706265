"""What a child process of the zoo does: train every plan of one architecture, or load all that another one saved.

    main(["train", "bert", folder, "lora", "full"])     # writes folder/train.jsonl, a line a plan
    main(["load", "bert", folder, "lora", "full"])      # folder/load.jsonl

A plan that ends in PlanError or SelfCheckError is refused; one that raises anything else, or that runs and is wrong,
is a fault.
"""

import json
import sys
import time
import traceback
import warnings
from pathlib import Path

import torch
import transformers

from strategies import PlanError, SelfCheckError, compose, load
from strategies.quiet import quiet
from tests.zoo import checks
from tests.zoo import reference as plain
from tests.zoo.architectures import ROWS
from tests.zoo.plans import PLANS

STEPS, RATE, SEED, DRAW = 7, 5e-3, 3, 7
OTHER_SEED = 99  # of the new parts, in the process that loads
SAME_OUTPUTS = 1e-5
LONGEST_REASON = 400


class Trial:
    """All plans of one architecture in one process."""

    def __init__(self, row, folder):
        self.row, self.folder, self.base = row, Path(folder), Path(folder) / "base"
        self.losses = {}

    def train(self, plan):
        """Train one plan and check it; gives what is wrong."""
        row, base, reference = self.row, self.base, self.reference
        model = row.load(base, plain.SEED)
        tuned = compose(plan.text).apply(model, seed=SEED, total_steps=STEPS, lr=RATE, head_lr=RATE, **row.applying())
        started = {name: p.detach().clone() for name, p in model.named_parameters()}
        quantised = plain.stored_weights(model)
        batch, other = row.batch(1, padded=row.padded), row.batch(2, padded=False)
        wrong = list(checks.check_adapted(row, plan, model, reference))
        wrong += checks.check_base(plan, started, reference, quantised)
        outputs = self.outputs(tuned, batch)
        wrong += checks.check_start(row, plan, reference, base, outputs=outputs, quantised=quantised)
        torch.manual_seed(DRAW)
        losses = [tuned.step(row.loss, batch).clone()]
        first = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
        losses += [tuned.step(row.loss, batch).clone() for _ in range(STEPS - 2)]
        tuned.step(row.loss, other)
        wrong += checks.check_moved(row, plan, model, started, reference)
        wrong += checks.check_losses(row, plan, losses, self.losses)
        self.losses[plan.text] = losses
        if plan.peft and not wrong and (row.layers.query or plan.peft[0] != "IA3Config"):
            theirs = plain.first_step_with_peft(row, plan, base, reference, started, rate=RATE, seed=DRAW)
            wrong += checks.check_against_peft(theirs, first, losses[1])
        self.save(plan, tuned, {"padded": self.outputs(tuned, batch), "whole": self.outputs(tuned, other)})
        return wrong + list(self.merge(plan, tuned, batch))

    def outputs(self, tuned, batch):
        """Evaluate, as a user does."""
        with tuned.evaluating():
            return self.row.outputs(tuned.model, batch)

    def save(self, plan, tuned, outputs):
        """Save the plan, and its outputs beside it."""
        folder = self.folder / place(plan)
        tuned.save(folder)
        torch.save(outputs, folder.with_suffix(".pt"))

    def merge(self, plan, tuned, batch):
        """Merge, and evaluate the plain model that there is then."""
        if plan.merges is None:
            return
        before = self.outputs(tuned, batch)
        tuned.merge()
        was_training = tuned.model.training
        with torch.no_grad():
            after = self.row.outputs(tuned.model.eval(), batch)
        tuned.model.train(was_training)
        yield from checks.check_merged(self.row, plan, tuned.model, self.reference, before=before, after=after)

    def load(self, plan):
        """Load one plan onto the same base with other new parts; gives what is wrong."""
        row, folder = self.row, self.folder / place(plan)
        expected = torch.load(folder.with_suffix(".pt"))
        tuned = load(folder, row.load(self.base, OTHER_SEED))
        wrong = ["after loading the model is in training mode"] if tuned.model.training else []
        for kind, batch in (("padded", row.batch(1, padded=row.padded)), ("whole", row.batch(2, padded=False))):
            far = checks.distance(self.outputs(tuned, batch), expected[kind])
            if not far <= SAME_OUTPUTS:
                wrong.append(f"loaded in a fresh process its outputs are off by {far:.2g}")
                break
        if plan.text == "lora":
            wrong += self.load_onto_another_base(folder)
        return wrong

    def load_onto_another_base(self, folder):
        """Another base is to be refused."""
        model = self.row.load(self.base, OTHER_SEED)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if not self.row.is_new(name):
                    parameter.add_(0.01)
        try:
            load(folder, model)
        except PlanError:
            return []
        return ["is loaded onto another base without a word"]


def place(plan):
    """Give the name of the folder of a plan."""
    return f"plan{list(PLANS).index(plan.text)}"


def attempt(work, plan):
    """Try one plan; gives its outcome with reasons."""
    try:
        wrong = work(plan)
    except (PlanError, SelfCheckError) as problem:
        lines = str(problem).splitlines() or [""]
        many = [f"a refusal of {len(lines)} lines: {lines[0]}"] if len(lines) > 1 else []
        return ("fault", many) if many else ("refused", [lines[0]])
    except Exception as problem:  # noqa: BLE001 - the zoo finds out what raises
        frames = traceback.extract_tb(problem.__traceback__)
        ours = [frame for frame in frames if "/strategies/" in frame.filename] or frames
        where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
        first = (str(problem).strip() or " ").splitlines()[0][:LONGEST_REASON]
        return "fault", [f"{type(problem).__name__}: {first} ({where})"]
    return ("fault", wrong) if wrong else ("ok", [])


def main(arguments):
    """Do one phase of one architecture for the plans named."""
    phase, name, folder, *texts = arguments
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    row, trial = ROWS[name], Trial(ROWS[name], folder)
    with quiet(), (Path(folder) / f"{phase}.jsonl").open("a") as file:
        if phase == "train":
            if not trial.base.exists():
                row.pretrain(trial.base)
            trial.reference = plain.refer(row, trial.base)
            errors = list(plain.row_errors(row, trial.reference, trial.base))
            if errors:
                print(f"{name}: the zoo's row is wrong: {'; '.join(errors)}", file=sys.stderr)
                return 2
        for text in texts:
            start = time.perf_counter()
            outcome, reasons = attempt(getattr(trial, phase), PLANS[text])
            seconds = round(time.perf_counter() - start, 2)
            print(json.dumps({"plan": text, "outcome": outcome, "reasons": reasons, "seconds": seconds}), file=file)
            file.flush()
    return 0
