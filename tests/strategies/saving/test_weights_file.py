"""What a saved folder must hold, and what is said of one that is damaged."""

import json

import pytest

from strategies import Plan, PlanError, Strategy, baseline, compose, load


def scores(foreign, tuned):
    with tuned.evaluating():
        return foreign.outputs(tuned.model, foreign.batch("two"))


@pytest.mark.parametrize("text", ["freeze", "freeze(scope='fusion')", "lora(scope='head', target_modules=['answer'])"])
def test_new_parts_come_back_whatever_seed_the_next_base_has(text, foreign, tmp_path):
    tuned = compose(text).apply(foreign.build("two"))
    tuned.step(foreign.loss, foreign.batch("two"))
    tuned.save(tmp_path)
    base = foreign.build("two")
    base.mix.reset_parameters()
    base.answer.reset_parameters()
    assert not base.mix.weight.equal(foreign.build("two").mix.weight)
    assert scores(foreign, load(tmp_path, base)).equal(scores(foreign, tuned))


def test_quantised_new_parts_are_refused(foreign):
    with pytest.raises(PlanError, match="new part"):
        compose("nf4(scope='*')+lora(scope='*')").apply(foreign.build("two"))


def test_a_later_default_changes_no_saved_plan(foreign, tmp_path):
    compose("lora").apply(foreign.build("two")).save(tmp_path)
    path = tmp_path / "plan.json"
    facts = json.loads(path.read_text())
    assert facts["plan"] == "lora"
    assert facts["members"] == compose("lora").canonical()
    facts["members"][0]["alpha"] = 3
    path.write_text(json.dumps(facts))
    (tmp_path / "manifest.json").unlink()  # which would say that the plan was changed
    assert load(tmp_path, foreign.build("two")).plan == compose("lora(alpha=3)")


@pytest.mark.parametrize(
    ("content", "words"),
    [("no tensors", r"tuned\.safetensors cannot be read"), (None, r"holds no tuned\.safetensors")],
)
def test_folders_without_a_manifest_are_read(content, words, foreign, tmp_path):
    compose("freeze").apply(foreign.build("mlp")).save(tmp_path)
    (tmp_path / "manifest.json").unlink()
    load(tmp_path, foreign.build("mlp"))
    path = tmp_path / "tuned.safetensors"
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(PlanError, match=words):
        load(tmp_path, foreign.build("mlp"))


def test_the_manifest_has_hashes_plan_and_versions(foreign, tmp_path):
    size = compose("freeze").apply(foreign.build("mlp")).save(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert sum(file["bytes"] for file in manifest["files"].values()) == size
    assert set(manifest["files"]) == {"plan.json", "tuned.safetensors"}
    assert all(len(file["sha256"]) == 64 for file in manifest["files"].values())
    assert manifest["plan"] == "freeze"
    assert {"torch", "peft"} <= set(manifest["packages"])


def test_the_baseline_is_the_empty_sum(foreign, tmp_path):
    assert baseline() == Plan(()) == compose("full")
    baseline().apply(foreign.build("mlp")).save(tmp_path)
    assert load(tmp_path, foreign.build("mlp")).plan == baseline()
    assert all(isinstance(member, Strategy) for member in compose("full+amp").members)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("plan.json", "{", r"plan\.json is no JSON"),
        ("plan.json", "[]", r"plan\.json should hold an object"),
        ("plan.json", '{"format": 1}', r"plan\.json has format 1"),
        ("plan.json", '{"format": 2, "head": "4", "seed": 0, "members": [3]}', r"plan\.json is damaged.*members"),
        ("plan.json", '{"format": 2, "members": []}', r"plan\.json is damaged.*head, seed"),
        ("plan.json", None, r"holds no plan\.json"),
        ("plan.json", '{"format": 2, "head": "4", "seed": 0, "members": []}', r"plan\.json: is damaged"),
        ("tuned.safetensors", "no tensors", r"tuned\.safetensors: is damaged \(not the hash in manifest\.json\)"),
        ("tuned.safetensors", None, r"tuned\.safetensors: is missing"),
        ("manifest.json", "{", r"manifest\.json: not readable as JSON"),
        ("manifest.json", "{}", r"manifest\.json: not a manifest"),
    ],
)
def test_damaged_folders_name_the_file(name, content, words, foreign, tmp_path):
    compose("freeze").apply(foreign.build("mlp")).save(tmp_path)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(content)
    with pytest.raises(PlanError, match=words):
        load(tmp_path, foreign.build("mlp"))
