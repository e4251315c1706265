"""What trains beside adapters, which layer gets which rank, variants and starts: each against PEFT's own model."""

import copy
from functools import cache

import peft
import pytest
import torch
from peft.tuners.lora import initialize_lora_eva_weights
from peft.tuners.lora.corda import preprocess_corda
from peft.tuners.lora.loraga import preprocess_loraga
from torch import nn
from transformers import (
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

from strategies import PlanError, compose, load, load_plain, save_peft
from strategies.prediction.predict import predict

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
WORDS = 40
Q, V = "model.layers.{}.self_attn.q_proj", "model.layers.{}.self_attn.v_proj"
pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),  # PEFT's own
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
    pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning"),  # PEFT's LoRA-GA
]


@cache
def _made(*, tied):
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(vocab_size=WORDS, tie_word_embeddings=tied, num_key_value_heads=2, **SIZES))


def llama(*, tied=True):
    """A small language model, the same each time; tied, it has no head of its own."""
    return copy.deepcopy(_made(tied=tied))


def batch(rows=6):
    ids = torch.randint(0, WORDS, (rows, 8), generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "labels": ids}


def loss(model, data):
    return model(**data).loss


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=batch()["input_ids"]).logits


def train(text, steps=4, **options):
    tuned = compose(text).apply(llama(), total_steps=steps, lr=1e-2, **options)
    losses = [float(tuned.step(loss, batch())) for _ in range(steps)]
    assert losses[-1] < losses[0]
    return tuned


def pefts(seed=0, **fields):
    config = peft.LoraConfig(**{"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"], **fields})
    model = llama()
    torch.manual_seed(seed)
    return peft.get_peft_model(model, config)


def trained(model):
    named = ((name.removeprefix("base_model.model."), p) for name, p in model.named_parameters() if p.requires_grad)
    return {name.replace(".modules_to_save.default", ""): p for name, p in named}


