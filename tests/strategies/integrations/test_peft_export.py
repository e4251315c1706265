"""Adapters written in PEFT's format are loaded by PEFT alone, in a process that never imports this package."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import BertConfig, BertModel

from strategies import PlanError, catalogue, compose, save_peft
from strategies.methods.weights.peft_any import ALLOWED
from strategies.protocol import ADAPTER_PACKAGES

CODE = """
import json, sys
from pathlib import Path
sys.path.insert(0, {place!r})
import torch, foreign
from peft import PeftModel
torch.set_num_threads(1)
for folder in Path({folder!r}).iterdir():
    torch.manual_seed(0)
    model = PeftModel.from_pretrained(foreign.TwoTowers(), folder).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        outputs = model(x=torch.randn(4, 3, 16, 16), ids=torch.randint(1, 40, (4, 6)))
    torch.save(outputs, folder / "outputs.pt")
assert not any(name.split(".")[0] == "strategies" for name in sys.modules)
"""
WHOLE_MODEL = ("lily", "tinylora", "unilora", "vblora")  # share tensors between all layers; the towers here do not
TYPES = {kind: f"peft(type={kind!r}, options={options!r})" for kind, options in ALLOWED.items()}
WRITTEN = [
    *("lora", "rslora", "dora", "loraplus", "lorafa", "adalora", "ia3", "oft", "boft", "hra", "loha", "lokr"),
    *("fourierft", "miss", "shira", "vera", "randlora(r=4)", "vera(save_projection=False)"),
    *(plan for kind, plan in TYPES.items() if kind not in WHOLE_MODEL),
    *(f"{TYPES[kind][:-1]}, scope='vision')+freeze(scope='text')" for kind in WHOLE_MODEL),
    "lora(scope='vision')+freeze(scope='text')",
    "lora(scope='vision.layers.*')+freeze(scope='text')",
    "lora(scope='vision', r=4)+lora(scope='text', r=8, alpha=4)",
    "rslora(scope='vision', r=4)+rslora(scope='text', r=8)",
    "dora(scope='vision', r=2)+dora(scope='text', r=4)",
    "loha(scope='vision', r=4)+loha(scope='text', r=8)",
    "lokr(scope='vision', r=2)+lokr(scope='text', r=4)",
    "fourierft(scope='vision', n_frequency=10)+fourierft(scope='text', n_frequency=2000)",
    "lora+ema",
    "lora+schedule_free",
]
ROUNDED = ["nf4+lora", "nf4+dora", "nf4+ia3", "nf4+oft", "int8+lora"]
QUICK = (
    "lora",
    "dora",
    "ia3",
    "vera",
    "lora(scope='vision')+freeze(scope='text')",
)  # the others run in the whole suite
EXACT, CLOSE = 1e-5, 0.2


class Normed(nn.Module):
    """A text tower, and a head with running statistics; its picture is not looked at."""

    def __init__(self, two):
        super().__init__()
        self.reading = two.reading
        self.head = nn.Sequential(nn.BatchNorm1d(32), nn.Linear(32, 3))

    def forward(self, x, ids):
        del x
        return self.head(self.reading(input_ids=ids).last_hidden_state[:, 0])


class Encoding(nn.Module):
    """Torch's own transformer encoder as a tower."""

    def __init__(self, *, fast=True):
        super().__init__()
        self.embed = nn.Embedding(40, 32)
        layer = nn.TransformerEncoderLayer(32, 2, 64, dropout=0.0, batch_first=fast)
        self.tower = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 3)

    def forward(self, x, ids):
        del x
        return self.head(self.tower(self.embed(ids)).mean(1))


def trained(model, plan, steps=3):
    tuned = compose(plan).apply(model, total_steps=steps, lr=1e-2)
    torch.manual_seed(2)
    for _ in range(steps):
        batch = {"x": torch.randn(8, 3, 16, 16), "ids": torch.randint(1, 40, (8, 6)), "y": torch.randint(0, 3, (8,))}
        tuned.step(lambda model, b: nn.functional.cross_entropy(model(b["x"], b["ids"]), b["y"]), batch)
    return tuned


def inputs():
    torch.manual_seed(1)
    return {"x": torch.randn(4, 3, 16, 16), "ids": torch.randint(1, 40, (4, 6))}


def scores(tuned):
    with tuned.evaluating():
        return tuned.model(**inputs())


