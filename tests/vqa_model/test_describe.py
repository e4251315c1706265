"""What `vqa_model.describe` prints and draws."""

import json
import subprocess
import sys
import time
import xml.etree.ElementTree as ET

import pytest
from transformers import BertConfig, ViTConfig

from vqa_model.describe import main
from vqa_model.modeling.diagram import draw, to_svg, to_tikz
from vqa_model.modeling.fusion.registry import FUSIONS
from vqa_model.modeling.model_summary import count_parts
from vqa_model.modeling.vqa import VQAConfig, VQAModel
from vqa_model.task import VQATask

SHAPE = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}


def config(**changes):
    vision, text = ViTConfig(**SHAPE, image_size=32, patch_size=8), BertConfig(**SHAPE, vocab_size=50)
    answers = {n: f"a{n}" for n in range(7)}
    return VQAConfig(vision, text, **{"fusion_dim": 16, "fusion_layers": 2, "id2label": answers, **changes})


def linear(inputs, outputs, times=1):
    return 2 * inputs * outputs * times


def block(dim, tokens, inner):
    """FLOPs of a transformer layer: four projections, scores and their use, two feed-forward layers."""
    return 4 * linear(dim, dim, tokens) + 2 * 2 * tokens * tokens * dim + 2 * linear(dim, inner, tokens)


def test_flops_are_those_of_the_formula():
    parts = count_parts(config(fusion="concat"), words=6)
    patches = (32 // 8) ** 2
    assert parts["vision"].flops == linear(3 * 8 * 8, 32, patches) + 3 * block(32, patches + 1, 64)
    assert parts["text"].flops == 3 * block(32, 6, 64)
    assert parts["fusion"].flops == linear(64, 16)
    assert parts["head"].flops == linear(16, 16) + linear(16, 7)
    assert parts["all"].flops == sum(parts[name].flops for name in ("vision", "text", "fusion", "head"))


def test_flops_of_attending_fusions_are_counted():
    crossed = count_parts(config(fusion="cross_attention", fusion_layers=1), words=6)["fusion"].flops
    projections = linear(32, 16, 6) + linear(32, 16, 17) + linear(16, 16) + linear(16, 16, 17)
    attention = 3 * linear(16, 16, 6) + 2 * linear(16, 16, 17) + 2 * 2 * 6 * 17 * 16 + 2 * linear(16, 64, 6)
    assert crossed == projections + attention


@pytest.mark.parametrize("fusion", FUSIONS)
def test_parameters_are_those_of_the_model(fusion):
    parts = count_parts(config(fusion=fusion))
    model = VQAModel(config(fusion=fusion))
    assert parts["all"].parameters == model.num_parameters()
    assert parts["fusion"].parameters == sum(p.numel() for p in model.fusion.parameters())


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_drawing_says_what_the_configuration_says(fusion):
    diagram = draw(config(fusion=fusion), {"vision": 1234, "text": 5_000_000, "fusion": 99, "head": 1})
    for written in (to_svg(diagram), to_tikz(diagram)):
        for text in ("3 layers, width 32", "16 of 8", "7 scores", "5.0 M", "1.2 k", fusion.replace("_", " ")):
            assert text in written
    assert ("2 layers" in to_svg(diagram)) == (fusion in {"cross_attention", "co_attention"})
    tree = ET.fromstring(to_svg(diagram))
    boxes = [tuple(float(r.get(k)) for k in ("x", "y", "width", "height")) for r in tree.findall(".//{*}rect")]
    assert len(boxes) == len(diagram.boxes)
    for place, (x, y, w, h) in enumerate(boxes):
        for x2, y2, w2, h2 in boxes[:place]:
            assert x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y, "boxes overlap"
    longest = max(len(text.text) for text in tree.findall(".//{*}text") if text.text.startswith(("width", "3 layers")))
    assert 6.5 * longest < min(w for _, _, w, _ in boxes), "text leaves its box"
    names = {box.name for box in diagram.boxes}
    assert {name for arrow in diagram.arrows for name in arrow} == names


def test_marks_of_xml_and_tex_are_text():
    diagram = draw(config(), {"vision": 1, "text": 1, "fusion": 1, "head": 1})
    odd = type(diagram)((type(diagram.boxes[0])("a", ("50 % <b> & _x#",), "input", 0),), ())
    assert "50 % &lt;b&gt; &amp; _x#" in to_svg(odd)
    assert r"50 \% <b> \& \_x\#" in to_tikz(odd)


def test_the_command_prints_draws_and_compares(capsys, tmp_path):
    assert main(["--diagram", str(tmp_path / "m.svg")]) == 0
    assert "fusion (cross_attention)" in capsys.readouterr().out
    assert ET.parse(tmp_path / "m.svg").getroot().tag.endswith("svg")
    assert main(["--fusion", "all"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1 : 1 + len(FUSIONS)]] == list(FUSIONS)
    assert main(["--fusion", "co_attention(layers=3)", "--json", "--answers", "10"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["co_attention(layers=3)"]["all"]["flops"] > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "huge"], "'huge' is not known; choose from tiny"),
        (["--fusion", "sum"], "'sum' is not known; choose from concat"),
        (["--diagram", "m.png"], "--diagram m.png: draws one --fusion, as .svg or .tex"),
        (["--fusion", "all", "--diagram", "m.svg"], "draws one --fusion"),
        (["--vision", "/nowhere"], "no such folder"),
        (["--words", "0"], "--words 0"),
        (["--words", "65"], "takes at most 64 word pieces"),
        (["--answers", "0"], "--answers 0"),
    ],
)
def test_bad_input_is_one_line(capsys, words, message):
    assert main(words) == 2
    out, error = capsys.readouterr()
    assert not out
    assert error.startswith("vqa_model.describe: ")
    assert message in error
    assert error.count("\n") == 1


def test_help_is_quick(root):
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "vqa_model.describe", "--help"], cwd=root, capture_output=True, text=True, check=True
    )
    assert time.perf_counter() - started < 2
    assert "--fusion all" in done.stdout


def test_the_task_tells_the_report(small_world):
    facts = json.loads(json.dumps(VQATask(data=str(small_world), min_count=1).describe()))
    assert facts["pretrained"] == {"vision": True, "text": True}, "the towers that are shipped"
    assert facts["flops"]["all"] == sum(facts["flops"][part] for part in ("vision", "text", "fusion", "head"))
    assert {box["name"] for box in facts["diagram"]["boxes"]} >= {"vision", "text", "fusion", "head"}


@pytest.mark.parametrize("options", [{"towers": "random"}, {"model": "small"}])
def test_towers_without_weights_are_not_called_pretrained(small_world, options):
    facts = VQATask(data=str(small_world), min_count=1, **options).describe()
    assert facts["pretrained"] == {"vision": False, "text": False}
