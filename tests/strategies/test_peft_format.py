"""Adapters written in PEFT's format are loaded by PEFT alone, in a process that never imports this package."""

import json
import subprocess
import sys

import pytest
import torch

from strategies import PlanError, compose, save_peft

CODE = """
import sys
sys.path.insert(0, {place!r})
import torch, foreign
from peft import PeftModel
torch.manual_seed(0)
model = PeftModel.from_pretrained(foreign.{name}(), {folder!r}).eval()
torch.manual_seed(1)
with torch.no_grad():
    outputs = model(**{inputs})
torch.save(outputs, {folder!r} + "/outputs.pt")
assert not any(name.split(".")[0] == "strategies" for name in sys.modules)
"""
INPUTS = "dict(x=torch.randn(4, 3, 16, 16), ids=torch.randint(1, 40, (4, 6)))"


def trained(foreign, plan, steps=3):
    torch.manual_seed(0)
    tuned = compose(plan).apply(foreign.TwoTowers(), total_steps=steps, lr=1e-2)
    torch.manual_seed(2)
    for _ in range(steps):
        batch = {"x": torch.randn(8, 3, 16, 16), "ids": torch.randint(1, 40, (8, 6)), "y": torch.randint(0, 3, (8,))}
        tuned.step(lambda model, b: torch.nn.functional.cross_entropy(model(b["x"], b["ids"]), b["y"]), batch)
    return tuned


@pytest.fixture
def base(foreign):
    def build():
        torch.manual_seed(0)
        return foreign.TwoTowers()

    return build


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plan", "tolerance"),
    [("lora", 1e-5), ("rslora", 1e-5), ("dora", 1e-5), ("loraplus", 1e-5), ("nf4+lora", 0.5)],
)
def test_peft_alone_gives_the_same_outputs(foreign, base, tmp_path, plan, tolerance):
    tuned = trained(foreign, plan)
    save_peft(tuned, base(), tmp_path)
    code = CODE.format(
        place=str(foreign.__file__.rpartition("/")[0]), name="TwoTowers", folder=str(tmp_path), inputs=INPUTS
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True)
    torch.manual_seed(1)
    with tuned.evaluating():
        inputs = {"x": torch.randn(4, 3, 16, 16), "ids": torch.randint(1, 40, (4, 6))}
        expected = tuned.model(**inputs)
    found = torch.load(tmp_path / "outputs.pt", weights_only=True)
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)
    with torch.no_grad():
        assert (found - base().eval()(**inputs)).abs().max() > 10 * min(tolerance, 1e-4), "training shows"
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert set(config["modules_to_save"]) == {"mix", "answer"}


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ("full", "no PEFT adapter in this plan"),
        ("houlsby", "no PEFT adapter in this plan"),
        ("pissa", "'pissa' changed the base weights"),
        ("vera", "PEFT's type VERA, only LORA is written"),
        ("ia3", "PEFT's type IA3, only LORA is written"),
        ("lora(scope='vision', r=4)+lora(scope='text', r=8)", "differ in"),
        ("lora(scope='vision')+ia3(scope='text')", "PEFT's type IA3"),
        ("lora(scope='vision')+bitfit(scope='text')", "trains beside adapters, within a tower"),
    ],
)
def test_what_peft_files_cannot_hold_is_refused(base, tmp_path, plan, message):
    tuned = compose(plan).apply(base(), total_steps=3)
    with pytest.raises(PlanError, match=message) as caught:
        save_peft(tuned, base(), tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