def alone(base, folder):
    """Give what PEFT's own model says."""
    model = PeftModel.from_pretrained(base, folder).eval()
    with torch.no_grad():
        return model(**inputs())


def refused(tuned, base, folder, message):
    """See that it is refused in one line, and leaves no files."""
    with pytest.raises(PlanError, match=message) as caught:
        save_peft(tuned, base, folder)
    assert "\n" not in str(caught.value)
    assert not list(folder.iterdir())


@pytest.fixture
def base(foreign):
    def build():
        torch.manual_seed(0)
        return foreign.TwoTowers()

    return build


def place_of(plan, folder):
    """Where a plan's adapter and scores lie, once both are there."""
    return folder / "peft" / str(WRITTEN.index(plan))


def write(plan, base, folder):
    """Train and save: gives what was tuned, the adapter's folder, the weights before, and how far outputs are off."""
    tuned = trained(base(), plan)
    before = {name: tensor.clone() for name, tensor in tuned.model.state_dict().items()}
    whole = place_of(plan, folder)
    part = whole.with_suffix(".part")
    off = save_peft(tuned, base(), part / "adapter")
    torch.save(scores(tuned), part / "scores.pt")
    part.rename(whole)
    return tuned, whole / "adapter", before, off


@pytest.mark.filterwarnings("ignore:Specified to not:UserWarning")  # VeRA: the seed is in the file
@pytest.mark.parametrize(
    "plan", [plan if plan in QUICK else pytest.param(plan, marks=pytest.mark.slow) for plan in WRITTEN]
)
def test_what_is_written_gives_the_trained_outputs(base, shared_folder, plan):
    tuned, adapter, before, off = write(plan, base, shared_folder)
    assert 0 <= off <= EXACT
    found = alone(base(), adapter)
    torch.testing.assert_close(found, scores(tuned), rtol=0, atol=EXACT)
    with torch.no_grad():
        assert (found - base().eval()(**inputs())).abs().max() > 100 * EXACT, "training shows"
    assert all(tensor.equal(before[name]) for name, tensor in tuned.model.state_dict().items())
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert set(config["modules_to_save"]) == {"mix", "answer"}


@pytest.mark.parametrize("plan", ROUNDED)
def test_over_a_rounded_base_it_says_how_far_the_float_one_is(base, tmp_path, plan):
    tuned = trained(base(), plan)
    assert 1e-3 < save_peft(tuned, base(), tmp_path) < CLOSE
    torch.testing.assert_close(alone(base(), tmp_path), scores(tuned), rtol=0, atol=CLOSE)


@pytest.mark.slow
def test_peft_alone_gives_the_same_outputs(foreign, base, shared_folder, tmp_path):
    """Of what the test above has written."""
    expected = {}
    for number, plan in enumerate(WRITTEN):
        made = place_of(plan, shared_folder)
        if not made.exists():  # not asked for, or not written yet
            made = write(plan, base, tmp_path)[1].parent
        shutil.copytree(made / "adapter", tmp_path / "all" / str(number))
        expected[plan] = torch.load(made / "scores.pt", weights_only=True)
    code = CODE.format(place=str(foreign.__file__.rpartition("/")[0]), folder=str(tmp_path / "all"))
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True)
    for number, plan in enumerate(WRITTEN):
        found = torch.load(tmp_path / "all" / str(number) / "outputs.pt", weights_only=True)
        torch.testing.assert_close(found, expected[plan], rtol=0, atol=EXACT, msg=lambda text, plan=plan: plan + text)


def test_every_strategy_with_adapters_of_peft_is_written_or_refused():
    adapters = {name for name, strategy in catalogue().items() if strategy.packages == ADAPTER_PACKAGES}
    known = {member.name for plan in (*WRITTEN, *ROUNDED, *REFUSED) for member in compose(plan).members}
    assert adapters <= known


def test_running_statistics_of_a_head_are_written(base, tmp_path):
    tuned = trained(Normed(base()), "lora")
    save_peft(tuned, Normed(base()), tmp_path)
    torch.testing.assert_close(alone(Normed(base()), tmp_path), scores(tuned), rtol=0, atol=EXACT)


