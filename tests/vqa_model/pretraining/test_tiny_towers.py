"""`python -m vqa_model.pretrain` makes a ViT and a BERT that the task takes in place of those that ship."""

import pytest
import torch

from vqa_model.pretrain import main
from vqa_model.task import VQATask


@pytest.mark.slow
def test_towers_of_a_few_updates_are_a_model(tmp_path):
    assert main(["--out", str(tmp_path), "--vision-steps", "2", "--text-steps", "2"]) == 0
    torch.set_flush_denormal(False)  # which hypothesis minds
    ours = VQATask(vision=str(tmp_path / "vision"), text=str(tmp_path / "text")).build_model()
    shipped = VQATask().build_model()
    assert {name: p.shape for name, p in ours.named_parameters()} == {n: p.shape for n, p in shipped.named_parameters()}
    towers = [name for name, _ in ours.named_parameters() if name.startswith(("vision", "text"))]
    assert any(not ours.get_parameter(name).equal(shipped.get_parameter(name)) for name in towers)
