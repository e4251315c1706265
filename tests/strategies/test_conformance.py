"""One table for all strategies on six models that know nothing of them."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from strategies import PlanError, Recipe, catalogue, compose, load
from strategies.compatibility.probe import term
from tests.scripts import forked_code

STEPS = 12
KINDS = ("mlp", "text", "conv", "two", "gpt", "cnn")
EXACT = 1e-5


@dataclasses.dataclass(frozen=True)
class Row:
    """What is expected of a strategy: its smallest plan, how close it starts to the base, where it cannot be.

    `start=None`: the method does not claim to begin at the pretrained model. `refused` gives kind of model → words of
    the reason. `forced`: unavailable on CPU, but its mechanics work there.
    """

    plan: str = ""
    start: float | None = EXACT
    refused: dict = dataclasses.field(default_factory=dict)
    forced: bool = False


NO_LINEAR = {"cnn": "no linear layer"}
NOT_LINEAR = {"cnn": "no layer to adapt"}
NO_ATTENTION = {"mlp": "attention", "cnn": "attention"}
# A new strategy must be added here: the first test says so.
TABLE = {
    "full": Row(),
    "freeze": Row(),
    "linear_probe": Row(),
    "bitfit": Row(),
    "layernorm": Row(refused={"mlp": "normalisation"}),
    "progressive_freezing": Row(),
    "lisa": Row(),
    "lora": Row(),
    "rslora": Row(),
    "dora": Row(),
    "pissa": Row(refused=NOT_LINEAR),
    "olora": Row(refused=NOT_LINEAR),
    "loraplus": Row(),
    "lorafa": Row(),
    "adalora": Row(),
    "ia3": Row(),
    "vera": Row(refused=NOT_LINEAR),
    "oft": Row(refused=NOT_LINEAR),
    "boft": Row(),
    "loha": Row(),
    "lokr": Row(),
    "hra": Row(),
    "fourierft": Row(start=None, refused=NOT_LINEAR),
    "randlora": Row(refused=NOT_LINEAR),
    "miss": Row(refused=NOT_LINEAR),
    "shira": Row(refused=NOT_LINEAR),
    "peft": Row("peft(type='road', options={'group_size': 4})", refused=NOT_LINEAR),
    "houlsby": Row(),
    "adaptformer": Row(),
    "int8": Row("int8+lora", start=0.05, refused=NO_LINEAR),
    "nf4": Row("nf4+lora", start=0.3, refused=NO_LINEAR),
    "fp4": Row("fp4+lora", start=0.3, refused=NO_LINEAR),
    "amp": Row(start=0.05),
    "tf32": Row(forced=True),
    "pure_bf16": Row(start=0.05),
    "fp8": Row(start=0.3, refused={"cnn": "no linear layer", "gpt": "no linear layer"}),
    "checkpointing": Row(refused={"cnn": "batch normalisation"}),
    "offload_activations": Row(),
    "compile": Row(),
    "attention": Row(refused=NO_ATTENTION),
    "layer_decay": Row(),
    "adamw8bit": Row(),
    "paged_adamw8bit": Row(forced=True),
    "lion": Row(),
    "lion8bit": Row(),
    "adafactor": Row(refused={"cnn": "no matrix"}),
    "galore": Row(refused={"cnn": "no matrix"}),
    "apollo": Row(refused={"cnn": "no matrix"}),
    "muon": Row(refused={"cnn": "no linear layer outside the head"}),
    "schedule_free": Row(),
    "optimizer_in_backward": Row(),
    "ema": Row(),
    "schedule": Row(),
    "clip": Row(),
    "accumulate": Row(),
    "group_by_image": Row(),
    "bucketing": Row(),
    "auto_batch": Row(),
    "cache_features": Row("cache_features(scope='body')+freeze", refused={"two": "matches nothing"}),
    "patch_dropout": Row(refused=dict.fromkeys(("mlp", "text", "gpt", "cnn"), "no image tower")),
    "selective_backprop": Row(),
}
CASES = [(name, kind) for name in TABLE for kind in KINDS]


def text_of(name):
    return TABLE[name].plan or term(name)


def test_every_strategy_is_in_the_table():
    assert set(TABLE) == set(catalogue())
    assert len(catalogue()) >= 60
    assert all(len(row.refused) <= 2 for name, row in TABLE.items() if catalogue()[name].kind != "data")


def evaluated(foreign, tuned, data):
    with tuned.evaluating():
        return foreign.outputs(tuned.model, data).float()


@pytest.fixture
def plan_of(monkeypatch):
    """Give the plan of a row; what is unavailable on CPU but works there is let through."""

    def make(name):
        plan = compose(text_of(name))
        for member in plan.members:
            if TABLE[member.name].forced:
                monkeypatch.setattr(type(member), "unavailable", lambda self, device: None)
        return plan

    return make


def keep(tuned, name, kind, foreign, shared_folder):
    """Save what was trained, with its scores of another batch, for a fresh process to read; gives the folder."""
    folder = shared_folder / "conformance" / kind / name
    size = tuned.save(folder)
    scores = evaluated(foreign, tuned, foreign.batch(kind, seed=6)).tolist()
    whole = folder.with_suffix(".json")
    whole.with_suffix(".part").write_text(json.dumps(scores))
    whole.with_suffix(".part").rename(whole)
    return folder, size


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_conformance(name, kind, foreign, plan_of, shared_folder):
    import torch

    row, plan, data = TABLE[name], plan_of(name), foreign.batch(kind)
    model = foreign.build(kind).eval()
    if kind in row.refused:
        with pytest.raises(PlanError, match=row.refused[kind]):
            plan.apply(model, total_steps=STEPS)
        return
    with torch.no_grad():
        untouched = foreign.outputs(model, data)
    tuned = plan.apply(model, total_steps=STEPS, lr=5e-3, head_lr=5e-3)
    assert tuned.model is model
    assert model.training
    before = evaluated(foreign, tuned, data)
    if row.start is not None:
        assert torch.allclose(before, untouched, atol=row.start)

    start = [(n, p, p.detach().clone()) for n, p in model.named_parameters()]
    trains = {n for n, p, _ in start if p.requires_grad}
    losses = [float(tuned.step(foreign.losses, data)) for _ in range(STEPS)]
    assert min(losses[-3:]) < losses[0]
    if name == "compile":  # dynamo skips torch's own modules without a word
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
        assert not torch._dynamo.utils.counters["graph_break"]
    assert {n for n, p, old in start if not torch.equal(p, old)} == trains
    head = tuned.context.layout.scopes["head"][0]
    assert {n for n in trains if n.startswith(head)} == {n for n, _ in model.named_parameters() if n.startswith(head)}
    assert tuned.counts()["trainable_parameters"] == sum(
        p.numel() for n, p, _ in start if n in tuned.saved_names & trains
    )

    after = evaluated(foreign, tuned, data)
    assert not torch.allclose(after, before, atol=1e-4)
    folder, size = keep(tuned, name, kind, foreign, shared_folder)
    assert size == sum(path.stat().st_size for path in folder.iterdir() if path.name != "manifest.json")
    if kind == "two":  # a third of all in a fresh process, below
        assert torch.equal(evaluated(foreign, load(folder, foreign.build(kind)), data), after)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name in TABLE if name in catalogue() and catalogue()[name].kind == "weights"]
)
def test_what_a_method_changes_shows_in_training_and_evaluation(name, foreign, plan_of):
    """Move only what the plan trains outside the head: the outputs must follow in both modes."""
    import torch

    for kind in (kind for kind in KINDS if kind not in TABLE[name].refused):
        data = foreign.batch(kind)
        tuned = plan_of(name).apply(foreign.build(kind), total_steps=STEPS)
        moving = [
            p for n, p in tuned.model.named_parameters() if p.requires_grad and not tuned.context.layout.is_new(n)
        ]
        before, training = evaluated(foreign, tuned, data), foreign.outputs(tuned.model, data)
        with torch.no_grad():
            torch.manual_seed(2)
            for parameter in moving:
                parameter.add_(0.3 * torch.randn(parameter.shape).to(parameter.dtype))
        assert bool(moving) == (not torch.allclose(evaluated(foreign, tuned, data), before, atol=1e-5))
        assert bool(moving) == (not torch.allclose(foreign.outputs(tuned.model, data), training, atol=1e-5))


@pytest.mark.parametrize("name", TABLE)
def test_structure_needs_no_weights(name, foreign, plan_of):
    """A plan changes a model on `meta` as it changes a real one: a prediction needs no weights."""
    import torch

    kind = "two" if "two" not in TABLE[name].refused else "text"
    real, empty = foreign.build(kind), foreign.build(kind).to("meta")
    for model in (real, empty):
        plan_of(name).transform(model, total_steps=STEPS)
    shapes = {n: (tuple(p.shape), p.dtype, p.requires_grad) for n, p in real.named_parameters()}
    assert {n: (tuple(p.shape), p.dtype, p.requires_grad) for n, p in empty.named_parameters()} == shapes
    assert {p.device for p in empty.parameters()} == {torch.device("meta")}


FRESH = """
import json, sys, torch
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import foreign
from strategies import load
torch.set_num_threads(1)
for folder in sorted(path for path in Path(sys.argv[2]).glob("*/*") if path.is_dir()):
    kind = folder.parent.name
    tuned = load(folder, foreign.build(kind))
    with tuned.evaluating():
        found = foreign.outputs(tuned.model, foreign.batch(kind, seed=6)).float().tolist()
    print(json.dumps([kind, folder.name, found]))