@pytest.mark.filterwarnings("ignore:fan_in_fan_out:UserWarning", "ignore:.is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("plan", ["lora", "dora", "pure_bf16+lora"])
def test_layers_that_were_straightened_are_read_back(foreign, tmp_path, plan):
    tuned = compose(plan).apply(foreign.build("gpt"), total_steps=3, lr=1e-2)
    for _ in range(3):
        tuned.step(foreign.loss, foreign.batch("gpt"))
    tolerance = CLOSE if "bf16" in plan else EXACT
    assert save_peft(tuned, foreign.build("gpt"), tmp_path) <= tolerance
    model = PeftModel.from_pretrained(foreign.build("gpt"), tmp_path).eval()
    with torch.no_grad(), tuned.evaluating():
        expected = foreign.outputs(tuned.model, foreign.batch("gpt")).float()
        torch.testing.assert_close(foreign.outputs(model, foreign.batch("gpt")), expected, rtol=0, atol=tolerance)


def test_adapters_that_torchs_fast_path_passes_by_are_refused(tmp_path):
    def build(*, fast):
        torch.manual_seed(0)
        return Encoding(fast=fast)

    plan = "lora(scope='tower', target_modules=['linear1'])+freeze(scope='embed')"
    message = r"passes by.*'tower\.layers\.0\.linear1'.*EncoderLayer"
    refused(trained(build(fast=True), plan), build(fast=True), tmp_path, message)
    tuned = trained(build(fast=False), plan)
    save_peft(tuned, build(fast=False), tmp_path)
    torch.testing.assert_close(alone(build(fast=False), tmp_path), scores(tuned), rtol=0, atol=EXACT)


REFUSED = {
    "full": "no PEFT adapter in this plan",
    "houlsby": "no PEFT adapter in this plan",
    "bitfit": "no PEFT adapter in this plan",
    "pissa": "'pissa' changed the base weights",
    "olora": "'olora' changed the base weights",
    "nf4+pissa": "'pissa' changed the base weights",
    **{TYPES[kind]: f"PEFT's {kind.upper()} has .* for a whole model.*freeze the other" for kind in WHOLE_MODEL},
    "boft(boft_n_butterfly_factor=2)": "boft_n_butterfly_factor=2 is read as 1",
    "nf4+shira": "works on packed weights",
    "lora(scope='vision')+ia3(scope='text')": "type LORA.*of IA3",
    "ia3+lora(scope='head', target_modules=['answer'])": "'answer' is an adapter in a new part",
    "vera(scope='vision', r=4)+vera(scope='text', r=8)": "differ in r, for which PEFT's file has one place",
    "lora(scope='vision', dropout=0.1)+lora(scope='text')": "differ in lora_dropout",
    "lora(scope='vision')+bitfit(scope='text')": r"trains beside adapters, within a tower.*freeze\(scope='text'\)",
    "lora(scope='vision')": r"trains beside adapters, within a tower.*freeze\(scope='text'\) in the plan",
    "lora(scope='text')": r"trains beside adapters, within a tower.*freeze\(scope='vision'\) in the plan",
}


@pytest.mark.parametrize(("plan", "message"), REFUSED.items())
def test_what_peft_files_cannot_hold_is_refused(base, tmp_path, plan, message):
    refused(trained(base(), plan), base(), tmp_path, message)


def test_what_peft_reads_back_is_held_against_what_was_trained(base, tmp_path):
    tuned = trained(base(), "lora")
    layer = next(part for part in tuned.model.modules() if isinstance(part, BaseTunerLayer))
    layer.set_scale("default", 0.9)  # which no file knows
    refused(tuned, base(), tmp_path, "is not the trained one when PEFT reads it back")
    tuned = trained(base(), "lora")
    with torch.no_grad():
        tuned.model.seeing.layernorm.bias.add_(1)
    refused(tuned, base(), tmp_path, r"'seeing\.layernorm\.bias' is another one in the fresh base")


def test_towers_of_different_widths(foreign, tmp_path):
    def build():
        torch.manual_seed(0)
        model = foreign.TwoTowers()
        model.reading = BertModel(BertConfig(**{**foreign.BERT, "hidden_size": 64}), add_pooling_layer=False)
        model.mix = nn.Linear(96, 32)
        return model

    tuned = trained(build(), "lora")
    save_peft(tuned, build(), tmp_path / "lora")
    torch.testing.assert_close(alone(build(), tmp_path / "lora"), scores(tuned), rtol=0, atol=EXACT)
    (tmp_path / "vera").mkdir()
    refused(trained(build(), "vera"), build(), tmp_path / "vera", "PEFT's VERA has .* for a whole model")