SAME = {  # options → fields of PEFT's config
    "modules_to_save=['embed_tokens']": {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    "modules_to_save=['1.mlp.down_proj', 'model.norm']": {"modules_to_save": ["1.mlp.down_proj", "model.norm"]},
    "trainable_token_indices=[39, 38]": {"trainable_token_indices": [38, 39]},
    "trainable_token_indices={'embed_tokens': [38, 39]}": {"trainable_token_indices": {"embed_tokens": [38, 39]}},
    "rank_pattern={'0.self_attn.q_proj': 4, 'v_proj': 2}, alpha_pattern={'v_proj': 8}": {
        "rank_pattern": {"0.self_attn.q_proj": 4, "v_proj": 2}, "alpha_pattern": {"v_proj": 8},
    },
    r"rank_pattern={'^model\\.layers\\.\\d\\.self_attn\\.q.*': 4}": {"rank_pattern": {r"^model\.layers\.\d\..*q.*": 4}},
    "init='gaussian'": {"init_lora_weights": "gaussian"},
    "init='orthogonal'": {"init_lora_weights": "orthogonal"},
    "init='mica'": {"init_lora_weights": "mica"},
    "variant='velora', variant_options={'num_groups': 4}": {"velora_config": peft.VeloraConfig(num_groups=4)},
    "variant='kasa', init='gaussian'": {"kasa_config": peft.KasaConfig(), "init_lora_weights": "gaussian"},
    "variant='bdlora', variant_options={'target_modules_bd_a': ['q_proj'], 'target_modules_bd_b': ['v_proj']}": {
        "use_bdlora": peft.BdLoraConfig(target_modules_bd_a=["q_proj"], target_modules_bd_b=["v_proj"]),
    },
}  # fmt: skip


@pytest.mark.parametrize("options", SAME)
def test_the_first_step_is_pefts(options):
    tuned = compose(f"lora({options})").apply(llama(), seed=7)
    theirs = pefts(7, **SAME[options])
    ours, others = trained(tuned.model), trained(theirs)
    assert ours.keys() == others.keys()
    assert all(torch.equal(ours[name], others[name]) for name in ours)
    more = theirs.base_model._get_kasa_loss()
    extra = tuned.plan.members[0].extra_loss(tuned.state)
    assert (extra is None) == ("kasa" not in options)
    (loss(tuned.model, batch()) + (0 if extra is None else extra)).backward()
    (loss(theirs, batch()) + more).backward()
    for name in ours:
        torch.testing.assert_close(ours[name].grad, others[name].grad, rtol=1e-5, atol=1e-8)


KEPT = {  # options → whether PEFT's file can hold it
    "modules_to_save=['embed_tokens']": True, "trainable_token_indices=[38, 39]": True,
    "rank_pattern={'q_proj': 4}, alpha_pattern={'0.self_attn.v_proj': 4}": True,
    "variant='velora', variant_options={'num_groups': 4}": True, "variant='kasa'": True, "init='mica'": True,
    "init='eva'": True, "init='corda'": False, "init='lora_ga'": False,
}  # fmt: skip


@pytest.mark.parametrize("options", KEPT)
def test_saved_loaded_merged_and_written_for_peft(options, tmp_path):
    tuned = train(f"lora({options})")
    tuned.save(tmp_path / "ours")
    expected = logits(tuned.model)
    assert torch.equal(logits(load(tmp_path / "ours", llama()).model), expected)
    if KEPT[options]:
        save_peft(tuned, llama(), tmp_path / "theirs")
        read = peft.PeftModel.from_pretrained(llama(), tmp_path / "theirs")
        torch.testing.assert_close(logits(read), expected, rtol=0, atol=1e-5)
    else:
        with pytest.raises(PlanError, match="changed the base weights, which PEFT's file lacks"):
            save_peft(tuned, llama(), tmp_path / "theirs")
    merged = tuned.merge()
    assert merged.layer_drift < 1e-5
    torch.testing.assert_close(logits(tuned.model), expected, rtol=0, atol=1e-5)
    assert type(tuned.model.model.embed_tokens) is nn.Embedding
    assert tuned.model.lm_head.weight is tuned.model.model.embed_tokens.weight


def test_rows_of_the_embedding_train_and_no_others():
    before = llama().model.embed_tokens.weight
    tuned = train("lora(trainable_token_indices=[38, 39], target_modules=['q_proj'])")
    assert {name for name in trained(tuned.model) if "lora_" not in name} == {
        "model.embed_tokens.token_adapter.trainable_tokens_delta.default"
    }
    tuned.merge()
    moved = (tuned.model.model.embed_tokens.weight != before).any(1)
    assert set(moved.nonzero().flatten().tolist()) == {38, 39}


@pytest.mark.parametrize("few", ["nf4", "int8"])
@pytest.mark.parametrize("more", ["modules_to_save=['embed_tokens', 'down_proj']", "trainable_token_indices=[38, 39]"])
def test_beside_adapters_over_few_bits(few, more, tmp_path):
    tuned = train(f"{few}+lora({more})")
    down = tuned.model.model.layers[0].mlp.down_proj
    assert (type(down) is nn.Linear and down.weight.requires_grad) == ("down" in more)
    assert type(tuned.model.model.layers[0].mlp.up_proj) is not nn.Linear
    tuned.save(tmp_path)
    assert torch.equal(logits(load(tmp_path, llama()).model), logits(tuned.model))


def test_each_part_has_its_rate():
    text = "lora(modules_to_save=['embed_tokens'], lr=0.5, head_lr=0.25)"
    tuned = compose(text).apply(llama(tied=False))
    rate = {id(p): group["lr"] for group in tuned.optimizer.param_groups for p in group["params"]}
    found = {name: rate[id(p)] for name, p in tuned.model.named_parameters() if p.requires_grad}
    assert found.pop("model.embed_tokens.weight") == 1e-4  # of full, which trains whole weights
    assert {rate for name, rate in found.items() if "lora_" in name} == {0.5}
    rows = compose("lora(trainable_token_indices=[3], scope='model.layers.0', lr=0.5)").apply(llama())
    assert {group["lr"] for group in rows.optimizer.param_groups} == {0.5}


def test_adapters_do_not_go_where_all_trains():
    model = compose("lora(modules_to_save=['layers.1'])").apply(llama()).model
    assert not any("lora_" in name for name, _ in model.model.layers[1].named_parameters())
    assert all(p.requires_grad for p in model.model.layers[1].parameters())
    assert any("lora_" in name for name, _ in model.model.layers[0].named_parameters())


def test_the_rest_of_a_tower_that_is_adapted_in_part_is_frozen(foreign):
    scopes = {"model.layers.*.self_attn": {0, 1}, "model.layers.1": {1}}
    for scope, layers in scopes.items():
        for plan in (f"lora(scope={scope!r})", f"nf4+lora(scope={scope!r})"):
            names = trained(compose(plan).apply(llama()).model)
            assert {int(name.split(".")[2]) for name in names} == layers
            assert all("lora_" in name for name in names)
    two = compose("lora(scope='text.encoder.layer.0')").apply(foreign.build("two")).model
    assert all(p.requires_grad for p in two.seeing.parameters())  # a tower that nobody names trains, as ever
    assert all("lora_" in name for name, p in two.reading.named_parameters() if p.requires_grad)


def _eva(rows):
    theirs = pefts(init_lora_weights="eva", eva_config=peft.EvaConfig(rho=1.0))
    initialize_lora_eva_weights(theirs, [batch(rows)], prepare_model_inputs_fn=None, prepare_layer_inputs_fn=None,
                                show_progress_bar=False)  # fmt: skip
    return theirs


def _corda(rows):
    model = llama()
    config = peft.LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], init_lora_weights="corda",
                             corda_config=peft.tuners.lora.config.CordaConfig())  # fmt: skip
    preprocess_corda(model, config, lambda: model(**batch(rows)))
    return peft.get_peft_model(model, config)


