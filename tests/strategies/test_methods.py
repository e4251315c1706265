"""Each method against an oracle, and the traps others fell into."""

import pytest

from strategies import PlanError, Recipe, SelfCheckError, compose
from strategies.training.first_step_check import UPDATES


def trained(foreign, text, *, kind="two", steps=4, noise=0, dropout=None, **options):
    import torch

    model = foreign.build(kind)
    if dropout is not None:
        torch.manual_seed(11)
        model = foreign.TwoTowers(dropout)
    torch.manual_seed(1)
    torch.rand(noise + 1)
    tuned = compose(text).apply(model, **options)
    losses = [float(tuned.step(foreign.loss, foreign.batch(kind))) for _ in range(steps)]
    return tuned, losses


def same_weights(one, other):
    import torch

    pairs = zip(one.model.parameters(), other.model.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("text", ["full", "lora", "lora(dropout=0.5)", "amp", "qlora8"])
def test_checkpointing_equals_plain_to_the_bit(text, foreign):
    plain, losses = trained(foreign, text, dropout=0.1)
    again, checkpointed = trained(foreign, f"{text}+checkpointing", dropout=0.1)
    assert checkpointed == losses
    assert same_weights(plain, again)


def test_checkpointing_keeps_less(foreign):
    import torch

    def kept(text):
        tuned = compose(text).apply(foreign.build("two"))
        sizes = []

        def pack(tensor):
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            foreign.loss(tuned.model, foreign.batch("two"))
        return sum(sizes)

    assert kept("checkpointing") < 0.5 * kept("full")
    assert kept("freeze") < 0.05 * kept("full")
    assert kept("freeze(scope='vision')+checkpointing") < kept("freeze(scope='vision')")


def test_checkpointing_skips_frozen_blocks(foreign):
    tuned, _ = trained(foreign, "freeze(last_n=1)+checkpointing")
    assert "forward" not in vars(tuned.model.seeing.layers[0])
    assert "forward" in vars(tuned.model.seeing.layers[1])
    with pytest.raises(PlanError, match="batch normalisation"):
        compose("checkpointing(scope='stem')").apply(foreign.build("conv"))


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # PEFT's own
def test_lora_equals_peft(foreign):
    import peft
    import torch

    ours, losses = trained(foreign, "lora(r=4, alpha=8)", kind="text", seed=7, total_steps=4)
    model = foreign.build("text")
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["query", "value"], modules_to_save=["classifier"])
    torch.manual_seed(7)
    theirs = peft.get_peft_model(model, config)
    reference = compose("full(lr=1e-3)").apply(theirs, head="base_model.model.classifier", total_steps=4)
    assert [float(reference.step(foreign.loss, foreign.batch("text"))) for _ in range(4)] == losses
    mine = {n: p for n, p in ours.model.named_parameters() if "lora_" in n}
    others = {n.removeprefix("base_model.model."): p for n, p in theirs.named_parameters() if "lora_" in n}
    assert mine.keys() == others.keys()
    assert all(torch.equal(mine[name], others[name]) for name in mine)


@pytest.mark.parametrize("text", ["lora", "qlora", "qlora8", "lora+amp", "freeze", "full"])
def test_same_seed_same_run_whatever_was_drawn_before(text, foreign):
    one, losses = trained(foreign, text, dropout=0.1)
    other, again = trained(foreign, text, dropout=0.1, noise=100)
    assert losses == again
    assert same_weights(one, other)


def test_every_tower_gets_adapters(foreign):
    model = foreign.build("two")
    tuned = compose("lora").apply(model)
    for tower in (model.seeing, model.reading):
        names = [name for name, p in tower.named_parameters() if p.requires_grad]
        assert len(names) == 2 * 2 * 2
        assert all("lora_" in name for name in names)
    assert tuned.counts()["vision_trainable_parameters"] == 2 * 2 * (32 * 8 + 8 * 32)
    assert model.answer.weight.requires_grad
    assert model.mix.weight.requires_grad
    with pytest.raises(PlanError, match=r"'vision'.*q_proj"):
        compose("lora(target_modules=['query'])").apply(foreign.build("two"))


