"""The paper of sweeps that were damaged or edited: what cannot be used is left out and said, never a traceback."""

import json

import pytest

from report.figures.catalogue import FIGURES
from report.paper import build
from report.paper.cards import bibtex, references

VISION = {"model_type": "vit", "num_hidden_layers": 1, "hidden_size": 2, "patch_size": 1, "image_size": 2}
TEXT = {"model_type": "bert", "num_hidden_layers": 1, "hidden_size": 2, "vocab_size": 9}


@pytest.fixture
def said(sweep, monkeypatch):
    """Write a side file into a sweep and its paper; return the paper's LaTeX and the printed lines."""
    monkeypatch.setattr(build.shutil, "which", lambda program: None)
    monkeypatch.setattr(build, "save", lambda *_, **__: None)  # nothing here is about figures
    monkeypatch.setattr(build, "FIGURES", dict.fromkeys(FIGURES, lambda _: None))

    def write(file, value, folder=None):
        folder = folder or sweep()
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(json.dumps(value))
        lines = build.write_paper(folder)
        return (folder / "paper" / "paper.tex").read_text(), " ".join(lines)

    return write


@pytest.mark.slow
@pytest.mark.parametrize(
    "value",
    [
        {"configuration": 3},
        {"configuration": {"vision_config": None, "text_config": 3}},
        {"configuration": {"vision_config": VISION, "text_config": TEXT | {"vocab_size": "many"}}},
        {"configuration": {"vision_config": VISION, "text_config": TEXT}, "parameters": "x"},
        {"configuration": {"vision_config": VISION, "text_config": TEXT}, "flops": {"all": "y"}},
        {"configuration": {"vision_config": VISION, "text_config": TEXT}, "diagram": "z"},
    ],
)
def test_a_model_of_another_form_is_noted_and_left_out(said, value):
    text, lines = said("model.json", value)
    assert "no description of a model of two encoders" in text
    assert "model.json: not of the form that a sweep writes" in lines


def test_an_example_of_another_form_is_noted_and_left_out(said):
    examples = [{"question": "Is it a dodo?", "answers": None}, {"question": "and this", "answers": ["yes"]}]
    text, lines = said("examples/examples.json", examples)
    assert "Is it a dodo?" not in text
    assert "and this" in text
    assert "examples.json: not of the form" in lines


def test_a_picture_that_cannot_be_decoded_is_not_shown(said, sweep):
    folder = sweep()
    (folder / "examples").mkdir()
    (folder / "examples" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    text, _ = said("examples/examples.json", [{"question": "Is it a dodo?", "answers": [], "image": "bad.png"}], folder)
    assert "Is it a dodo?" in text
    assert "example-0" not in text


def test_a_record_of_another_form_is_noted(said, row):
    name = f"runs/{row('full')['run_id']}/record.json"
    _, lines = said(name, {"environment": [1]})
    assert f"{name}: not of the form" in lines


def test_addresses_cannot_act_on_latex():
    text = bibtex(references("lora", r"https://x.y/%}{#_, https://x.y/a\b"))
    assert r"\url{https://x.y/\%\%7D\%7B\#_}" in text
    assert r"\url{https://x.y/a\%5Cb}" in text


def test_a_sweep_without_seeds_has_a_paper(sweep):
    text = build.compose(sweep(drop=("seed",)))[0]
    assert "with 0 seeds" not in text
    assert "Two seeds" not in text
