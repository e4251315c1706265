"""What users do in notebooks and with models of their own: told at once, or simply right."""

import pytest

from strategies import PlanError, compose, load


def outputs_of(foreign):
    return lambda model: foreign.outputs(model, foreign.batch("two"))


def chain(*layers):
    from torch import nn

    return nn.Sequential(nn.Sequential(*layers), nn.Linear(16, 3))


def step(tuned, times=1):
    import torch

    torch.manual_seed(0)
    batch = {"x": torch.randn(8, 16), "y": torch.arange(8) % 3}
    for _ in range(times):
        tuned.step(lambda model, data: torch.nn.functional.cross_entropy(model(data["x"]), data["y"]), batch)


def test_a_model_takes_one_plan_also_after_an_error(foreign):
    model = foreign.build("two")
    with pytest.raises(PlanError, match="repeated blocks"):
        compose("freeze(last_n=9)").apply(model)
    with pytest.raises(PlanError, match=r"changed by a plan before \(freeze\(last_n=9\)\): build it again"):
        compose("full").apply(model)
    model = foreign.build("two")
    with pytest.raises(PlanError, match="both decide"):
        compose("lora+ia3").apply(model)
    tuned = compose("lora").apply(model)  # refused before anything was changed
    with pytest.raises(PlanError, match="build it again"):
        compose("lora").apply(model)
    tuned.merge()
    step_on = compose("full").apply(foreign.build("two"))
    compose("lora").apply(step_on.model)  # training every weight changes no structure
    assert compose("full").apply(model).counts()["trainable_parameters"] == sum(p.numel() for p in model.parameters())


def test_half_precision_needs_an_optimizer_that_can(foreign):
    import torch

    for dtype in (torch.float16, torch.bfloat16):
        with pytest.raises(PlanError, match=r"round to nothing.*pure_bf16"):
            compose("full").apply(foreign.build("mlp").to(dtype))
    compose("pure_bf16").apply(foreign.build("mlp").to(torch.bfloat16))


def test_evaluations_may_nest(foreign):
    import torch

    tuned, data = compose("amp(dtype='bf16')").apply(foreign.build("two")), foreign.batch("two")
    with tuned.evaluating():
        with tuned.evaluating():
            pass
        assert foreign.outputs(tuned.model, data).dtype == torch.bfloat16
    assert foreign.outputs(tuned.model, data).dtype == torch.float32


def test_dropout_is_no_drift(foreign):
    tuned = compose("lora(dropout=0.3)").apply(foreign.build("two"), lr=1e-2)
    for _ in range(4):
        tuned.step(foreign.loss, foreign.batch("two"))
    assert tuned.merge().layer_drift < 1e-5
    assert not tuned.model.training


def test_shared_weights_are_not_merged(foreign):
    from torch import nn

    one, other = nn.Linear(16, 16), nn.Linear(16, 16)
    other.weight = one.weight
    tuned = compose("lora").apply(chain(one, nn.ReLU(), other), lr=1e-2)
    step(tuned, 3)
    with pytest.raises(PlanError, match="other layers use its weight"):
        tuned.merge()
    step(tuned)


def test_a_failed_merge_changes_nothing(foreign):
    import torch

    tuned = compose("nf4+lora(scope='vision')+fourierft(scope='text')").apply(foreign.build("two"), lr=1e-2)
    for _ in range(3):
        tuned.step(foreign.loss, foreign.batch("two"))
    with tuned.evaluating():
        before = outputs_of(foreign)(tuned.model)
    with pytest.raises(PlanError, match="cannot be merged"):
        tuned.merge()
    with tuned.evaluating():
        assert torch.equal(outputs_of(foreign)(tuned.model), before)


@pytest.mark.parametrize("text", ["lora", "houlsby", "ia3"])
def test_a_layer_in_two_places_is_refused(text):
    from torch import nn

    layer = nn.Linear(16, 16)
    with pytest.raises(PlanError, match="several places"):
        compose(text).apply(chain(nn.Sequential(layer, nn.ReLU()), nn.Sequential(layer, nn.ReLU())))


def test_conv1d_with_a_shared_weight_is_refused():
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    one, other = Conv1D(16, 16), Conv1D(16, 16)
    other.weight = one.weight
    with pytest.raises(PlanError, match="shares its transposed weight"):
        compose("lora").apply(chain(one, nn.ReLU(), other))


def test_rates_given_by_the_caller_are_kept(foreign, tmp_path):
    tuned = compose("lora").apply(foreign.build("two"), lr=5e-2, head_lr=7e-3, total_steps=9)
    tuned.save(tmp_path)
    again = load(tmp_path, foreign.build("two"))
    rates = {(group["name"], group["lr"]) for group in again.optimizer.param_groups}
    assert rates == {("base", 5e-2), ("new", 7e-3)}
    assert again.state.total_steps == 9


def test_small_slips_are_one_line(foreign):
    for text, words in (
        ("compile(backend='foo')", "'foo' is none of"),
        ("layer_decay(scope='answer')", "two or more blocks"),
        ("freeze+lora", "lora freezes the base already: leave freeze out"),
        ("fp16+amp", "both decide 'precision'"),
    ):
        with pytest.raises(PlanError, match=words):
            compose(text).apply(foreign.build("two"))
    with pytest.raises(PlanError, match=r"takes no options.*amp\+checkpointing\+lora\+nf4"):
        compose("lean(r=4)")
