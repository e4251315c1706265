"""houlsby and adaptformer against the papers' formulas."""

import pytest

from strategies import Recipe, compose
from strategies.methods.memory.checkpointing import Checkpointing
from strategies.methods.numerics.int8 import Int8
from strategies.methods.numerics.nf4 import Nf4
from strategies.methods.speed.compiling import Compile
from strategies.methods.weights.adaptformer import AdaptFormer
from strategies.methods.weights.houlsby import Houlsby
from strategies.methods.weights.lora import Lora
from strategies.structure.bottlenecks import pairs

KINDS = ("mlp", "text", "conv", "two", "gpt", "cnn")
BOTH = (Houlsby(r=4), AdaptFormer(r=4))


def shaken(model):
    """Move the up-projections away from zero."""
    import torch

    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith((".up.weight", ".up.bias")):
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def wrappers(model):
    return {name: part for name, part in model.named_modules() if type(part).__name__.endswith("BottleneckAdapter")}


def evaluated(foreign, tuned, data):
    with tuned.evaluating():
        return foreign.outputs(tuned.model, data)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strategy", BOTH)
def test_starts_as_the_identity_and_trains_nothing_else(strategy, kind, foreign):
    import torch

    model, data = foreign.build(kind).eval(), foreign.batch(kind)
    base = {id(parameter) for parameter in model.parameters()}
    with torch.no_grad():
        untouched = foreign.outputs(model, data)
    tuned = Recipe.of([strategy]).apply(model)
    assert torch.equal(evaluated(foreign, tuned, data), untouched)
    assert base <= {id(parameter) for parameter in model.parameters()}
    trains = {n for n, p in model.named_parameters() if p.requires_grad and not tuned.context.layout.is_new(n)}
    assert trains == {n for n, p in model.named_parameters() if id(p) not in base}
    assert all(name.rsplit(".", 2)[-2] in {"down", "up"} for name in trains)
    shaken(model)
    assert not torch.allclose(evaluated(foreign, tuned, data), untouched, atol=1e-3)


def test_houlsby_is_behind_attention_and_feed_forward(foreign):
    import torch
    from torch.nn.functional import gelu, linear

    model = foreign.build("two")
    Recipe.of([Houlsby(r=4)]).apply(model)
    shaken(model)
    names = list(wrappers(model))
    assert [name for name in names if ".0." in name] == [
        "seeing.layers.0.attention.o_proj",
        "seeing.layers.0.mlp.fc2",
        "reading.encoder.layer.0.attention.output.dense",
        "reading.encoder.layer.0.output.dense",
    ]
    assert len(names) == 8
    layer, x = model.get_submodule("seeing.layers.0.mlp.fc2"), torch.randn(2, 5, 64)
    y = linear(x, layer.base_layer.weight, layer.base_layer.bias)
    assert layer.down.weight.shape == (4, 32)
    inner = gelu(y @ layer.down.weight.T + layer.down.bias)
    assert torch.allclose(layer(x), y + inner @ layer.up.weight.T + layer.up.bias, atol=1e-6)


def test_adaptformer_is_beside_the_feed_forward_part(foreign):
    """On a ViT block: MLP(x) + s·relu(D·x + d)·U + u, with x the input of the MLP."""
    import torch

    model = foreign.build("two")
    plain = foreign.build("two").seeing.layers[0].mlp.eval()
    Recipe.of([AdaptFormer(r=4, scale=0.3)]).apply(model)
    mlp, x = shaken(model).seeing.layers[0].mlp.eval(), torch.randn(2, 5, 32)
    first = mlp.fc1
    inner = torch.relu(x @ first.down.weight.T + first.down.bias)
    branch = inner @ first.up.weight.T + first.up.bias
    assert torch.allclose(mlp(x), plain(x) + 0.3 * branch, atol=1e-6)
    assert not first.branch_output
    assert len(wrappers(model)) == 8
    assert sum(len(list(part.parameters(recurse=False))) == 0 for part in wrappers(model).values()) == 8


@pytest.mark.parametrize("strategy", BOTH)
def test_a_convolution_gets_convolutions(strategy, foreign):
    import torch

    model, x = foreign.build("cnn"), torch.randn(2, 16, 4, 4)
    Recipe.of([strategy]).apply(model)
    layer = shaken(model).stages[0].conv1.eval()
    y = layer.base_layer(x)
    source = y if isinstance(strategy, Houlsby) else x
    activation = torch.nn.functional.gelu if isinstance(strategy, Houlsby) else torch.relu
    scale = 1.0 if isinstance(strategy, Houlsby) else 0.1
    assert layer.down.kernel_size == (1, 1)
    inner = activation(
        torch.einsum("bchw,rc->brhw", source, layer.down.weight[..., 0, 0]) + layer.down.bias.view(-1, 1, 1)
    )
    added = torch.einsum("brhw,cr->bchw", inner, layer.up.weight[..., 0, 0]) + layer.up.bias.view(-1, 1, 1)
    assert torch.allclose(layer(x), y + scale * added, atol=1e-5)