def _lora_ga(rows):
    model = llama()
    config = peft.LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], init_lora_weights="lora_ga",
                             lora_ga_config=peft.tuners.lora.config.LoraGAConfig())  # fmt: skip
    preprocess_loraga(model, config, lambda: loss(model, batch(rows)).backward())
    return peft.get_peft_model(model, config)


@pytest.mark.parametrize(
    ("init", "rows", "reference"), [("eva", 6, _eva), ("corda", 1, _corda), ("lora_ga", 6, _lora_ga)]
)
def test_starts_from_data_are_pefts(init, rows, reference):
    """PEFT's CorDA takes one sequence at a time, ours whatever the batch is; directions have no sign."""
    tuned, theirs = compose(f"lora(init={init!r}, lr=1e-12)").apply(llama()), reference(rows).base_model.model
    assert not tuned.model.get_submodule(Q.format(0)).lora_B["default"].weight.any()
    first = float(tuned.step(loss, batch(rows)))
    for number, which in ((0, Q), (1, V)):
        ours, other = (model.get_submodule(which.format(number)) for model in (tuned.model, theirs))
        for part, dim in (("lora_A", 1), ("lora_B", 0)):
            one, two = (layer.get_submodule(f"{part}.default").weight for layer in (ours, other))
            torch.testing.assert_close(one.norm(dim=dim), two.norm(dim=dim), rtol=1e-3, atol=1e-6)
            assert init == "eva" or two.any()
            if two.any():
                assert nn.functional.cosine_similarity(one, two, dim=dim).abs().min() > 0.999
        with torch.no_grad():  # what is taken from the weight is in the adapter
            whole = ours.base_layer.weight + ours.get_delta_weight("default")
        torch.testing.assert_close(whole, llama().get_submodule(which.format(number)).weight, rtol=0, atol=1e-5)
    assert first == pytest.approx(float(loss(llama().train(), batch(rows)).detach()), abs=1e-5)
    learned = {name: p.detach().clone() for name, p in trained(tuned.model).items()}
    tuned.step(loss, batch(3))  # which changes nothing any more
    assert all(torch.allclose(p, learned[name], atol=1e-6) for name, p in trained(tuned.model).items())


