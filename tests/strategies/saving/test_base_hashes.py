"""A saved folder knows the base it was tuned on: hashes taken before a plan changes it, compared before one does."""

import hashlib
import json
import time
import warnings

import pytest
import torch
from torch import nn

from strategies import PlanError, compose, load, load_checkpoint, load_plain, save_checkpoint
from strategies.saving.base_hashes import check_base, from_json, hash_base, to_json
from strategies.training import apply as apply_module


def names_of(model):
    return [name for name, _ in model.named_parameters()]


def manifest_of(folder):
    return json.loads((folder / "manifest.json").read_text())


def sha256(tensor):
    return hashlib.sha256(tensor.detach().contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()


def other_base(foreign, *names):
    model = foreign.build("two")
    with torch.no_grad():
        for name in names or ["seeing.layers.0.mlp.fc1.weight"]:
            model.get_parameter(name).flatten()[-1] += 1e-3
    return model


@pytest.mark.parametrize(
    "text",
    ["lora", "pissa", "olora", "nf4+lora", "int8+lora", "pure_bf16+lora", "freeze(last_n=1)", "bitfit", "houlsby"],
)
def test_another_base_is_refused_by_name_whatever_the_plan_did_to_the_base(text, foreign, tmp_path):
    plain = foreign.build("two")
    tuned = compose(text).apply(foreign.build("two"))
    tuned.save(tmp_path)
    recorded = from_json(manifest_of(tmp_path)["base_sha256"])
    for name in ("seeing.layers.0.mlp.fc1.weight", "reading.encoder.layer.0.attention.self.query.weight"):
        assert recorded[name] == ("float32", sha256(plain.get_parameter(name)))
    assert not any(name.startswith(("mix", "answer")) for name in recorded)
    saved = set(tuned.saved_names) & set(recorded)
    assert saved == set()
    assert (
        load(tmp_path, foreign.build("two")).base_note == f"verified: {len(recorded)} tensors are those it was tuned on"
    )
    with pytest.raises(PlanError, match=r"another base: 1 of \d+ tensors \(seeing.layers.0.mlp.fc1.weight\) differ"):
        load(tmp_path, other_base(foreign))


def test_the_error_names_three_and_counts_all(foreign, tmp_path):
    compose("lora").apply(foreign.build("two")).save(tmp_path)
    every = [f"reading.encoder.layer.{n}.attention.self.{part}.bias" for n in range(2) for part in ("query", "key")]
    with pytest.raises(
        PlanError, match=rf"4 of \d+ tensors \({every[0]}, {every[1]}, {every[2]} …\) differ; load that"
    ):
        load_plain(tmp_path, other_base(foreign, *every))


def test_what_is_saved_whole_has_no_hash(foreign, tmp_path):
    for text in ("full", "lisa(n=1)", "full(lr=1e-3)+ema"):
        compose(text).apply(foreign.build("two")).save(tmp_path)
        assert manifest_of(tmp_path)["base_sha256"] == {}, text
    frozen = foreign.build("two")
    frozen.seeing.requires_grad_(False)
    tuned = compose("amp(dtype='bf16')").apply(frozen)
    assert set(tuned.base) == {f"seeing.{name}" for name in names_of(frozen.seeing)}
    part = compose("lora(scope='text')").apply(foreign.build("two"))  # the other tower trains, and is saved
    assert {name.partition(".")[0] for name in part.base} == {"reading"}


def test_a_wider_base_is_rounded_and_compared_a_narrower_one_is_said_to_be_unverified(foreign, tmp_path):
    halves = foreign.build("text").bfloat16()
    recorded = hash_base(halves, names_of(halves))
    checked = check_base(tmp_path, recorded, halves.float())
    assert checked.exact is False
    assert checked.note.startswith("verified: ")
    with pytest.raises(PlanError, match="another base"):
        check_base(tmp_path, recorded, changed(foreign.build("text")))
    compose("lora").apply(foreign.build("text")).save(tmp_path)
    with pytest.warns(UserWarning, match=r"not verified: \d+ of \d+ tensors .*, bfloat16 here and float32 where"):
        note = check_base(
            tmp_path, from_json(manifest_of(tmp_path)["base_sha256"]), foreign.build("text").bfloat16()
        ).note
    assert note.startswith("not verified")


def changed(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    return model


def test_quantised_bases_are_known_by_codes_and_scales(tmp_path):
    import bitsandbytes as bnb

    def make(kind):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 2))
        if kind == "4-bit":
            layer = bnb.nn.Linear4bit(64, 64, quant_type="nf4", compress_statistics=True)
        else:
            layer = bnb.nn.Linear8bitLt(64, 64, has_fp16_weights=False)
        layer.load_state_dict(model[0].state_dict())
        model[0] = layer
        return model.to("cpu")

    for kind in ("4-bit", "8-bit"):
        model = make(kind)
        recorded = hash_base(model, ["0.weight"])
        assert recorded["0.weight"].dtype == {"4-bit": "uint8", "8-bit": "int8"}[kind]
        assert check_base(tmp_path, recorded, make(kind)).exact
        model(torch.randn(2, 64))  # bitsandbytes moves the scales of 8 bits from the weight to the layer
        assert hash_base(model, ["0.weight"]) == recorded
        scales = model[0].weight.quant_state.state2.absmax if kind == "4-bit" else model[0].state.SCB
        scales.mul_(2)
        with pytest.raises(PlanError, match=r"1 of 1 tensors \(0\.weight\) differ"):
            check_base(tmp_path, recorded, model)
        with pytest.warns(UserWarning, match=r"float32 here and u?int8 where it was tuned"):
            check_base(tmp_path, recorded, nn.Sequential(nn.Linear(64, 64)))