@pytest.mark.parametrize("shape", [(5, 2, 0, 1), (3, 2, 1, 1), (3, 1, "same", 2), (2, 1, 1, 1), (4, 4, 0, 1)])
def test_beside_a_convolution_sizes_fit(shape):
    import torch

    kernel, stride, padding, dilation = shape
    parts = [torch.nn.Conv2d(3, 6, kernel, stride, padding, dilation), torch.nn.Flatten(), torch.nn.LazyLinear(2)]
    model, x = torch.nn.Sequential(*parts), torch.randn(2, 3, 15, 13)
    expected = model(x)
    Recipe.of([AdaptFormer(r=2)]).apply(model)
    assert torch.allclose(model(x), expected, atol=1e-6)
    assert not torch.allclose(shaken(model)(x), expected, atol=1e-3)


def test_without_pairs_each_layer_has_its_branch(foreign):
    model = foreign.build("text")
    Recipe.of([AdaptFormer(r=4, roles=("query", "up", "down"))]).apply(model)
    kinds = {name.partition(".layer.")[2]: type(part).__name__ for name, part in wrappers(model).items()}
    assert kinds["0.attention.self.query"] == "ParallelBottleneckAdapter"
    assert kinds["0.intermediate.dense"] == "EntranceBottleneckAdapter"
    assert kinds["0.output.dense"] == "ExitBottleneckAdapter"
    assert len(kinds) == 6


def test_pairs_stay_in_their_block_and_gates_are_part_of_theirs():
    blocks = ["a.0", "a.1"]
    gated = ["a.0.gate_proj", "a.0.up_proj", "a.0.down_proj", "a.1.fc1"]
    assert pairs(gated, blocks) == ([("a.0.up_proj", "a.0.down_proj")], ["a.1.fc1"])
    assert pairs(["a.0.fc1", "a.1.fc2"], blocks) == ([], ["a.0.fc1", "a.1.fc2"])
    assert pairs(["q", "fc1", "fc2", "fc2x.fc2"], ()) == ([("fc1", "fc2")], ["q", "fc2x.fc2"])
    experts = [f"a.0.experts.{number}.{name}" for number in (0, 1) for name in ("w1", "w2", "w3")]
    found = [(f"a.0.experts.{number}.w3", f"a.0.experts.{number}.w2") for number in (0, 1)]
    assert pairs(experts, blocks) == (found, [])


def families():
    """Make models that ask for a layer's weight before they call it, or compute with it."""
    from transformers import MambaConfig, MambaModel, T5Config, T5EncoderModel

    t5 = T5Config(d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, vocab_size=40, dropout_rate=0.0)
    mamba = MambaConfig(hidden_size=16, num_hidden_layers=2, state_size=4, vocab_size=40)
    return {"t5": T5EncoderModel(t5), "mamba": MambaModel(mamba)}


