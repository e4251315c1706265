"""The adapter methods that have a word of their own, each against PEFT's own model."""

import pytest

from strategies import PlanError, Recipe
from strategies.methods.weights.boft import Boft
from strategies.methods.weights.fourierft import FourierFt
from strategies.methods.weights.full import Full
from strategies.methods.weights.hra import Hra
from strategies.methods.weights.ia3 import Ia3
from strategies.methods.weights.loha import Loha
from strategies.methods.weights.lokr import Lokr
from strategies.methods.weights.miss import Miss
from strategies.methods.weights.oft import Oft
from strategies.methods.weights.randlora import RandLora
from strategies.methods.weights.shira import Shira
from strategies.methods.weights.vera import Vera

SEED = 7
DOWN = r".*layer\.\d\.output\.dense"
# Strategy → PEFT's config class and the options that say the same there.
ORACLES = {
    Ia3(): ("IA3Config", {"target_modules": rf".*\.(key|value)|{DOWN}", "feedforward_modules": DOWN}),
    Vera(r=16): ("VeraConfig", {"r": 16, "projection_prng_key": SEED}),
    Vera(r=16, save_projection=False): ("VeraConfig", {"r": 16, "projection_prng_key": SEED}),
    Oft(oft_block_size=8): ("OFTConfig", {"oft_block_size": 8}),
    Boft(): ("BOFTConfig", {}),
    Loha(alpha=16): ("LoHaConfig", {"alpha": 16}),
    Lokr(r=2, decompose_factor=4): ("LoKrConfig", {"r": 2, "alpha": 2, "decompose_factor": 4}),
    Hra(r=4): ("HRAConfig", {"r": 4}),
    FourierFt(n_frequency=50): ("FourierFTConfig", {"n_frequency": 50, "random_loc_seed": SEED, "init_weights": True}),
    RandLora(r=8): ("RandLoraConfig", {"r": 8, "randlora_alpha": 160, "projection_prng_key": SEED}),
    RandLora(projection="sparse"): ("RandLoraConfig", {"sparse": True, "projection_prng_key": SEED}),
    Miss(r=4): ("MissConfig", {"r": 4}),
    Shira(r=4): ("ShiraConfig", {"r": 4, "random_seed": SEED}),
}
DEFAULTS = [Ia3(), Vera(), Oft(), Boft(), Loha(), Lokr(), Hra(), FourierFt(), RandLora(), Miss(), Shira()]
names = pytest.mark.parametrize("strategy", DEFAULTS, ids=lambda strategy: strategy.name)


def shapes(model):
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # PEFT's own
@pytest.mark.parametrize("strategy", ORACLES, ids=str)
def test_method_equals_peft(strategy, foreign):
    import peft
    import torch

    rates, data = {"lr": 3e-3, "head_lr": 3e-3, "total_steps": 4}, foreign.batch("text")
    ours = Recipe.of([strategy]).apply(foreign.build("text"), seed=SEED, **rates)
    losses = [float(ours.step(foreign.loss, data)) for _ in range(4)]
    kind, options = ORACLES[strategy]
    options = {"target_modules": ["query", "value"], "modules_to_save": ["classifier"], **options}
    theirs = foreign.build("text")
    torch.manual_seed(SEED)
    theirs = peft.get_peft_model(theirs, getattr(peft, kind)(**options))
    reference = Recipe.of([Full()]).apply(theirs, head="base_model.model.classifier", seed=SEED, **rates)
    assert [float(reference.step(foreign.loss, data)) for _ in range(4)] == losses
    mine = {n: p for n, p in ours.model.named_parameters() if p.requires_grad and not n.startswith("classifier")}
    others = {n.removeprefix("base_model.model."): p for n, p in theirs.named_parameters() if p.requires_grad}
    assert mine.keys() == {name for name in others if not name.startswith("classifier")}
    assert len(mine) >= 4
    assert all(torch.equal(mine[name], others[name]) for name in mine)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mlp", "two", "gpt"])