def test_towers_that_call_their_layers_alike_are_all_started():
    class Twins(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = (nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16)) for _ in range(2))
            self.head = nn.Linear(16, 3)
            self.scopes = {"one": self.one, "two": self.two, "head": self.head}

        def forward(self, x):
            return self.head(self.one(x) + self.two(x))

    torch.manual_seed(0)
    tuned = compose("lora(init='eva', r=4)").apply(Twins())
    before = {name: p.detach().clone() for name, p in tuned.model.named_parameters() if "lora_A" in name}
    tuned.step(lambda model, data: model(data["x"]).logsumexp(-1).mean(), {"x": torch.randn(9, 16)})
    assert len(before) == 4
    assert not any(torch.allclose(tuned.model.get_parameter(name), a, atol=0.01) for name, a in before.items())


def test_a_start_from_data_is_made_once(tmp_path):
    tuned = train("lora(init='eva')")
    tuned.save(tmp_path)
    before = {name: p.detach().clone() for name, p in trained(tuned.model).items()}
    again = load(tmp_path, llama(), device="cpu")
    for group in again.optimizer.param_groups:
        group["lr"] = 0.0
    loss(again.model.train(), batch(4)).backward()
    assert all(torch.equal(p, before[name]) for name, p in trained(again.model).items())


@pytest.mark.parametrize(("few", "options"), [("nf4", ""), ("nf4", ", init_options={'loftq_iter': 4}"), ("int8", "")])
def test_loftq_makes_up_for_rounding(few, options):
    def error(plan):
        model = compose(plan).apply(llama()).model
        found = 0.0
        for name in (Q.format(0), V.format(1)):
            layer, weight = model.get_submodule(name), llama().get_submodule(name).weight
            found += float((layer(torch.eye(32)).T - weight).norm().detach())
        return found

    plain = error(f"{few}+lora")
    fitted = error(f"{few}+lora(init='loftq'{options})")
    assert fitted < 0.85 * plain
    if options:
        assert fitted < error(f"{few}+lora(init='loftq')")
        assert error(f"{few}+lora(init='loftq', alpha=2{options})") == pytest.approx(fitted, rel=1e-3)


def test_predictions_know_what_trains_beside():
    for options in (
        "trainable_token_indices=[38, 39]",
        "modules_to_save=['norm']",
        "init='mica'",
        "init='lora_ga'",
    ):
        (told,) = predict(compose(f"lora({options})"), llama, loss, [batch()])
        assert told.trainable_parameters == compose(f"lora({options})").apply(llama()).counts()["trainable_parameters"]


REFUSED = {
    "modules_to_save=['embed_tokns']": r"modules_to_save has 'embed_tokns', which matches no module.*embed_tokens",
    "modules_to_save=['layers']": r"leaves no layer to adapt",
    "trainable_token_indices=[40]": r"has 40, but 'model.embed_tokens' has 40 rows.*resize_token_embeddings",
    "trainable_token_indices={'embed': [1]}": r"has 'embed', which matches 0 embeddings; there is: model.embed",
    "rank_pattern={'k_proj': 4}": r"has 'k_proj', which is no layer with an adapter; those are: .*q_proj",
    "rank_pattern={'q_proj': 4, 'layers.0.*': 2}": r"gives 'model.layers.0.self_attn.q_proj' both",
    "alpha_pattern={'(': 4}": r"no regular expression",
    "init='pissa'": r"pissa has a word of its own: use pissa\(",
    "init='pissa_niter_4'": r"word of its own: use pissa",
    "variant='dora'": r"use dora\(",
    "variant='alora'": r"cannot be used here: PEFT's own class for causal language models",
    "init='gausian'": r"unknown init 'gausian'; there is: gaussian",
    "variant='velora', init='eva'": r"does not go with init='eva'",
    "init='eva', init_options={'rho': 2.0}": r"has no option \['rho'\]; it has: whiten",
    "variant='velora', variant_options={'groups': 2}": r"has no option 'groups'; it has: num_groups",
    "variant_options={'num_groups': 2}": r"variant_options needs variant=",
    "init='orthogonal', r=5": r"PEFT cannot put this into these layers.*even",
    "init='loftq'": r"makes up for rounding, but '.*q_proj' is a float: write nf4\+lora\(init='loftq'\)",
}  # fmt: skip


