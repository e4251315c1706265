"""What stays as it is when a base is stored in few bits, and that the model computes what it did, but for rounding."""

import copy
import pickle
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune
from transformers import (
    FalconConfig,
    FalconForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from strategies import PlanError, Recipe, SelfCheckError, compose, load_plain
from strategies.methods.numerics.int8 import Int8
from strategies.methods.numerics.nf4 import Nf4
from strategies.methods.numerics.quantisable import Storage
from strategies.methods.weights.freeze import Freeze

WIDE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 40}
T5 = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2, "vocab_size": 40}
LARGEST = {"int8": 0.03, "nf4": 0.35, "fp4": 0.45}  # relative change of the outputs by rounding
IDS = torch.randint(3, 40, (4, 6), generator=torch.Generator().manual_seed(1))


def stored(plan):
    (storage,) = (kept for kept in plan.context.member_state.values() if isinstance(kept, Storage))
    return storage


def outputs(model, *inputs, **options):
    model.eval()
    with torch.no_grad():
        found = model(*inputs, **options)
    return found if isinstance(found, torch.Tensor) else found.logits


def change(text, make, *inputs, head, **options):
    """Give the relative change of a model's outputs by a plan, and the plan."""
    torch.manual_seed(0)
    model = make()
    before = outputs(model, *inputs, **options)
    tuned = compose(text).apply(model, head=head)
    return float((outputs(model, *inputs, **options) - before).norm() / before.norm()), tuned


@pytest.mark.parametrize("word", LARGEST)
def test_t5_computes_with_floats(word):
    """Its feed-forward casts its input to the type of `wo.weight`."""
    config = T5Config(**T5, feed_forward_proj="gated-gelu", decoder_start_token_id=0)
    moved, tuned = change(
        f"{word}+lora", lambda: T5ForConditionalGeneration(config), head="lm_head", input_ids=IDS, decoder_input_ids=IDS
    )
    assert moved < LARGEST[word]
    whole = {"encoder.block.0.layer.1.DenseReluDense.wo", "decoder.block.0.layer.2.DenseReluDense.wo"}
    assert {kept.name for kept in stored(tuned).kept} == whole
    assert all(type(tuned.model.get_submodule(name)) is nn.Linear for name in whole)
    assert tuned.model.lm_head.weight is tuned.model.shared.weight is tuned.model.decoder.embed_tokens.weight
    assert "2 stay as they are: 2 whose weight is read by T5DenseGatedActDense" in tuned.describe()


