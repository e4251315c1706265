"""Weights that stand in two places stay in both: after surgery, training, saving, loading and merging."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, T5Config, T5ForConditionalGeneration

from strategies import PlanError, compose, load, load_plain

IDS = torch.randint(1, 40, (3, 5), generator=torch.Generator().manual_seed(0))


def gpt2(**options):
    torch.manual_seed(0)
    sizes = {"n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": 40, "n_positions": 8}
    return GPT2LMHeadModel(GPT2Config(**sizes, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **options))


def loss(model, batch):
    return model(**batch).loss


def tied(model):
    return model.lm_head.weight is model.transformer.wte.weight


@pytest.mark.parametrize("text", ["full", "lora", "nf4+lora", "int8+lora", "pure_bf16", "houlsby", "ema+bitfit"])
def test_a_tied_head_stays_tied(text, tmp_path):
    tuned = compose(text).apply(gpt2(), total_steps=3)
    for _ in range(2):
        tuned.step(loss, {"input_ids": IDS, "labels": IDS})
    assert tied(tuned.model)
    tuned.save(tmp_path)
    again = load(tmp_path, gpt2())
    assert tied(again.model)
    with tuned.evaluating(), again.evaluating():
        assert torch.equal(tuned.model(IDS).logits, again.model(IDS).logits)
    if text in {"lora", "nf4+lora"}:
        plain = gpt2()
        load_plain(tmp_path, plain)
        assert tied(plain)
        with tuned.evaluating():
            assert torch.allclose(tuned.model(IDS).logits, plain.eval()(IDS).logits, atol=1e-4)


@pytest.mark.parametrize("text", ["lora(scope='lm_head')", "adalora(scope='lm_head')", "oft(scope='lm_head')"])
def test_adapters_on_a_tied_head_are_refused_in_words(text):
    words = (
        r"'lm_head' has the same weight as 'transformer\.wte\.weight', which lies outside.*tie_word_embeddings=False"
    )
    with pytest.raises(PlanError, match=words):
        compose(text).apply(gpt2(), total_steps=3)
    assert compose(text).apply(gpt2(tie_word_embeddings=False), total_steps=3)


@pytest.mark.parametrize("text", ["freeze(scope='lm_head')", "houlsby(scope='lm_head')"])
def test_freezing_a_tied_head_alone_is_refused_with_a_way_out(text):
    words = r"'lm_head(\.base_layer)?' has the same weight as 'transformer\.wte\..*\+freeze\(scope='transformer\.wte'\)"
    with pytest.raises(PlanError, match=words):
        compose(text).apply(gpt2())
    model = gpt2()
    tuned = compose("freeze(scope='lm_head')+freeze(scope='transformer.wte')").apply(model)
    before = model.lm_head.weight.detach().clone()
    tuned.step(loss, {"input_ids": IDS, "labels": IDS})
    assert torch.equal(model.lm_head.weight, before)
    assert model.transformer.ln_f.weight.requires_grad


def test_an_embedding_shared_with_an_adapted_tower_trains_on():
    config = T5Config(d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, vocab_size=40, decoder_start_token_id=0)
    model = T5ForConditionalGeneration(config)
    tuned = compose("lora(scope='decoder')").apply(model, head="lm_head")
    assert model.shared.weight.requires_grad
    assert model.shared.weight is model.decoder.embed_tokens.weight is model.lm_head.weight
    assert all(
        "lora_" in name for name, p in model.decoder.named_parameters() if p.requires_grad and "embed" not in name
    )
    tuned.step(loss, {"input_ids": IDS, "labels": IDS})