@pytest.mark.parametrize("options", REFUSED)
def test_what_cannot_be_is_refused_in_a_line(options):
    with pytest.raises(PlanError, match=REFUSED[options]) as caught:
        compose(f"lora({options})").apply(llama())
    assert "\n" not in str(caught.value)


def test_more_that_is_refused():
    for plan, words in (
        ("nf4+lora(variant='velora')", "is quantised"),
        ("int8+lora(init='mica')", "is quantised"),
        ("lora(init='lora_ga')+amp(dtype='fp16')", "loss scaler changes"),
    ):
        with pytest.raises(PlanError, match=words):
            compose(plan).apply(llama())
    with pytest.raises(PlanError, match="whole pass before the first step: leave optimizer_in_backward out"):
        train("lora(init='lora_ga')+optimizer_in_backward")
    tuned = compose("lora(init='eva', r=16)").apply(llama())
    with pytest.raises(PlanError, match=r"was given 8 vectors in the first pass, r=16 needs as many: lower r"):
        tuned.step(loss, batch(1))


def test_a_tied_layer_with_a_bias_of_its_own_is_refused():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.body, self.out = nn.Embedding(10, 16), nn.Linear(16, 16), nn.Linear(16, 10)
            self.out.weight = self.embed.weight

        def forward(self, ids):
            return self.out(self.body(self.embed(ids)))

    with pytest.raises(PlanError, match=r"bias of its own shares the weight of 'embed'.*modules_to_save"):
        compose("lora(trainable_token_indices=[9])").apply(Tied(), head="out")


@pytest.mark.parametrize(
    ("make", "config"),
    [
        (MixtralForCausalLM, MixtralConfig(vocab_size=WORDS, num_key_value_heads=2, num_local_experts=4, **SIZES)),
        (
            GptOssForCausalLM,
            GptOssConfig(vocab_size=WORDS, num_key_value_heads=2, num_local_experts=4, head_dim=16, **SIZES),
        ),
    ],
)
@pytest.mark.parametrize("options", ["", "modules_to_save=['experts']"])
def test_fused_experts_are_said_to_have_no_adapter_and_train_whole_where_asked(make, config, options, tmp_path):
    def model():
        torch.manual_seed(0)
        return make(copy.deepcopy(config))

    tuned = compose(f"lora({options})").apply(model(), lr=1e-2)
    told = tuned.describe()
    assert "model.layers 0–1 × (mlp.experts.gate_up_proj, mlp.experts.down_proj)" in told
    assert "no layer" in told
    for _ in range(2):
        tuned.step(loss, batch())
    experts = {name: p for name, p in tuned.model.named_parameters() if name.endswith("experts.down_proj")}
    old = dict(model().named_parameters())
    assert {torch.equal(old[name], p) for name, p in experts.items()} == {not options}
    tuned.save(tmp_path)
    expected, plain = logits(tuned.model), model()
    assert torch.equal(logits(load(tmp_path, model()).model), expected)
    load_plain(tmp_path, plain)
    assert torch.allclose(logits(plain), expected, atol=1e-5)


@pytest.mark.parametrize("base", ["nf4", "int8", "fp4"])
def test_sparse_changes_of_a_base_in_few_bits_come_back_and_merge(base, tmp_path):
    tuned = train(f"{base}+shira(r=4)")
    tuned.save(tmp_path)
    expected, plain = logits(tuned.model), llama()
    assert torch.equal(logits(load(tmp_path, llama()).model), expected)
    load_plain(tmp_path, plain)
    assert (logits(plain) - expected).norm() < (1e-2 if base == "int8" else 1e-5) * expected.norm()