def test_tied_tensors_are_hashed_once_strided_and_empty_ones_too_and_none_without_values():
    model = nn.Module()
    model.one, model.other = nn.Linear(3, 4), nn.Linear(3, 4)
    model.other.weight = model.one.weight
    model.turned, model.empty = nn.Parameter(torch.randn(4, 5).t()), nn.Parameter(torch.zeros(0, 3))
    model.single, model.eighth = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.ones(3).to(torch.float8_e4m3fn))
    hashes = hash_base(model, [*names_of(model), "other.weight"])
    assert set(hashes) == {"turned", "empty", "single", "eighth", "one.weight", "one.bias", "other.bias"}
    assert hashes["turned"].sha256 == sha256(model.turned)
    assert from_json(to_json(hashes)) == hashes
    assert hash_base(model.to("meta"), names_of(model)) == {}


def test_folders_of_before_load_and_say_that_the_base_was_not_verified(foreign, tmp_path):
    compose("lora").apply(foreign.build("text")).save(tmp_path)
    facts = json.loads((tmp_path / "plan.json").read_text())
    assert (facts["format"], facts["head"]) == (3, ["classifier"])
    (tmp_path / "plan.json").write_text(json.dumps({**facts, "format": 2, "head": "classifier"}))
    (tmp_path / "manifest.json").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tuned = load(tmp_path, foreign.build("text"))
    assert "  base       not verified: the folder has no hashes of it" in tuned.describe()


def test_a_checkpoint_goes_on_on_its_own_base_only(foreign, tmp_path):
    tuned = compose("lora").apply(foreign.build("two"))
    tuned.step(foreign.loss, foreign.batch("two"))
    save_checkpoint(tuned, tmp_path / "state.pt")
    load_checkpoint(compose("lora").apply(foreign.build("two")), tmp_path / "state.pt")
    with pytest.raises(PlanError, match=r"state\.pt was tuned on another base: 1 of"):
        load_checkpoint(compose("lora").apply(other_base(foreign)), tmp_path / "state.pt")


def test_hashing_is_no_part_of_the_plans_setup(foreign, monkeypatch):
    def slow(*arguments):
        time.sleep(0.3)
        return hash_base(*arguments)

    monkeypatch.setattr(apply_module, "hash_base", slow)
    assert compose("lora").apply(foreign.build("two")).setup_seconds < 0.3


def test_hashing_copies_nothing_and_takes_as_long_as_sha256(monkeypatch):
    model = nn.ParameterList([nn.Parameter(torch.zeros(1 << 20)) for _ in range(8)])
    plain = memoryview(torch.zeros(1 << 23).numpy())

    def seconds(work):
        times = []
        for _ in range(3):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        return min(times)

    names = names_of(model)
    assert seconds(lambda: hash_base(model, names)) < 2 * seconds(lambda: hashlib.sha256(plain).hexdigest()) + 0.02
    seen = []
    monkeypatch.setattr("hashlib.sha256", lambda: Recorder(seen))
    hash_base(model, names)
    assert [part.obj.ctypes.data for part in seen] == [parameter.data_ptr() for parameter in model]


class Recorder:
    def __init__(self, seen):
        self.update = seen.append

    def hexdigest(self):
        return ""


def test_what_was_loaded_or_merged_is_in_evaluation_mode_and_trains_on_in_training_mode(foreign, tmp_path):
    tuned = compose("lora").apply(foreign.build("two"))
    tuned.save(tmp_path)
    again = load(tmp_path, foreign.build("two"))
    assert not any(module.training for module in again.model.modules())
    again.step(foreign.loss, foreign.batch("two"))
    assert again.model.training
    plain = foreign.build("two")
    load_plain(tmp_path, plain)
    again.merge()
    assert not any(module.training for model in (plain, again.model) for module in model.modules())