def test_adapters_on_one_tower_leave_the_other(foreign):
    model = foreign.build("two")
    compose("lora(scope='text')").apply(model)
    assert all(p.requires_grad for p in model.seeing.parameters())
    assert not any("lora" in name for name, _ in model.seeing.named_parameters())


def test_a_scope_may_be_a_bare_linear(foreign):
    model = foreign.build("mlp")
    tuned = compose("lora(scope='2')+freeze(scope='0')").apply(model)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {
        "2.lora_A.default.weight",
        "2.lora_B.default.weight",
        "4.weight",
        "4.bias",
    }
    losses = [float(tuned.step(foreign.loss, foreign.batch("mlp"))) for _ in range(8)]
    assert losses[-1] < losses[0]


def test_attention_weights_read_directly_are_refused(foreign):
    with pytest.raises(PlanError, match="MultiheadAttention"):
        compose("lora(target_modules=['out_proj'])").apply(foreign.build("conv"))
    with pytest.raises(PlanError, match="MultiheadAttention"):
        compose("lora(scope='pool')").apply(foreign.build("conv"))
    with pytest.raises(PlanError, match="MultiheadAttention"):
        compose("nf4(scope='pool')+lora").apply(foreign.build("conv"))


def test_quantised_layers_are_pefts_own_kind(foreign):
    import bitsandbytes as bnb
    import peft.tuners.lora.bnb as kinds

    for text, base, adapter in (
        ("qlora", bnb.nn.Linear4bit, kinds.Linear4bit),
        ("qlora8", bnb.nn.Linear8bitLt, kinds.Linear8bitLt),
    ):
        model = foreign.build("two")
        tuned = compose(f"{text}+amp").apply(model)
        assert isinstance(model.seeing.layers[0].attention.q_proj, adapter)
        assert isinstance(model.seeing.layers[0].mlp.fc1, base)
        assert model.seeing.layers[0].mlp.fc1.weight.dtype.itemsize == 1
        assert type(model.mix).__name__ == type(model.answer).__name__ == "Linear"
        assert {str(p.dtype) for p in model.parameters() if p.requires_grad} == {"torch.float32"}
        plain = sum(p.numel() for p in foreign.build("two").parameters())
        assert tuned.counts()["total_parameters"] == plain + 2 * 2 * 2 * (32 * 8 + 8 * 32)
        assert tuned.setup_seconds > 0


def test_nf4_trains_on_after_an_evaluation(foreign):
    """On CPUs with bf16 instructions the layer's own kernel breaks this."""
    tuned, losses = trained(foreign, "qlora", steps=2)
    with tuned.evaluating():
        first = foreign.outputs(tuned.model, foreign.batch("two"))
    assert float(tuned.step(foreign.loss, foreign.batch("two"))) < losses[0]
    with tuned.evaluating():
        assert not first.equal(foreign.outputs(tuned.model, foreign.batch("two")))


def test_frozen_parts_carry_no_graph(foreign):
    model = foreign.build("two")
    trained(foreign, "freeze", steps=1)
    tuned = compose("freeze").apply(model)
    model.reading.embeddings.register_forward_hook(lambda *parts: parts[-1].requires_grad_(True))
    with pytest.warns(UserWarning, match="carries a graph: reading"):
        tuned.step(foreign.loss, foreign.batch("two"))


