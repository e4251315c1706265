"""From a finished run to a folder that answers: manifest, export, merge, official score."""

import json
import re
import shutil

import pandas as pd
import pytest
import torch
from huggingface_hub import ModelCard
from peft import PeftModel

from bench.records.manifest import check_manifest
from bench.records.results_folder import InputError
from strategies.saving.manifest import file_hash
from tests.scripts import forked_code
from vqa_model.answering.answerer import Answerer
from vqa_model.modeling.vqa import VQAModel
from vqa_model.score import main as score
from vqa_model.task import VQATask

pytestmark = pytest.mark.slow


def rows(folder):
    table = pd.read_csv(folder / "runs.csv")
    return {row["strategy"]: row for row in table.to_dict("records")}


def run_of(folder, strategy):
    return folder / "runs" / rows(folder)[strategy]["run_id"]


def test_every_run_writes_the_official_results(sweep, world, capsys):
    for strategy, row in rows(sweep).items():
        files = {
            "--questions": world / "v2_OpenEnded_mscoco_val2014_questions.json",
            "--annotations": world / "v2_mscoco_val2014_annotations.json",
            "--results": sweep / "runs" / row["run_id"] / "results.json",
        }
        assert score([str(word) for pair in files.items() for word in pair]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["overall"] == pytest.approx(100 * row["vqa_accuracy"], abs=0.01), strategy


def test_the_manifest_holds_plan_metrics_and_hashes(sweep):
    row = rows(sweep)["lora"]
    manifest = check_manifest(run_of(sweep, "lora") / "weights")
    assert manifest["run_id"] == row["run_id"]
    assert manifest["plan"] == "lora"
    assert manifest["members"][0]["name"] == "lora"
    assert manifest["metrics"]["vqa_accuracy"] == pytest.approx(row["vqa_accuracy"], rel=1e-5)
    assert set(manifest["files"]) == {"tuned.safetensors", "plan.json"}
    assert sum(facts["bytes"] for facts in manifest["files"].values()) == row["saved_bytes"]


@pytest.fixture
def exported(sweep, matrix, tmp_path):
    def export(recipe):
        done = matrix("export", recipe, "--in", sweep, "--out", tmp_path / "my model")
        assert recipe in done.stdout
        return tmp_path / "my model"

    return export


@pytest.mark.parametrize(("recipe", "tolerance"), [("full", 0), ("lora", 1e-5), ("qlora", 2e-3)])
def test_an_exported_model_answers_as_its_run_did(sweep, world, exported, recipe, tolerance):
    out = exported(recipe)
    recorded = pd.read_parquet(run_of(sweep, recipe) / "predictions.parquet").set_index("id")
    task = VQATask(data=str(world))
    questions = task.eval_set().questions
    answers = Answerer.load(out).answer_all([(task.picture_file(q.image_id), q.text) for q in questions], top=2)
    for question, (best, second) in zip(questions, answers, strict=True):
        then = recorded.loc[question.id]
        assert best.probability == pytest.approx(then.probability, abs=max(tolerance, 1e-6))
        assert best.text == then.prediction or best.probability - second.probability <= 2 * tolerance + 1e-6
    manifest = check_manifest(out)
    assert manifest["run_id"] == rows(sweep)[recipe]["run_id"]
    card = ModelCard.load(out / "README.md")
    assert any(result.metric_name == "F1, macro" for result in card.data.eval_results)
    model = VQAModel.from_pretrained(out)
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert not any("lora" in name for name in model.state_dict())


def test_the_python_that_the_readme_shows_for_weights_runs(sweep, world, matrix, root, tmp_path):
    matrix("export", "lora", "--in", sweep, "--out", tmp_path / "exported" / "lora")
    shutil.copy(min((world / "val2014").iterdir()), tmp_path / "cat.jpg")
    (code,) = re.findall(r"```python\n(from vqa_model.*?)```", (root / "README.md").read_text(), re.DOTALL)
    assert len(forked_code(code, cwd=tmp_path).splitlines()) == 5


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # PEFT asks by the old name
def test_adapters_in_pefts_format_are_the_runs(sweep, world, matrix, tmp_path):
    done = matrix("export", "lora", "--in", sweep, "--out", tmp_path / "adapter", "--format", "peft")
    assert float(re.search(r"off by (\S+) at most", done.stdout).group(1)) <= 1e-5
    for name in ("adapter_config.json", "README.md"):
        text = (tmp_path / "adapter" / name).read_text()
        assert str(tmp_path.parent) not in text
        assert str(sweep) not in text
        assert str(world.parent) not in text
    task = VQATask(data=str(world))
    torch.manual_seed(0)
    model = PeftModel.from_pretrained(task.build_model(), tmp_path / "adapter").eval()
    items = task.eval_set()
    with torch.no_grad():
        found = task.predict(model, task.collate([items[place] for place in range(len(items))]))
    recorded = pd.read_parquet(run_of(sweep, "lora") / "predictions.parquet").set_index("id")
    for prediction in found:
        assert prediction["probability"] == pytest.approx(recorded.loc[prediction["id"]].probability, abs=1e-4)
    assert set(check_manifest(tmp_path / "adapter")["files"]) >= {"adapter_config.json", "adapter_model.safetensors"}
    done = matrix("export", "full", "--in", sweep, "--out", tmp_path / "none", "--format", "peft", status=2)
    assert "no PEFT adapter in this plan" in done.stderr


def test_adapters_that_cannot_be_merged_are_refused(sweep, matrix, tmp_path):
    done = matrix("export", "houlsby", "--in", sweep, "--out", tmp_path / "h", status=2)
    assert "bottleneck adapter" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "h").exists()


def test_export_says_in_one_line_what_is_wrong(sweep, matrix, tmp_path, world):
    moved = tmp_path / "moved"
    shutil.copytree(sweep, moved)
    weights = run_of(moved, "lora") / "weights" / "tuned.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("important")
    other = tmp_path / "other"
    shutil.copytree(world, other)
    annotations = other / "v2_mscoco_val2014_annotations.json"
    annotations.write_text(annotations.read_text().replace('"answer": "yes"', '"answer": "yeah"'))
    for words, message in (
        (["lora", "--in", moved, "--out", tmp_path / "a"], "tuned.safetensors: is damaged"),
        (["lora", "--in", sweep, "--out", tmp_path / "mine"], "holds files that export did not write"),
        (["lora", "--in", sweep, "--out", tmp_path / "a", "--data", other], "the data is not what the run had"),
        (["dora", "--in", sweep, "--out", tmp_path / "a"], "no such run or recipe"),
    ):
        done = matrix("export", *words, status=2)
        assert message in done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "important"
    (weights.parent / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"weights: no manifest\.json"):
        check_manifest(weights.parent)
    assert len(file_hash(weights)) == 64


def test_a_run_is_found_by_the_beginning_of_its_id_or_its_folder_and_replaced_when_exported_again(
    sweep, matrix, tmp_path
):
    run_id = rows(sweep)["lora"]["run_id"]
    matrix("export", run_id[:6], "--in", sweep, "--out", tmp_path / "model")
    matrix("export", sweep / "runs" / run_id, "--out", tmp_path / "model")
    assert check_manifest(tmp_path / "model")["run_id"] == run_id
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