@names
def test_starts_as_the_base_and_trains_every_added_value(strategy, kind, foreign, tmp_path):
    import torch

    from strategies.saving.weights_file import load_weights

    model, data = foreign.build(kind).eval(), foreign.batch(kind)
    with torch.no_grad():
        untouched = foreign.outputs(model, data)
    tuned = Recipe.of([strategy]).apply(model, seed=SEED, total_steps=8, lr=5e-3)
    with tuned.evaluating():
        assert torch.allclose(foreign.outputs(model, data), untouched, atol=1e-6)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trains = {name for name, p in model.named_parameters() if p.requires_grad}
    losses = [float(tuned.step(foreign.loss, data)) for _ in range(8)]
    assert losses[-1] < losses[0]
    assert {name for name, p in model.named_parameters() if not torch.equal(p, before[name])} == trains
    assert len(trains) > 2
    with tuned.evaluating():
        trained = foreign.outputs(model, data)
    tuned.save(tmp_path)
    again = Recipe.of([strategy]).apply(foreign.build(kind), seed=SEED, total_steps=8)
    load_weights(tmp_path, again.model, again.full_state())
    with again.evaluating():
        assert torch.equal(foreign.outputs(again.model, data), trained)


@pytest.mark.parametrize("kind", ["mlp", "two", "gpt"])
@names
def test_meta_gives_the_same_names_and_shapes(strategy, kind, foreign):
    import torch

    real = foreign.build(kind)
    Recipe.of([strategy]).transform(real)
    with torch.device("meta"):
        empty = foreign.build(kind)
    Recipe.of([strategy]).transform(empty)
    assert shapes(empty) == shapes(real)
    assert all(parameter.is_meta for parameter in empty.parameters())


@names
def test_default_options_fit_wide_and_small_layers(strategy, foreign):
    import torch
    from torch import nn

    for width in (32, 128, 768):
        with torch.device("meta"):
            model = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 3))
        Recipe.of([strategy]).transform(model)
        assert any(p.requires_grad for name, p in model.named_parameters() if name.startswith("0."))


def test_ia3_scales_the_inputs_of_down_only(foreign):
    model = foreign.build("two")
    Recipe.of([Ia3()]).transform(model)
    layers = {name: layer for name, layer in model.named_modules() if type(layer).__name__ == "Linear"}
    scaled = {name: layer.is_feedforward for name, layer in layers.items() if "is_feedforward" in vars(layer)}
    assert len(scaled) == 2 * 2 * 3
    assert {name.rpartition(".")[2] for name, inputs in scaled.items() if inputs} == {"fc2", "dense"}
    assert sum(scaled.values()) == 4
    block = model.seeing.layers[0]
    assert block.mlp.fc2.ia3_l["default"].shape == (1, 64)
    assert block.attention.k_proj.ia3_l["default"].shape == (32, 1)


def test_the_seed_decides_projections(foreign):
    import torch

    def projections(seed):
        model = foreign.build("text")
        Recipe.of([Vera(r=4)]).transform(model, seed=seed)
        return {name: buffer for name, buffer in model.named_buffers() if "vera_" in name}

    one, same, other = projections(1), projections(1), projections(2)
    assert one
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one)


def test_unsaved_projections_are_left_out_of_the_file(foreign, tmp_path):
    def size(strategy):
        return Recipe.of([strategy]).apply(foreign.build("text")).save(tmp_path)

    assert size(Vera()) - size(Vera(save_projection=False)) > 2 * 256 * 32 * 4 - 200
    assert size(RandLora()) - size(RandLora(save_projection=False)) > 2 * 32 * 32 * 4 - 200