@pytest.mark.parametrize("kind", ["t5", "mamba"])
@pytest.mark.parametrize("strategy", BOTH)
def test_models_that_read_weights_train(strategy, kind):
    import torch

    class Classifier(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.body, self.head = families()[kind], torch.nn.Linear(16, 3)

        def forward(self, ids):
            return self.head(self.body(input_ids=ids).last_hidden_state.mean(1))

    model, ids = Classifier().eval(), torch.arange(24).view(4, 6)
    with torch.no_grad():
        untouched = model(ids)
    tuned = Recipe.of([strategy]).apply(model)
    with tuned.evaluating():
        assert torch.allclose(model(ids), untouched, atol=1e-6)
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for _ in range(2):
        tuned.step(lambda m, x: torch.nn.functional.cross_entropy(m(x), torch.arange(4) % 3), ids)
    assert {name for name, p in model.named_parameters() if not torch.equal(p, start[name])} == tuned.trained
    expected = ("in_proj",) if kind == "mamba" else ("DenseReluDense.wi", "DenseReluDense.wo", "SelfAttention.o")
    assert all(name.endswith(expected) for name in tuned.adapted_layers())


def test_a_wrapper_shows_the_weight_and_the_fast_path_cannot_use_it(foreign):
    import torch

    model, data = foreign.build("conv").eval(), foreign.batch("conv")
    tuned = Recipe.of([Houlsby(r=4)]).apply(model)
    layer = model.encoder.layers[0].linear2
    assert layer.weight is layer.base_layer.weight
    assert (layer.in_features, layer.out_features) == (64, 32)
    assert layer.bias is layer.base_layer.bias
    before = evaluated(foreign, tuned, data)
    shaken(model)
    assert not torch.allclose(evaluated(foreign, tuned, data), before, atol=1e-3)


def run(foreign, members, kind="two", steps=3):
    import torch

    torch.rand(len(members))
    tuned = Recipe.of(members).apply(foreign.build(kind), total_steps=steps, lr=1e-2)
    losses = [float(tuned.step(foreign.loss, foreign.batch(kind))) for _ in range(steps)]
    return tuned, losses


@pytest.mark.parametrize("kind", ["two", "gpt", "conv"])
@pytest.mark.parametrize("strategy", BOTH)
def test_checkpointing_changes_nothing_and_leaves_nothing(strategy, kind, foreign):
    import torch

    tuned, losses = run(foreign, [strategy], kind)
    again, checkpointed = run(foreign, [strategy, Checkpointing()], kind)
    assert checkpointed == losses
    assert len(set(losses)) == 3
    pairs = zip(tuned.model.parameters(), again.model.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert not any(vars(part).get("branch_output") for part in wrappers(again.model).values())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["text", "conv"])
@pytest.mark.parametrize("strategy", BOTH)
def test_compiles_without_a_break(strategy, kind, foreign):
    import torch

    _, losses = run(foreign, [strategy], kind)
    torch._dynamo.utils.counters.clear()
    tuned, compiled = run(foreign, [strategy, Compile(backend="eager")], kind)
    evaluated(foreign, tuned, foreign.batch(kind))
    assert compiled == pytest.approx(losses, abs=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert not torch._dynamo.utils.counters["graph_break"]


@pytest.mark.parametrize("base", [Int8(), Nf4()])
@pytest.mark.parametrize("strategy", BOTH)
def test_trains_on_a_quantised_base(strategy, base, foreign):
    for kind in ("two", "gpt"):
        tuned, losses = run(foreign, [strategy, base], kind, steps=6)
        assert losses[-1] < losses[0]
        inner = {type(part.base_layer).__module__ for part in wrappers(tuned.model).values()}
        assert all(name.startswith("bitsandbytes") for name in inner)
        assert {str(p.dtype) for p in tuned.model.parameters() if p.requires_grad} == {"torch.float32"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strategy", BOTH)
def test_same_names_and_shapes_on_meta(strategy, kind, foreign):
    import torch

    model, empty = foreign.build(kind), foreign.build(kind).to("meta")
    Recipe.of([strategy]).transform(model)
    Recipe.of([strategy]).transform(empty)
    shapes = [(name, p.shape, p.requires_grad) for name, p in model.named_parameters()]
    assert shapes == [(name, p.shape, p.requires_grad) for name, p in empty.named_parameters()]
    assert all(p.device == torch.device("meta") for p in empty.parameters())


def test_a_scope_may_be_a_bare_linear_and_towers_may_differ(foreign):
    model = foreign.build("mlp")
    Recipe.of([Houlsby(scope="2", r=4)]).apply(model)
    assert list(wrappers(model)) == ["2"]
    model = foreign.build("two")
    Recipe.of([AdaptFormer(scope="vision"), Lora(scope="text")]).apply(model)
    assert all(name.startswith("seeing") for name in wrappers(model))
    assert any("lora_" in name for name, _ in model.reading.named_parameters())


@pytest.mark.parametrize("strategy", BOTH)
def test_the_seed_decides(strategy, foreign):
    import torch

    def made(seed, noise):
        torch.rand(noise)
        model = foreign.build("two")
        Recipe.of([strategy]).apply(model, seed=seed)
        return torch.cat([p.flatten() for n, p in model.named_parameters() if ".down." in n])

    assert torch.equal(made(1, 1), made(1, 5))
    assert not torch.equal(made(1, 1), made(2, 1))


def test_a_feed_forward_part_of_convolutions_gets_one_branch():
    """Its entrance is as wide as the input of the part, its exit as the output."""
    import torch
    from torch import nn

    part = nn.ModuleDict({"fc1": nn.Conv2d(4, 16, 1), "fc2": nn.Conv2d(16, 4, 1)})

    class Mlp(nn.Module):
        def __init__(self):
            super().__init__()
            self.mlp, self.head = part, nn.Linear(4, 2)

        def forward(self, x):
            return self.head((x + self.mlp["fc2"](self.mlp["fc1"](x).relu())).mean((2, 3)))

    model, x = Mlp(), torch.randn(2, 4, 5, 5)
    with torch.no_grad():
        before = model(x)
    tuned = compose("adaptformer(r=2, roles=['up', 'down'])").apply(model, head="head")
    assert torch.equal(model(x), before)
    tuned.step(lambda m, batch: m(batch).square().mean(), x)
    assert not torch.equal(model(x), before)
