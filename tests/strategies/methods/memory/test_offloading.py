"""What waits in host memory comes back to the bit; on a CPU pointless, but with the same mechanics."""

import pytest

from strategies import Recipe
from strategies.methods.memory import offloading
from strategies.methods.memory.checkpointing import Checkpointing
from strategies.methods.memory.offloading import ActivationOffloader, OffloadActivations, storages
from strategies.methods.numerics.amp import Amp
from strategies.methods.numerics.nf4 import Nf4
from strategies.methods.speed.compiling import Compile
from strategies.methods.weights.lora import Lora

KINDS = ["mlp", "text", "conv", "two", "gpt", "cnn"]


@pytest.fixture
def offloaders(monkeypatch):
    """Let the strategy run on a CPU and collect its hooks."""
    made = []

    class Watched(ActivationOffloader):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(OffloadActivations, "unavailable", lambda self, device: None)
    monkeypatch.setattr(offloading, "ActivationOffloader", Watched)
    return made


def gradients(foreign, members, kind):
    tuned = Recipe.of(members).apply(foreign.build(kind))
    seen = {}

    def keep(name, parameter):
        parameter.register_hook(lambda gradient: seen.__setitem__(name, gradient.clone()))

    for name, parameter in tuned.model.named_parameters():
        if parameter.requires_grad:
            keep(name, parameter)
    losses = [float(tuned.step(foreign.loss, foreign.batch(kind))) for _ in range(2)]
    return tuned, losses, seen


@pytest.mark.parametrize("to", ["host", "disk"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_equal_plain_to_the_bit(kind, to, foreign, offloaders):
    _, losses, plain = gradients(foreign, [], kind)
    _, again, offloaded = gradients(foreign, [OffloadActivations(to=to, min_bytes=0)], kind)
    assert losses == again
    assert plain.keys() == offloaded.keys()
    assert all(plain[name].equal(offloaded[name]) for name in plain)
    assert len(offloaders) == 2
    assert all(offloader.count > 2 and not offloader._copies for offloader in offloaders)


@pytest.mark.parametrize(
    "members",
    [[Lora()], [Amp(dtype="bf16")], [Checkpointing()], [Nf4(), Lora()], [Compile(backend="eager")],
     [Compile(backend="aot_eager")], [Lora(), Checkpointing(), Amp(dtype="bf16")]],
    ids=lambda members: "+".join(member.name for member in members),
)  # fmt: skip
def test_together_with_others(members, foreign, offloaders):
    _, losses, plain = gradients(foreign, members, "two")
    tuned, again, offloaded = gradients(foreign, [*members, OffloadActivations(min_bytes=0)], "two")
    assert losses == again
    assert all(plain[name].equal(offloaded[name]) for name in plain)
    assert all(offloader.count for offloader in offloaders)
    packed = len(offloaders)
    with tuned.evaluating():
        foreign.outputs(tuned.model, foreign.batch("two"))
    assert len(offloaders) == packed  # nothing to keep without a graph


def test_checkpointing_leaves_less_to_move(foreign, offloaders):
    gradients(foreign, [OffloadActivations(min_bytes=0)], "two")
    gradients(foreign, [OffloadActivations(min_bytes=0), Checkpointing()], "two")
    assert 0 < offloaders[2].count < offloaders[0].count / 2


def test_equals_torchs_own(foreign, offloaders):
    import torch

    data, model = foreign.batch("two"), foreign.build("two")
    with torch.autograd.graph.save_on_cpu():
        foreign.loss(model, data).backward()
    theirs = [p.grad for p in model.parameters()]
    ours = foreign.build("two")
    strategy = OffloadActivations(min_bytes=0)
    context = Recipe.of([strategy]).transform(ours)
    strategy.place(ours, context)
    strategy.wrap_forward(foreign.loss, context)(ours, data).backward()
    assert all(p.grad.equal(gradient) for p, gradient in zip(ours.parameters(), theirs, strict=True))


def test_weights_stay_and_small_tensors_too(foreign):
    import torch

    layer = torch.nn.Linear(64, 64)
    x = torch.randn(32, 64, requires_grad=True)
    offloader = ActivationOffloader("host", 0, storages(layer.parameters()))
    assert offloader.pack(layer.weight) is layer.weight
    view = layer.weight.t()
    assert offloader.pack(view) is view
    parked = offloader.pack(x)
    assert parked.host.equal(x)
    assert parked.host.data_ptr() != x.data_ptr()
    assert offloader.unpack(parked).equal(x)
    small = ActivationOffloader("host", x.nbytes + 1, frozenset())
    assert small.pack(x) is x
    assert (offloader.count, small.count) == (1, 0)


def test_equal_tensors_travel_once_and_changed_ones_again():
    import torch

    offloader, x = ActivationOffloader("host", 0, frozenset()), torch.arange(6.0).reshape(2, 3)
    first = offloader.pack(x)
    assert offloader.pack(x.detach()) is first
    turned = offloader.pack(x.t())
    assert turned is not first
    assert offloader.unpack(turned).equal(x.t())
    old = x.clone()
    x.add_(1)
    assert offloader.unpack(offloader.pack(x)).equal(x)
    assert offloader.unpack(first).equal(old)
    assert offloader.count == 3


def test_an_address_used_again_is_no_match():
    import torch

    offloader = ActivationOffloader("host", 0, frozenset())
    for number in range(200):
        tensor = torch.full((64,), float(number))
        assert float(offloader.unpack(offloader.pack(tensor))[0]) == number
        del tensor
    assert offloader.count == 200


def test_a_cpu_is_refused(foreign):
    (problem,) = Recipe.of([OffloadActivations()]).problems("cpu")
    assert "host memory already" in problem.reason
    assert OffloadActivations().unavailable("cuda:0") is None