"""


@pytest.mark.slow
@pytest.mark.usefixtures("forks")
def test_saved_plans_load_in_a_fresh_process(foreign, plan_of, shared_folder, tmp_path):
    """What the table above has saved is rebuilt in one new process that shares nothing: a third of the table."""
    expected, copied = {}, tmp_path / "saved"
    for name, kind in (case for place, case in enumerate(saved_cases()) if place % 3 == 0):
        scores = shared_folder / "conformance" / kind / f"{name}.json"
        if not scores.exists():  # the row was trained nowhere yet, or is not asked for
            tuned = plan_of(name).apply(foreign.build(kind), seed=3, total_steps=STEPS)
            tuned.step(foreign.losses, foreign.batch(kind))
            keep(tuned, name, kind, foreign, tmp_path)
            scores = tmp_path / "conformance" / kind / f"{name}.json"
        shutil.copytree(scores.with_suffix(""), copied / kind / name)
        expected[kind, name] = json.loads(scores.read_text())
    printed = forked_code(FRESH, Path(__file__).parent, copied, cwd=tmp_path)
    found = [json.loads(line) for line in printed.splitlines() if line.startswith('["')]
    assert {(kind, name): scores for kind, name, scores in found} == expected
    assert len(expected) > 100
    assert {kind for kind, _ in expected} == set(KINDS)


def saved_cases():
    """Words and models that the table trains and saves here."""
    return [(name, kind) for name, kind in CASES if kind not in TABLE[name].refused and not TABLE[name].forced]


def test_a_saved_plan_knows_its_model(foreign, tmp_path):
    import torch

    tuned = compose("lora").apply(foreign.build("conv"))
    tuned.save(tmp_path / "conv")
    with pytest.raises(PlanError, match="another model"):
        load(tmp_path / "conv", foreign.build("text"))
    with pytest.raises(PlanError, match=r"plan\.json"):
        load(tmp_path, torch.nn.Linear(1, 1))


def test_what_is_forced_says_why_it_is_unavailable():
    for name, row in TABLE.items():
        problems = Recipe.of([*compose(text_of(name)).members]).problems("cpu")
        assert bool(problems) == row.forced, name
