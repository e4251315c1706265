"""Fusion heads: how they are written, what each multiplies, and that each learns to look."""

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from vqa_model.modeling.fusion.registry import FUSIONS, MAX_LAYERS, FusionCall, build_fusion, parse_fusion
from vqa_model.task import VQATask


def test_a_fusion_is_a_name_or_a_call():
    assert parse_fusion("hadamard") == FusionCall("hadamard")
    assert parse_fusion(" cross_attention( layers = 3 ) ") == FusionCall("cross_attention", 3)
    assert parse_fusion("co_attention()") == FusionCall("co_attention")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sum", "'sum' is not known; choose from concat, hadamard"),
        ("hadamard(layers=2)", "'hadamard' has no option layers; it has: none"),
        ("cross_attention(depth=2)", "has no option depth; it has: layers"),
        ("cross_attention(2)", "cannot be read; write it like"),
        ("cross_attention(layers=0)", "layers is a number from 1 to 24"),
        ("cross_attention(layers='2')", "layers is a number from 1 to 24"),
        ("cross_attention(layers=1+1)", "layers is a number from 1 to 24"),
        ("cross_attention(**x)", "has no option None"),
        ("a.b", "cannot be read"),
        ("__import__('os')", "cannot be read"),
        ("(", "cannot be read"),
        ("", "cannot be read"),
    ],
)
def test_what_is_no_fusion_is_told_in_one_line(text, message):
    for read in (parse_fusion, lambda written: VQATask(fusion=written)):
        with pytest.raises(ValueError, match=r"^[^\n]*$") as caught:
            read(text)
        assert message in str(caught.value)


@given(st.text(max_size=30))
@example("\0")
@example("\ud800")  # half a character, which no encoding has
def test_any_text_is_read_or_refused(text):
    try:
        name = parse_fusion(text).name
    except ValueError as error:
        name = str(error).split()[0]
    assert name in {*FUSIONS, "fusion"}


@given(
    st.sampled_from([name for name, kind in FUSIONS.items() if "layers" in kind.options]), st.integers(1, MAX_LAYERS)
)
def test_layers_are_what_was_asked_for(name, layers):
    assert parse_fusion(f"{name}(layers={layers})") == FusionCall(name, layers)


def test_the_layers_are_built_and_known_to_the_fingerprint(small_world):
    tasks = [VQATask(data=str(small_world), min_count=1, fusion=f"cross_attention(layers={n})") for n in (1, 2)]
    plain = VQATask(data=str(small_world), min_count=1)
    assert [len(task.build_model().fusion.layers) for task in tasks] == [1, 2]
    assert tasks[0].model_fingerprint() == plain.model_fingerprint() != tasks[1].model_fingerprint()


@pytest.mark.slow
@pytest.mark.parametrize("name", FUSIONS)
def test_a_fusion_learns_what_only_both_together_tell(name):
    """The answer is the sum of what the question and the picture say: either alone is worth a guess."""
    torch.manual_seed(0)
    fusion, head = build_fusion(name, (16, 16, 32), heads=2, layers=1), torch.nn.Linear(32, 4)
    words, kinds = torch.randn(4, 16), torch.randn(4, 16)
    parameters = [*fusion.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=3e-3)

    def draw(count):
        asked, seen = torch.randint(0, 4, (2, count))
        text = torch.cat([words[asked][:, None], torch.randn(count, 2, 16)], dim=1)
        image = kinds[seen][:, None] + 0.1 * torch.randn(count, 5, 16)
        return (text, torch.tensor([[1, 1, 0]]).expand(count, 3), image), (asked + seen) % 4

    for _ in range(150):
        inputs, goal = draw(64)
        optimizer.zero_grad()
        cross_entropy(head(fusion(*inputs)), goal).backward()
        optimizer.step()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in parameters)
    with torch.no_grad():
        inputs, goal = draw(500)
        right = (head(fusion(*inputs)).argmax(1) == goal).float().mean().item()
    assert right > 0.9
