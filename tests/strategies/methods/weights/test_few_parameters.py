"""linear_probe, bitfit and layernorm: what trains, against PEFT and against the definition."""

import pytest

from strategies import PlanError, Recipe
from strategies.methods.numerics.int8 import Int8
from strategies.methods.numerics.nf4 import Nf4
from strategies.methods.weights.bitfit import BitFit
from strategies.methods.weights.freeze import Freeze
from strategies.methods.weights.layernorm import LayerNormTuning
from strategies.methods.weights.linear_probe import LinearProbe


def trains(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_probe_features_never_change(foreign):
    import torch

    torch.manual_seed(11)
    model, data, features = foreign.TwoTowers(0.5), foreign.batch("two"), []
    tuned = Recipe.of([LinearProbe()]).apply(model)
    assert trains(model) == {"answer.weight", "answer.bias"}
    assert {name for name, module in model.named_modules() if module.training} == {"", "answer"}
    model.answer.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0].detach().clone()))
    for _ in range(3):
        tuned.step(foreign.loss, data)
    with tuned.evaluating():
        foreign.outputs(model, data)
    assert all(torch.equal(features[0], other) for other in features)
    assert model.training
    assert model.answer.training
    assert not model.mix.training


def test_probe_differs_from_freeze(foreign):
    model = foreign.build("two")
    Recipe.of([Freeze()]).apply(model)
    assert {"mix.weight", "mix.bias"} < trains(model)


def test_probe_equals_training_the_head_on_stored_features(foreign):
    import torch

    model, data = foreign.build("cnn"), foreign.batch("cnn")
    tuned = Recipe.of([LinearProbe(head_lr=1e-2)]).apply(model, total_steps=5)
    plain = foreign.build("cnn").eval()
    with torch.no_grad():
        features = plain.stages(plain.stem(*data["inputs"])).mean((2, 3))
    head = torch.nn.ModuleDict({"body": torch.nn.Identity(), "head": plain.classifier})
    reference = Recipe.of([]).apply(head, head="head", total_steps=5, head_lr=1e-2)

    def loss(model, batch):
        return torch.nn.functional.cross_entropy(model["head"](batch["features"]), batch["labels"])

    stored = {"features": features, "labels": data["labels"]}
    for _ in range(5):
        assert torch.allclose(tuned.step(foreign.loss, data), reference.step(loss, stored), atol=1e-6)
    assert torch.allclose(model.classifier.weight, plain.classifier.weight, atol=1e-6)


PEFTS_OWN = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


@PEFTS_OWN
def test_bitfit_trains_what_peft_calls_all_biases(foreign):
    import peft

    model = foreign.build("text")
    Recipe.of([BitFit()]).apply(model)
    config = peft.LoraConfig(target_modules=["query"], bias="all", modules_to_save=["classifier"])
    theirs = peft.get_peft_model(foreign.build("text"), config)
    kinds = ("base_model.model.", "base_layer.", "modules_to_save.default.")
    names = {name for name in trains(theirs) if "lora_" not in name}
    for kind in kinds:
        names = {name.replace(kind, "") for name in names}
    assert trains(model) == names | {"classifier.weight"}
    assert len(names) == 20


def test_bitfit_reaches_the_fused_bias_of_multi_head_attention(foreign):
    model = foreign.build("conv")
    Recipe.of([BitFit()]).apply(model)
    body = {name for name in trains(model) if not name.startswith("classifier")}
    assert body == {name for name, _ in model.named_parameters() if name.endswith("bias")} - {"classifier.bias"}
    assert "pool.in_proj_bias" in body


def test_bitfit_and_layernorm_stay_in_their_scope(foreign):
    model = foreign.build("two")
    Recipe.of([BitFit(scope="text"), LayerNormTuning(scope="vision")]).apply(model)
    text = {name for name in trains(model) if name.startswith("reading")}
    vision = {name for name in trains(model) if name.startswith("seeing")}
    assert text
    assert all(name.endswith(".bias") for name in text)
    assert vision
    assert all("norm" in name for name in vision)
    assert {"mix.weight", "answer.weight"} < trains(model)


@pytest.mark.parametrize("kind", [Int8, Nf4])
def test_biases_of_quantised_layers_get_true_gradients(kind, foreign):
    """Against a float model whose weights are the quantised layers' own, rounded."""
    import torch

    model, data = foreign.build("two"), foreign.batch("two")
    Recipe.of([BitFit(), kind()]).apply(model)
    plain = foreign.build("two").train()
    quantised = dict(model.named_modules())
    for name, layer in plain.named_modules():
        if type(quantised[name]) is type(layer) or not isinstance(layer, torch.nn.Linear):
            continue
        with torch.no_grad():
            bias, quantised[name].bias.data = quantised[name].bias.data, torch.zeros_like(quantised[name].bias)
            layer.weight.copy_(quantised[name](torch.eye(layer.in_features)).t())
            quantised[name].bias.data = bias
    foreign.loss(model, data).backward()
    foreign.loss(plain, data).backward()
    others = dict(plain.named_parameters())
    name = "reading.encoder.layer.0.intermediate.dense.bias"
    assert type(model.get_submodule(name.removesuffix(".bias"))) is not torch.nn.Linear
    expected = others[name].grad
    assert expected.any()
    assert torch.dist(model.get_parameter(name).grad, expected) < 0.05 * expected.norm()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@PEFTS_OWN