def test_self_check_names_what_does_not_train(foreign):
    import torch

    data = foreign.batch("two")

    def check(loss_fn, words, updates=1):
        tuned = compose("full").apply(foreign.build("two"))
        for _ in range(updates - 1):
            tuned.step(loss_fn, data)
        with pytest.raises(SelfCheckError, match=words):
            tuned.step(loss_fn, data)

    stranger = foreign.build("two")
    check(lambda model, batch: foreign.loss(stranger, batch), "must call the model")
    check(lambda model, batch: torch.ones(()), "must call the model")
    check(foreign.outputs, "0-dim")
    check(lambda model, batch: foreign.loss(model, batch) * float("nan"), "not finite")

    def without_text(model, batch):
        seen = model.seeing(pixel_values=batch["inputs"][0]).last_hidden_state[:, 0]
        return model.answer(torch.tanh(model.mix(torch.cat([seen, seen], -1)))).logsumexp(-1).mean()

    check(without_text, r"'text' was .* no gradient: reading\..*nothing of it is called", UPDATES)

    def detached_text(model, batch):
        handle = model.reading.register_forward_hook(
            lambda _, inputs, output: type(output)(last_hidden_state=output.last_hidden_state.detach())
        )
        loss = foreign.loss(model, batch)
        handle.remove()
        return loss

    check(detached_text, r"'text' was .* no gradient: reading\..*does not reach the loss")


def test_fp16_needs_float32_weights_and_trains(foreign):
    _, losses = trained(foreign, "lora+amp(dtype='fp16')", steps=8)
    assert losses[-1] < losses[0]
    with pytest.raises(PlanError, match="float16"):
        compose("amp(dtype='fp16')").apply(foreign.build("mlp").half())


def test_amp_holds_in_evaluation_too(foreign):
    import torch

    tuned, _ = trained(foreign, "amp(dtype='bf16')", steps=1)
    with tuned.evaluating():
        assert foreign.outputs(tuned.model, foreign.batch("two")).dtype == torch.bfloat16
        assert not tuned.model.training
    assert tuned.model.training
    assert foreign.outputs(tuned.model, foreign.batch("two")).dtype == torch.float32


@pytest.mark.slow
def test_compile_renames_nothing_and_equals_plain(foreign):
    plain, losses = trained(foreign, "lora")
    compiled, again = trained(foreign, "lora+compile(backend='eager')")
    assert again == losses
    assert [n for n, _ in compiled.model.named_parameters()] == [n for n, _ in plain.model.named_parameters()]
    _, whole = trained(foreign, "compile(backend='eager', regional=False)", kind="mlp")
    assert whole == trained(foreign, "full", kind="mlp")[1]


@pytest.mark.slow
def test_inductor_runs(foreign):
    _, losses = trained(foreign, "checkpointing", kind="conv")
    compiled, again = trained(foreign, "checkpointing+compile", kind="conv")
    assert again == pytest.approx(losses, rel=1e-4)
    with compiled.evaluating():
        foreign.outputs(compiled.model, foreign.batch("conv"))


def test_loader_order_comes_from_the_generator_alone(foreign):
    import torch

    def order(text):
        torch.rand(3)
        tuned = compose(text).apply(foreign.build("mlp"))
        generator = torch.Generator().manual_seed(4)
        return list(tuned.loader(list(range(10)), batch_size=3, collate=list, generator=generator))

    assert order("full") == order("lora")
    assert len(order("full")) == 3


def test_hooks_are_called_in_order(foreign):
    """A strategy of somebody else uses every loop-level hook."""
    import contextlib
    import dataclasses

    from strategies import Strategy

    calls = []

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Spy(Strategy):
        name, kind, stage = "spy", "update", 60

        def prepare_batch(self, batch, state):
            calls.append("prepare_batch")
            return batch

        def before_step(self, state):
            calls.append("before_step")

        def extra_loss(self, state):
            calls.append("extra_loss")
            return 0 * state.model[0].weight.sum()

        def after_update(self, state):
            calls.append("after_update")
            assert model[0].weight.grad is not None

        def param_groups(self, groups, model, context):
            calls.append("param_groups")
            return groups

        def optimizer(self, make):
            calls.append("optimizer")
            return make

        def evaluating(self, state):
            calls.append("evaluating")
            return contextlib.nullcontext()

    model = foreign.build("mlp")
    tuned = Recipe.of([Spy()]).apply(model)
    tuned.step(foreign.loss, foreign.batch("mlp"))
    with tuned.evaluating():
        pass
    assert calls == [
        "param_groups",
        "optimizer",
        "before_step",
        "prepare_batch",
        "extra_loss",
        "after_update",
        "evaluating",
    ]
    assert model[0].weight.grad is None
    assert tuned.state.step == 1
