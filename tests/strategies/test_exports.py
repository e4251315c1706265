"""What `strategies` exports: grouped by what one does with it, each with a docstring that names its errors."""

import ast
import inspect
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import TrainingArguments

import strategies
from strategies import Recipe, Tuned, compose

SOURCE = Path(strategies.__file__).read_text(encoding="utf-8")
GROUPS = (
    "Write a recipe.", "Apply it.", "Train with it.", "Save and load.", "Checkpoint.", "Write a strategy of one's own.",
    "Errors.",
)  # fmt: skip
ERRORS = ("PlanError", "SelfCheckError", "FileNotFoundError")


def public(name):
    """Give an export and, of a class, its public methods and properties: (label, object)."""
    exported = getattr(strategies, name)
    found = [(name, exported)]
    if inspect.isclass(exported):
        inner = {label: part for cls in exported.__mro__ if cls.__module__.startswith("strategies")
                 for label, part in vars(cls).items()}  # fmt: skip
        for label, part in inner.items():
            function = part.fget if isinstance(part, property) else getattr(part, "__func__", part)
            if not label.startswith("_") and inspect.isfunction(function):
                found.append((f"{name}.{label}", function))
    return found


PUBLIC = [pytest.param(part, id=label) for name in strategies.__all__ for label, part in public(name)]


def groups():
    """Give heading → (imported names, exported names), as the file lists them."""
    found = {}
    for block in SOURCE.split("\n# ")[1:]:
        heading, _, code = block.partition("\n")
        nodes = ast.parse(code).body
        imported = {alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
        listed = [
            name for node in nodes if not isinstance(node, ast.ImportFrom) for name in ast.literal_eval(node.value)
        ]
        found[heading] = imported, listed
    return found


def test_exports_stand_in_groups_and_nothing_beside_them():
    assert tuple(groups()) == GROUPS
    for imported, listed in groups().values():
        assert imported == set(listed)
    assert [name for _, listed in groups().values() for name in listed] == strategies.__all__
    assert len(set(strategies.__all__)) == len(strategies.__all__)


@pytest.mark.parametrize("part", PUBLIC)
def test_every_export_has_a_docstring_of_its_own(part):
    text = part.__doc__ or ""
    assert len(text.split()) >= 4
    assert not text.startswith(f"{part.__name__}("), "the signature that dataclass() writes where there is none"


@pytest.mark.parametrize("part", [p for p in PUBLIC if not inspect.isclass(p.values[0])])
def test_errors_that_stand_in_the_code_stand_in_the_docstring(part):
    raised = {
        node.exc.func.id
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(part))))
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name)
    }
    assert {name for name in raised if f"`{name}`" not in part.__doc__} == set()


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))


def mean_loss(model, batch):
    return model(batch["x"]).square().mean()


def merged(tmp_path):
    tuned = compose("lora(target_modules=['0'])").apply(model())
    tuned.merge()
    return tuned


def saved_elsewhere(tmp_path):
    compose("full").apply(model()).save(tmp_path)
    return tmp_path, nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))


def bottleneck(tmp_path):
    return compose("houlsby(target_modules=['0'])").apply(model())


# What fails through something deeper: (method or function, a call of it with a temporary folder).
CALLS = {
    "compose": (compose, lambda _: compose("lorra")),
    "parse_plans": (strategies.parse_plans, lambda _: strategies.parse_plans("lora(r=x)")),
    "Recipe.apply": (Recipe.apply, lambda _: compose("nf4").apply(model())),
    "Recipe.transform": (Recipe.transform, lambda _: compose("nf4").transform(model())),
    "Recipe.for_trainer": (
        Recipe.for_trainer,
        lambda folder: compose("selective_backprop").for_trainer(model(), TrainingArguments(str(folder), use_cpu=True)),
    ),
    "Strategy": (strategies.Strategy, lambda _: strategies.catalogue()["lora"](r=0)),
    "Tuned.step: the loss": (
        Tuned.step,
        lambda _: compose("full").apply(model()).step(lambda *_: 1.0, {"x": torch.ones(2, 4)}),
    ),
    "Tuned.step: merged": (Tuned.step, lambda folder: merged(folder).step(mean_loss, {"x": torch.ones(2, 4)})),
    "Tuned.loader": (
        Tuned.loader,
        lambda _: compose("full").apply(model()).loader([1], batch_size=2, collate=list, generator=torch.Generator()),
    ),
    "Tuned.save": (Tuned.save, lambda folder: merged(folder).save(folder)),
    "Tuned.merge": (Tuned.merge, lambda folder: bottleneck(folder).merge()),
    "load": (strategies.load, lambda folder: strategies.load(*saved_elsewhere(folder))),
    "load_plain": (strategies.load_plain, lambda folder: strategies.load_plain(*saved_elsewhere(folder))),
    "save_peft": (
        strategies.save_peft,
        lambda folder: strategies.save_peft(bottleneck(folder), model(), folder / "out"),
    ),
    "load_checkpoint: missing": (
        strategies.load_checkpoint,
        lambda folder: strategies.load_checkpoint(compose("full").apply(model()), folder / "none.pt"),
    ),
}


@pytest.mark.parametrize(("part", "call"), CALLS.values(), ids=CALLS)
def test_errors_that_come_from_below_stand_in_the_docstring(part, call, tmp_path):
    with pytest.raises(Exception) as caught:
        call(tmp_path)
    assert caught.type.__name__ in ERRORS
    assert f"`{caught.type.__name__}`" in part.__doc__
