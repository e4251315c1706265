"""A base in 16 bits: what trains beside it has 32, as in PEFT, and everything else keeps its type."""

import peft
import pytest
import torch
from torch import nn

from strategies import PlanError, Recipe, compose, load, load_plain
from strategies.methods.weights.peft_any import ALLOWED

HALVES = (torch.bfloat16, torch.float16)
WORDS = (
    "lora",
    "dora",
    "pissa",
    "lorafa",
    "adalora",
    "ia3",
    "vera",
    "oft",
    "hra",
    "fourierft",
    "houlsby",
    "adaptformer",
)
COMBINATIONS = (
    "nf4+lora",
    "int8+lora",
    "nf4+ia3",
    "int8+shira",
    "lora+amp(dtype={amp!r})",
    "lora+checkpointing",
    "layernorm",
    "freeze",
)
BF16_ROUNDING = 2**-7
pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),  # PEFT's own
    pytest.mark.filterwarnings("ignore:One of the base layers adapted with ShiRA has:UserWarning"),
]


def batch(foreign, dtype):
    pictures, words = foreign.batch("two")["inputs"]
    return {"inputs": (pictures.to(dtype), words), "labels": foreign.batch("two")["labels"]}


def train(foreign, text, dtype, steps=4, **options):
    tuned = compose(text).apply(foreign.build("two").to(dtype), total_steps=steps, **options)
    losses = [float(tuned.step(foreign.loss, batch(foreign, dtype))) for _ in range(steps)]
    return tuned, losses


def scores(foreign, model, dtype):
    with torch.no_grad():
        return foreign.outputs(model.eval(), batch(foreign, dtype))


@pytest.mark.parametrize("text", [*WORDS, *COMBINATIONS])
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_what_trains_has_32_bits_and_the_rest_16(text, dtype, foreign):
    text = text.format(amp="bf16" if dtype == torch.bfloat16 else "fp16")
    tuned, losses = train(foreign, text, dtype)
    assert losses[-1] < losses[0]
    trained = {p.dtype for p in tuned.model.parameters() if p.requires_grad}
    frozen = {p.dtype for name, p in tuned.model.named_parameters() if not p.requires_grad and p.is_floating_point()}
    assert trained == {torch.float32}
    assert dtype in frozen
    assert tuned.model.seeing.embeddings.cls_token.dtype == dtype
    assert {tuned.model.answer.weight.dtype, tuned.model.mix.bias.dtype} == {torch.float32}
    assert scores(foreign, tuned.model, dtype).dtype == dtype  # as the base gave


@pytest.mark.parametrize("kind", ["road", "c3a", "gralora", "vblora"])
def test_methods_by_peft_type(kind, foreign):
    tuned, losses = train(foreign, f"peft(type={kind!r}, options={ALLOWED[kind]!r})", torch.bfloat16)
    assert losses[-1] < losses[0]
    assert {p.dtype for p in tuned.model.parameters() if p.requires_grad} == {torch.float32}


CONFIGS = {
    "lora": lambda **more: peft.LoraConfig(r=8, lora_alpha=16, **more),
    "dora": lambda **more: peft.LoraConfig(r=8, lora_alpha=16, use_dora=True, **more),
    "pissa": lambda **more: peft.LoraConfig(r=8, lora_alpha=8, init_lora_weights="pissa", **more),
    "vera": lambda **more: peft.VeraConfig(projection_prng_key=7, **more),
}


@pytest.mark.parametrize("word", CONFIGS)
def test_the_first_step_is_pefts_to_the_bit(word, foreign):
    model = foreign.build("text").bfloat16()
    torch.manual_seed(7)
    theirs = peft.get_peft_model(model, CONFIGS[word](target_modules=["query", "value"]))
    others = {name.removeprefix("base_model.model."): p for name, p in theirs.named_parameters() if p.requires_grad}
    tuned = compose(f"{word}+freeze(scope='head')").apply(foreign.build("text").bfloat16(), seed=7)
    ours = {name: p for name, p in tuned.model.named_parameters() if p.requires_grad}
    assert ours.keys() == others.keys()
    assert all(torch.equal(ours[name], others[name]) for name in ours)
    for one in (tuned.model, theirs):
        foreign.loss(one, foreign.batch("text")).backward()
    assert all(torch.equal(ours[name].grad, others[name].grad) for name in ours)


