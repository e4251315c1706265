"""One table for all strategies on three models that know nothing of them."""

import json
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest

from strategies import PlanError, catalogue, compose, load

# Strategy → the smallest plan that uses it. A new strategy must be added here: the first test says so.
PLANS = {
    "full": "full(lr=1e-3)",
    "freeze": "freeze",
    "lora": "lora",
    "amp": "amp",
    "int8": "int8+lora",
    "nf4": "nf4+lora",
    "checkpointing": "checkpointing",
    "compile": "compile(backend='eager')",
}
MODELS = ("mlp", "text", "conv")
STEPS = 12


def test_every_strategy_is_in_the_table():
    assert set(PLANS) == set(catalogue())


def evaluated(foreign, tuned, data):
    with tuned.evaluating():
        return foreign.outputs(tuned.model, data).float()


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("name", PLANS)
def test_conformance(name, kind, foreign, tmp_path):
    import torch

    plan, data = compose(PLANS[name]), foreign.batch(kind)
    model = foreign.build(kind).eval()
    with torch.no_grad():
        untouched = foreign.outputs(model, data)
    tuned = plan.apply(model, total_steps=STEPS, lr=5e-3, head_lr=5e-3)
    assert tuned.model is model
    assert model.training
    before = evaluated(foreign, tuned, data)
    # Structure alone changes nothing, but for rounding.
    loose = {"amp": 0.05, "int8": 0.05, "nf4": 0.3}.get(name, 1e-5)
    assert torch.allclose(before, untouched, atol=loose)

    start = [(n, p, p.detach().clone()) for n, p in model.named_parameters()]
    trains = {n for n, p, _ in start if p.requires_grad}
    losses = [float(tuned.step(foreign.loss, data)) for _ in range(STEPS)]
    assert losses[-1] < losses[0]
    if name == "compile":  # dynamo skips torch's own modules without a word
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
        assert not torch._dynamo.utils.counters["graph_break"]
    assert {n for n, p, old in start if not torch.equal(p, old)} == trains
    head = tuned.context.layout.scopes["head"][0]
    assert {n for n in trains if n.startswith(head)} == {f"{head}.weight", f"{head}.bias"}
    assert all(not n.startswith(head) and "lora_" in n for n in trains - {f"{head}.weight", f"{head}.bias"}) == (
        name in {"freeze", "lora", "int8", "nf4"}
    )
    assert tuned.counts()["trainable_parameters"] == sum(p.numel() for _, p, _ in start if p.requires_grad)
    assert tuned.counts()["total_parameters"] >= sum(p.numel() for p in foreign.build(kind).parameters())

    after = evaluated(foreign, tuned, data)
    assert not torch.allclose(after, before, atol=1e-3)
    assert tuned.save(tmp_path) == sum(path.stat().st_size for path in tmp_path.iterdir())
    assert torch.equal(evaluated(foreign, load(tmp_path, foreign.build(kind)), data), after)


def test_adapters_alone_change_train_and_eval(foreign):
    import torch

    for kind in MODELS:
        tuned, data = compose("lora").apply(foreign.build(kind)), foreign.batch(kind)
        before = evaluated(foreign, tuned, data)
        loss = foreign.loss(tuned.model, data).item()
        with torch.no_grad():
            for name, parameter in tuned.model.named_parameters():
                if "lora_B" in name:
                    parameter.add_(0.1)
        assert not torch.allclose(evaluated(foreign, tuned, data), before, atol=1e-4)
        assert foreign.loss(tuned.model, data).item() != loss


def test_all_pairs_run_or_are_refused_with_a_reason(foreign):
    """Run each pair for two steps and an evaluation; what is refused says why."""
    data, refused, ran = foreign.batch("conv"), {}, []
    words = [PLANS[name] if name == "compile" else name for name in PLANS]
    for pair in combinations(words, 2):
        plan = compose("+".join(pair))
        problems = plan.problems("cpu", foreign.build("conv"))
        if problems:
            assert all(len(problem.reason) > 20 for problem in problems)
            refused[pair] = problems
            continue
        tuned = plan.apply(foreign.build("conv"))
        for _ in range(2):
            tuned.step(foreign.loss, data)
        evaluated(foreign, tuned, data)
        tuned.step(foreign.loss, data)
        ran.append(pair)
    assert len(ran) >= 15
    assert ("freeze", "lora") in refused
    assert ("freeze", "checkpointing") in refused
    assert ("lora", "nf4") in [tuple(sorted(pair)) for pair in ran]


def test_saved_plans_load_in_a_fresh_process(foreign, tmp_path):
    """Save several plans, then rebuild them all in one new process that shares nothing with this one."""
    import torch

    plans = {"text": ["qlora", "qlora8+amp"], "conv": ["full(lr=1e-3)+checkpointing"], "mlp": ["lora"]}
    expected = {}
    for kind, texts in plans.items():
        for text in texts:
            tuned, data = compose(text).apply(foreign.build(kind), seed=3), foreign.batch(kind)
            for _ in range(3):
                tuned.step(foreign.loss, data)
            folder = tmp_path / f"{kind}-{len(expected)}"
            tuned.save(folder)
            expected[str(folder)] = evaluated(foreign, tuned, foreign.batch(kind, seed=6)).tolist()
    code = f"""
import json, sys, torch
sys.path.insert(0, {str(Path(__file__).parent)!r})
import foreign
from strategies import load
torch.set_num_threads(1)
found = {{}}
for folder in {list(expected)!r}:
    kind = folder.rpartition("/")[2].split("-")[0]
    tuned = load(folder, foreign.build(kind))
    with tuned.evaluating():
        found[folder] = foreign.outputs(tuned.model, foreign.batch(kind, seed=6)).float().tolist()
print(json.dumps(found))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == expected
    with pytest.raises(PlanError, match="another model"):
        load(next(iter(tmp_path.glob("conv-*"))), foreign.build("text"))
    with pytest.raises(PlanError, match=r"plan\.json"):
        load(tmp_path, torch.nn.Linear(1, 1))