@pytest.mark.filterwarnings("ignore:Unsupported layer type:UserWarning")
def test_layernorm_trains_what_peft_does(foreign):
    import peft

    model = foreign.build("text")
    Recipe.of([LayerNormTuning()]).apply(model)
    config = peft.LNTuningConfig(target_modules=["LayerNorm"], modules_to_save=["classifier"])
    theirs = peft.get_peft_model(foreign.build("text"), config).base_model.model
    names = {name.replace("ln_tuning_layers.default.", "") for name in trains(theirs)}
    names = {name.replace("modules_to_save.default.", "") for name in names}
    assert trains(model) == names
    assert sum("LayerNorm" in name for name in names) == 10


def test_layernorm_knows_all_kinds_of_norms():
    import torch
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    from strategies.methods.weights.layernorm import norm_parameters

    parts = [torch.nn.LayerNorm(4), torch.nn.RMSNorm(4), LlamaRMSNorm(4), torch.nn.GroupNorm(2, 4)]
    model = torch.nn.Sequential(
        *parts, torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 4), torch.nn.LayerNorm(4, bias=False)
    )
    assert norm_parameters(model) == [
        "0.weight", "0.bias", "1.weight", "2.weight", "3.weight", "3.bias", "4.weight", "4.bias", "6.weight",
    ]  # fmt: skip


def test_biases_and_norms_of_any_name():
    import torch
    from torch import nn
    from transformers import RobertaPreLayerNormConfig, RobertaPreLayerNormForMaskedLM, T5Config, T5EncoderModel

    from strategies.methods.weights.bitfit import bias_vectors
    from strategies.methods.weights.layernorm import norm_parameters

    lstm = nn.LSTM(4, 4, 1, bidirectional=True)
    gru = {f"bias_{way}_l0" for way in ("ih", "hh")}
    assert set(bias_vectors(lstm)) == gru | {f"{name}_reverse" for name in gru}
    assert set(bias_vectors(nn.GRU(4, 4))) == gru
    attention = nn.MultiheadAttention(4, 2, add_bias_kv=True)
    assert set(bias_vectors(attention)) == {"in_proj_bias", "out_proj.bias", "bias_k", "bias_v"}

    class ScaleNorm(nn.Module):
        def __init__(self):
            super().__init__()
            self.g = nn.Parameter(torch.ones(1, 4, 1, 1))

    class Plain(nn.LayerNorm):
        pass

    class NormalisedBlock(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate, self.layer = nn.Parameter(torch.ones(4)), nn.Linear(4, 4)

    parts = nn.Sequential(ScaleNorm(), Plain((2, 4)), nn.InstanceNorm1d(4, affine=True), NormalisedBlock())
    assert norm_parameters(parts) == ["0.g", "1.weight", "1.bias", "2.weight", "2.bias"]
    t5 = T5EncoderModel(T5Config(d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, vocab_size=10))
    norms = [name for name, _ in t5.named_parameters() if "layer_norm" in name]
    assert norm_parameters(t5) == norms
    assert len(norms) == 3
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    named_so = RobertaPreLayerNormForMaskedLM(RobertaPreLayerNormConfig(**sizes, vocab_size=10))
    assert "lm_head.bias" not in norm_parameters(named_so)


def test_bitfit_trains_an_lstm():
    import torch
    from torch import nn

    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.head = nn.LSTM(4, 4, batch_first=True), nn.Linear(4, 3)

        def forward(self, x):
            return self.head(self.lstm(x)[0][:, -1])

    model = Reader()
    before = {name: p.clone() for name, p in model.named_parameters()}
    tuned = Recipe.of([BitFit()]).apply(model)
    tuned.step(lambda m, b: m(b).square().mean(), torch.randn(3, 5, 4))
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"lstm.bias_ih_l0", "lstm.bias_hh_l0", "head.weight", "head.bias"}


def test_without_anything_to_train_both_refuse(foreign):
    import torch

    with pytest.raises(PlanError, match="layernorm: 'body' has no"):
        Recipe.of([LayerNormTuning()]).apply(foreign.build("mlp"))
    model = torch.nn.Sequential(torch.nn.Linear(4, 4, bias=False), torch.nn.Linear(4, 3))
    with pytest.raises(PlanError, match="bitfit: 'body' has no bias"):
        Recipe.of([BitFit()]).apply(model)