def test_butterflies_equal_their_formula(foreign):
    """With more than one factor: orthogonal, and the gradient of the replaced extension is torch's own."""
    import torch

    from strategies.methods.weights.boft import _TorchBlocks

    torch.manual_seed(0)
    blocks = torch.randn(3, 4, 2, 2, dtype=torch.double, requires_grad=True)
    weights = torch.randn(3, 8, 8, dtype=torch.double)
    (_TorchBlocks.forward(blocks)[0] * weights).sum().backward()
    assert torch.equal(_TorchBlocks.backward(weights, blocks)[0], blocks.grad)

    model, data = foreign.build("text"), foreign.batch("text")
    tuned = Recipe.of([Boft(boft_n_butterfly_factor=3)]).apply(model, lr=1e-2)
    for _ in range(4):
        tuned.step(foreign.loss, data)
    layer = model.bert.encoder.layer[0].attention.self.query
    rotation, scale = layer.get_delta_weight("default")
    assert layer.boft_R["default"].shape == (3, 8, 4, 4)
    assert not torch.allclose(rotation, torch.eye(32), atol=1e-2)
    assert torch.allclose(rotation @ rotation.T, torch.eye(32), atol=1e-5)
    assert not torch.equal(scale, torch.ones_like(scale))


def test_a_layer_trains_at_most_as_many_frequencies_as_it_has_weights(foreign):
    model = foreign.build("mlp")
    Recipe.of([FourierFt()]).transform(model)
    assert model[0].fourierft_spectrum["default"].shape == (12 * 32,)
    assert model[2].fourierft_spectrum["default"].shape == (1000,)


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        (Boft(boft_block_size=5), r"boft: '0' has 12 inputs, no multiple of 5"),
        (Boft(boft_n_butterfly_factor=3), r"boft: '0' has 12 inputs, no multiple of 16"),
        (Miss(r=13), r"miss: r=13 is more than the 12 inputs of '0'"),
        (Shira(r=9), r"shira: r=9 is too much for '0'.*r can be 8 at most"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_by_layer(strategy, words, foreign):
    with pytest.raises(PlanError, match=words):
        Recipe.of([strategy]).transform(foreign.build("mlp"))


def test_impossible_options_are_refused_at_once():
    with pytest.raises(PlanError, match="even"):
        Hra(r=3)
    with pytest.raises(PlanError, match="decompose_factor"):
        Lokr(decompose_factor=0)


@pytest.mark.parametrize("strategy", [Ia3(), Loha(), Lokr(), Hra(), Boft()], ids=lambda strategy: strategy.name)
def test_convolutions_train(strategy, foreign):
    import torch

    model, data = foreign.build("cnn").eval(), foreign.batch("cnn")
    with torch.no_grad():
        untouched = foreign.outputs(model, data)
    tuned = Recipe.of([strategy]).apply(model, lr=5e-3, total_steps=8)
    with tuned.evaluating():
        assert torch.allclose(foreign.outputs(model, data), untouched, atol=1e-6)
    losses = [float(tuned.step(foreign.loss, data)) for _ in range(8)]
    assert losses[-1] < losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("base", ["int8", "nf4"])
@names
def test_quantised_layers_train_or_are_refused(strategy, base, foreign):
    """Refused where PEFT's layers would read codes as weights; elsewhere the start is the quantised base's."""
    import torch

    from strategies import compose

    plan = Recipe.of([strategy, *compose(base).members])
    data = foreign.batch("two")
    if (strategy.name, base) in {("hra", "int8"), ("hra", "nf4"), ("loha", "nf4"), ("lokr", "nf4")}:
        with pytest.raises(PlanError, match="the stored"):
            plan.apply(foreign.build("two"))
        return
    model = foreign.build("two").eval()
    with torch.no_grad():
        untouched = foreign.outputs(model, data)
    tuned = plan.apply(model, total_steps=6, lr=5e-3)
    with tuned.evaluating():
        assert torch.allclose(foreign.outputs(model, data), untouched, atol=0.1)
    losses = [float(tuned.step(foreign.loss, data)) for _ in range(6)]
    assert losses[-1] < losses[0]


def test_oft_rotates_inputs_of_any_dimensions():
    import torch

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.Linear(16, 3))
    tuned = Recipe.of([Oft(oft_block_size=4)]).apply(model, lr=1e-1)
    pictures = torch.randn(2, 5, 3, 16)
    tuned.step(lambda m, b: m(b).square().mean(), pictures)
    flat = model(pictures.reshape(-1, 16)).reshape(2, 5, 3, 3)
    assert torch.allclose(model(pictures), flat, atol=1e-6)
    assert tuned.merge().layer_drift < 1e-5