def test_a_new_head_in_32_bits_gives_what_pefts_in_16_gives_but_for_rounding(foreign):
    model = foreign.build("text").bfloat16()
    torch.manual_seed(7)
    config = CONFIGS["lora"](target_modules=["query", "value"], modules_to_save=["classifier"])
    theirs = peft.get_peft_model(model, config)
    tuned = compose("lora").apply(foreign.build("text").bfloat16(), seed=7)
    data = foreign.batch("text")
    found, expected = foreign.outputs(tuned.model, data), foreign.outputs(theirs, data)
    torch.testing.assert_close(found, expected, rtol=BF16_ROUNDING, atol=BF16_ROUNDING)
    small = compose("lora+schedule(warmup=0.0)").apply(foreign.build("text").bfloat16(), head_lr=1e-6, total_steps=8)
    before = small.model.classifier.weight.detach().clone()
    small.step(foreign.loss, data)
    assert not torch.equal(small.model.classifier.weight, before), "16 bits would round this update to nothing"


@pytest.mark.parametrize("text", ["lora", "pissa", "lora+ema", "nf4+lora"])
def test_saved_loaded_and_merged(text, foreign, tmp_path):
    dtype = torch.bfloat16
    tuned, _ = train(foreign, text, dtype, lr=1e-2)
    tuned.save(tmp_path)
    with tuned.evaluating():
        expected = scores(foreign, tuned.model, dtype)
    loaded = load(tmp_path, foreign.build("two").to(dtype))
    assert torch.equal(scores(foreign, loaded.model, dtype), expected)
    plain = foreign.build("two").to(dtype)
    load_plain(tmp_path, plain)
    assert {p.dtype for p in plain.parameters()} == {dtype}
    torch.testing.assert_close(scores(foreign, plain, dtype), expected, rtol=0.05, atol=0.02)
    merged = tuned.merge()
    assert merged.layer_drift < (0.2 if "nf4" in text else BF16_ROUNDING)
    kept = {p.dtype for name, p in tuned.model.named_parameters() if "bias" not in name and p.is_floating_point()}
    assert kept == {dtype}
    assert "forward" not in vars(tuned.model.answer)


@pytest.mark.parametrize("text", ["full", "freeze(last_n=1)", "bitfit", "lora(scope='vision')"])
def test_only_what_would_round_away_is_refused(text, foreign):
    plan = compose(text)
    with pytest.raises(PlanError, match=r"pretrained tensors would train in torch.bfloat16.*add pure_bf16.*\(lora\)"):
        plan.apply(foreign.build("two").bfloat16())
    plan.apply(foreign.build("two"))
    Recipe.of([*plan.members, *compose("pure_bf16").members]).apply(foreign.build("two").bfloat16())


def test_amp_and_a_model_in_the_other_16_bits(foreign):
    for dtype, other in ((torch.float16, "bf16"), (torch.bfloat16, "fp16")):
        with pytest.raises(PlanError, match=rf"computes in {other}, which do not mix: take amp\(dtype="):
            compose(f"lora+amp(dtype={other!r})").apply(foreign.build("two").to(dtype))


def test_modules_that_share_a_weight_are_cast_together():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.body = nn.Embedding(10, 16), nn.Sequential(nn.Linear(16, 16), nn.ReLU())
            self.out = nn.Linear(16, 10, bias=False)
            self.out.weight = self.embed.weight

        def forward(self, ids):
            return self.out(self.body(self.embed(ids)))

    torch.manual_seed(0)
    ids = torch.arange(10)[None]
    tuned = compose("lora(modules_to_save=['embed'])").apply(Tied().bfloat16(), head="out")
    model = tuned.model
    assert model.out.weight is model.embed.weight
    assert model.embed.weight.dtype == torch.float32
    assert model(ids).dtype == model.embed(ids).dtype == torch.bfloat16
    losses = [float(tuned.step(lambda m, b: m(b["x"]).float().logsumexp(-1).mean(), {"x": ids})) for _ in range(4)]
    assert losses[-1] < losses[0]
    tuned.merge()
    assert model.out.weight is model.embed.weight
    assert model.embed.weight.dtype == torch.bfloat16