class Parts(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.other = nn.Linear(32, 32), nn.Linear(32, 32)
        self.parts = nn.ModuleList([self.fc])
        self.slow = False

    @property
    def kind(self):
        return self.fc.weight.dtype

    def forward(self, x):
        return self.other(self.first(x))


def by_name(self, x):
    return self.fc(x.to(self.fc.weight.dtype))


def by_text(self, x):
    return self.fc(x.to(getattr(self, "fc").weight.dtype))  # noqa: B009


def by_alias(self, x):
    layer = self.fc
    kind = layer.weight.dtype
    return layer(x.to(kind))


def by_loop(self, x):
    for _, layer in enumerate(self.parts):
        x = layer(x.to(layer.weight.dtype))
    return x


def by_place(self, x):
    return self.parts[0](x.to(self.parts[0].weight.dtype))


def by_first_parameter(self, x):
    return self.fc(x.to(next(self.fc.parameters()).dtype))


def by_value(self, x):
    return x @ self.fc.weight.T


def by_another(self, x):
    return cast_and_call(x, self.fc)


def by_property(self, x):
    return self.fc(x.to(self.kind))


def if_slow(self, x):
    return x @ self.fc.weight.T if self.slow else self.fc(x.to(self.fc.weight.device))


def reader(first):
    return type("Reader", (Parts,), {"first": first})()


def cast_and_call(x, layer):
    return layer(x.to(layer.weight.dtype))


class Holder(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner, self.head = inner, nn.Linear(32, 3)

    def forward(self, x):
        return self.head(self.inner(x))


WAYS = (by_name, by_text, by_alias, by_loop, by_place, by_first_parameter, by_value, by_another, by_property)


@pytest.mark.parametrize("way", WAYS)
def test_a_layer_whose_weight_is_read_stays_a_float(way):
    torch.manual_seed(0)
    x = torch.randn(4, 32)
    moved, tuned = change("nf4+lora(target_modules=['other'])", lambda: Holder(reader(way)), x, head="head")
    assert moved < LARGEST["nf4"]
    assert stored(tuned).quantised == ["inner.other"]
    assert [(kept.name, kept.why) for kept in stored(tuned).kept] == [("inner.fc", "whose weight is read by Reader")]


def test_what_is_not_reached_or_harmless_does_not_count():
    model = Holder(reader(if_slow))
    del model.inner.parts
    tuned = Recipe.of([Nf4(), Freeze()]).apply(model, head="head")
    assert stored(tuned).quantised == ["inner.fc", "inner.other"]
    config = LlamaConfig(**WIDE, num_labels=3)
    tuned = Recipe.of([Nf4(), Freeze()]).apply(LlamaForCausalLM(config), head="model.norm")
    assert [(kept.name, kept.why) for kept in stored(tuned).kept] == [
        ("lm_head", "giving the scores (output embedding)")
    ]


@pytest.mark.parametrize("kind", [Nf4, Int8])
def test_whole_numbers_are_refused_where_code_does_not_show_them(kind):
    """A cast that no look at the source finds."""

    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(32, 32)

        def forward(self, x):
            return self.fc(x.to(self.get_parameter("fc." + "wei" + "ght").dtype))

    model = Holder(Hidden())
    tuned = Recipe.of([kind(), Freeze()]).apply(model, head="head")
    with pytest.raises(SelfCheckError, match=r"'inner\.fc' gets its input in torch\.u?int8"):
        tuned.step(lambda m, b: m(b).mean(), torch.randn(4, 32))


def test_mamba_and_fused_experts_are_left_and_counted():
    config = MambaConfig(hidden_size=32, num_hidden_layers=1, vocab_size=40)
    moved, tuned = change("nf4+lora", lambda: MambaForCausalLM(config), head="lm_head", input_ids=IDS)
    assert moved < LARGEST["nf4"]
    assert {kept.name.rpartition(".")[2] for kept in stored(tuned).kept} == {"x_proj", "dt_proj", "out_proj"}
    config = MixtralConfig(**WIDE, num_local_experts=4, num_key_value_heads=2)
    tuned = Recipe.of([Nf4(), Freeze()]).apply(MixtralForCausalLM(config), head="lm_head")
    experts = [f"model.layers.{n}.mlp.experts.{name}" for n in range(2) for name in ("gate_up_proj", "down_proj")]
    assert stored(tuned).fused == experts
    assert "4 weights of three dimensions (fused experts) stay" in tuned.describe()


class Same(nn.Linear):
    """Keeps the forward of `nn.Linear`, and has things of its own."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.label, self.seen = "mine", []
        self.register_forward_hook(lambda layer, inputs, output: layer.seen.append(output.shape))

    def describe(self):
        return self.label


class Product(nn.Linear):
    def forward(self, x):
        return x @ self.weight.T + self.bias


class Half(nn.Linear):
    def forward(self, x):
        return super().forward(x) / 2


def test_subclasses_that_compute_as_a_linear_layer_are_quantised(tmp_path):
    def make():
        torch.manual_seed(0)
        return nn.ModuleDict(
            {"body": nn.Sequential(Same(32, 32), Product(32, 32), Half(32, 32)), "head": nn.Linear(32, 3)}
        )

    def run(model, x):
        return model["head"](model["body"](x))

    model, x = make(), torch.randn(4, 32)
    before = run(model, x).detach()
    tuned = compose("nf4+lora(target_modules=['0','1','2'])").apply(model, head="head")
    assert stored(tuned).quantised == ["body.0", "body.1"]
    assert [kept.why for kept in stored(tuned).kept] == ["of the class Half, which has a forward of its own"]
    assert (run(model, x).detach() - before).norm() < LARGEST["nf4"] * before.norm()
    base = model["body"][0].get_base_layer()
    assert type(base).__mro__[1].__name__ == "Linear4bit"
    assert isinstance(base, Same)
    assert base.describe() == "mine"
    assert base.seen == [torch.Size([4, 32])] * 2
    tuned.save(tmp_path)
    plain = make()
    load_plain(tmp_path, plain)
    assert [type(part) for part in plain.modules()] == [type(part) for part in make().modules()]
    assert torch.allclose(run(plain, x), run(model, x), atol=1e-5)
    assert plain["body"][0].label == "mine"
    assert not plain["body"][0]._forward_pre_hooks


ONE = "lora(target_modules=['0.0'])"  # so that gradients pass through the other layer


@pytest.mark.parametrize("text", [f"nf4+{ONE}", f"int8+{ONE}", "fp8(emulate=True)"])
def test_layers_take_and_give_what_plain_ones_do(text):
    """Inputs of any dimensions, outputs that are written into, copies and pickles."""

    class Writer(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(32, 32, bias=False)) for _ in range(2)])
            self.head = nn.Linear(32, 3)

        def forward(self, x):
            for block in self.blocks:
                y = block(x)
                y[..., 0] = 0
                y += x
                x = y
            return self.head(x)

    pictures = torch.randn(2, 3, 5, 32, generator=torch.Generator().manual_seed(0))
    moved, tuned = change(text, Writer, pictures, head="head")
    assert moved < LARGEST["nf4"]
    model = tuned.model
    flat = outputs(model, pictures.reshape(-1, 32)).reshape(2, 3, 5, 3)
    assert torch.allclose(outputs(model, pictures), flat, atol=1e-5)
    one = outputs(model, pictures[0, 0, 0])
    assert one.shape == (3,)
    assert torch.equal(outputs(copy.deepcopy(model), pictures), outputs(model, pictures))
    layer = model.blocks[0][0]
    layer = layer.get_base_layer() if hasattr(layer, "get_base_layer") else layer
    assert torch.equal(outputs(pickle.loads(pickle.dumps(layer)), pictures), outputs(layer, pictures))
    model.train()
    for given in (pictures, pictures[0], pictures[0, 0]):
        tuned.step(lambda m, b: m(b).square().mean(), given)


def test_the_same_is_decided_without_weights():
    with torch.device("meta"):
        model = nn.ModuleDict({"body": nn.Sequential(Same(32, 32), Product(32, 32), Half(32, 32)), "head": Same(32, 3)})
    context = compose("nf4+lora(target_modules=['0'])").transform(model, head="head")
    (storage,) = (kept for kept in context.member_state.values() if isinstance(kept, Storage))
    assert storage.quantised == ["body.0", "body.1"]


def test_falcons_own_linear_layer_and_gpt2s_conv1d(tmp_path):
    config = FalconConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=40, num_labels=3, pad_token_id=0
    )
    moved, tuned = change("nf4+lora", lambda: FalconForSequenceClassification(config), head="score", input_ids=IDS)
    assert moved < LARGEST["nf4"]
    assert len(stored(tuned).quantised) == 4

    def make():
        torch.manual_seed(0)
        return GPT2ForSequenceClassification(GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=40, pad_token_id=0))

    tuned = compose("nf4+lora").apply(make())
    tuned.save(tmp_path)
    plain = make()
    load_plain(tmp_path, plain)
    assert [(name, type(part)) for name, part in plain.named_modules()] == [
        (name, type(part)) for name, part in make().named_modules()
    ]
    assert torch.allclose(outputs(plain, IDS), outputs(tuned.model, IDS), atol=1e-4)


@pytest.mark.parametrize(
    "make", [parametrizations.weight_norm, lambda layer: prune.l1_unstructured(layer, "weight", 0.5)]
)
def test_weights_that_are_computed_stay_and_the_refusal_says_why(make):
    def stack():
        torch.manual_seed(0)
        body = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32))
        make(body[0])
        return nn.Sequential(body, nn.Linear(32, 3))

    model, x = stack(), torch.randn(4, 32)
    tuned = Recipe.of([Nf4(), Freeze()]).apply(model, head="1")
    assert stored(tuned).quantised == ["0.1"]
    assert torch.equal(model[0][0](x), stack()[0][0](x))
    with pytest.raises(PlanError, match=r"'0\.0' has no linear layer to quantise but 1 with a weight that is computed"):
        Recipe.of([Nf4(scope="0.0"), Freeze()]).apply(stack(), head="1")


def test_a_part_without_linear_layers_is_said_to_be_one():
    with pytest.raises(PlanError, match=r"'0' has no linear layer to quantise; name another scope"):
        Recipe.of([Int8(scope="0"), Freeze()]).apply(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Linear(4, 3)), head="1")


def test_modules_that_a_class_keeps_in_float32_stay_so():
    class Keeping(Holder):
        _keep_in_fp32_modules = ("gate",)
        _keep_in_fp32_modules_strict = frozenset({"norm.weight", "ro*te"})

        def __init__(self):
            super().__init__(nn.Sequential())
            self.inner.gate, self.inner.norm = nn.Linear(32, 32), nn.LayerNorm(32)
            self.inner.fc = nn.Linear(32, 32)
            self.inner.fc.register_buffer("rotate", torch.ones(3))
            self.inner.fc.register_buffer("saved", torch.ones(3))
            self.inner.fc.register_buffer("computed", torch.ones(3), persistent=False)

    outer = nn.ModuleDict({"keeping": Keeping(), "end": nn.Linear(3, 3)})
    tuned = Recipe.of([Nf4(scope="keeping.inner"), Freeze()]).apply(outer, head="end")
    assert [kept.name for kept in stored(tuned).kept] == ["keeping.inner.gate"]
    outer = nn.ModuleDict({"keeping": Keeping(), "end": nn.Linear(3, 3)})
    compose("pure_bf16").transform(outer, head="end")
    tensors = [*outer.named_parameters(), *outer.named_buffers()]
    whole = {name for name, tensor in tensors if tensor.dtype == torch.float32}
    place = "keeping.inner."
    assert whole == {place + name for name in ("gate.weight", "gate.bias", "norm.weight", "fc.rotate", "fc.computed")}


def test_pure_bf16_trains_t5_and_a_norm_that_comes_first():
    config = T5Config(**T5, decoder_start_token_id=0)
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(config)
    tuned = compose("pure_bf16").apply(model, head="lm_head", lr=1e-2)
    assert model.encoder.block[0].layer[1].DenseReluDense.wo.weight.dtype == torch.float32
    batch = {"input_ids": IDS, "labels": IDS}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        losses = [float(tuned.step(lambda m, b: m(**b).loss, batch)) for _ in range(8)]
    assert losses[-1] < losses[0]
    first = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 3))
    compose("pure_bf16").apply(first).step(lambda m, b: m(b).float().square().mean(), torch.randn(4, 8))


@pytest.mark.parametrize("text", ["amp(dtype='bf16')", "pure_bf16"])
def test_number_types_that_autocast_does_not_sort_out_are_told_by_module(text):
    class Scatter(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(8, 8)

        def forward(self, x):
            return torch.zeros(4, 8).index_add_(0, torch.arange(4), self.fc(x))

    model = nn.Sequential(Scatter(), nn.Linear(8, 3))
    tuned = compose(text).apply(model, head="1")
    with pytest.raises(PlanError, match=r"Scatter mixes number types .*same scalar type.* leave .* out, or cast there"):
        tuned.step(lambda m, b: m(b).float().square().mean(), torch.randn(4, 8))

    def broken(model, batch):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        compose(text).apply(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 3))).step(broken, torch.randn(4, 8))


def test_layers_of_a_single_input_stay_floats():
    """A time or a number embedded: in 8 bits each call gave other outputs, thousands of times too large."""

    class Timed(nn.Module):
        def __init__(self):
            super().__init__()
            self.time, self.v_proj, self.head = nn.Linear(1, 32), nn.Linear(32, 32), nn.Linear(32, 2)

        def forward(self, x):
            return self.head(self.v_proj(self.time(x)))

    model, x = Timed(), torch.linspace(-2, 2, 24).unsqueeze(1)
    before = model(x).detach()
    tuned = compose("int8+lora").apply(model, head="head")
    with tuned.evaluating():
        assert torch.allclose(model(x), before, atol=0.1)
    assert "1 with a single input" in tuned.describe()
