"""Merging adapters into the weights, and what `describe` and `memory` say."""

import pytest

from strategies import PlanError, compose

# Adapters that PEFT can add to a float weight.
MERGE = (
    "lora rslora dora pissa olora loraplus lorafa adalora ia3 vera oft boft loha lokr hra fourierft randlora miss shira"
)


def tuned_on(foreign, text, kind="two", steps=6):
    tuned = compose(text).apply(foreign.build(kind), total_steps=20, lr=1e-2)
    for _ in range(steps):
        tuned.step(foreign.loss, foreign.batch(kind))
    return tuned


def outputs_of(foreign, kind="two"):
    return lambda model: foreign.outputs(model, foreign.batch(kind))


@pytest.mark.slow
@pytest.mark.parametrize("text", MERGE.split())
def test_merged_equals_unmerged(text, foreign):
    tuned = tuned_on(foreign, text)
    names = [name for name, _ in foreign.build("two").named_parameters()]
    assert [name for name, _ in tuned.model.named_parameters()] != names
    merged = tuned.merge(outputs_of(foreign))
    assert merged.layers == {"ia3": 12, "adalora": 24}.get(text, 8)
    assert merged.layer_drift < 1e-5
    assert merged.output_drift < 1e-5
    assert [name for name, _ in tuned.model.named_parameters()] == names
    with pytest.raises(PlanError, match="merged"):
        tuned.step(foreign.loss, foreign.batch("two"))
    with pytest.raises(PlanError, match="state_dict"):
        tuned.save("nowhere")


@pytest.mark.parametrize(("text", "least", "most"), [("qlora", 1e-3, 0.2), ("qlora8", 1e-4, 0.02)])
def test_merging_into_few_bits_drifts_and_says_so(text, least, most, foreign):
    merged = tuned_on(foreign, text).merge(outputs_of(foreign))
    assert least < merged.layer_drift < most
    assert merged.output_drift > 1e-4
    assert f"{merged.layers} layers merged" in str(merged)
    assert merged.worst_layer in str(merged)


@pytest.mark.parametrize("kind", ["gpt", "cnn", "mlp", "conv", "text"])
def test_a_merged_model_is_the_plain_kind_again(kind, foreign):
    plain = foreign.build(kind)
    tuned = tuned_on(foreign, "lora", kind)
    merged = tuned.merge(outputs_of(foreign, kind))
    assert merged.layers > 0
    assert merged.output_drift < 1e-5
    assert [(n, type(m)) for n, m in tuned.model.named_modules()] == [(n, type(m)) for n, m in plain.named_modules()]
    plain.load_state_dict(tuned.model.state_dict())


def test_nothing_to_merge_and_what_cannot_be_merged(foreign):
    import torch

    assert str(tuned_on(foreign, "freeze").merge()).startswith("nothing to merge")
    tuned = tuned_on(foreign, "houlsby(scope='text')+lora(scope='vision')")
    before = {name: p.clone() for name, p in tuned.model.named_parameters()}
    with pytest.raises(PlanError, match="not linear"):
        tuned.merge()
    assert all(torch.equal(p, before[name]) for name, p in tuned.model.named_parameters())
    tuned.step(foreign.loss, foreign.batch("two"))


def test_a_tied_output_embedding_is_no_head():
    from transformers import GPT2Config, GPT2LMHeadModel

    def model():
        return GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=20, n_positions=8))

    assert "tied to transformer.wte.weight" in compose("lora").apply(model()).describe()
    with pytest.raises(PlanError, match=r"no head \(lm_head .* tied to transformer\.wte\.weight"):
        compose("freeze").apply(model())


def test_describe_and_memory_count_what_is_there(foreign):
    model = foreign.build("two")
    plain = sum(p.numel() for p in model.parameters())
    full = compose("full").apply(model)
    assert full.memory() == {
        "weights_bytes": 4 * plain + sum(b.nbytes for b in model.buffers()),
        "gradients_bytes": 4 * plain,
        "optimizer_bytes": 8 * plain,
    }
    assert "(expected)" in full.describe()
    full.step(foreign.loss, foreign.batch("two"))
    assert full.memory()["optimizer_bytes"] == 8 * plain + 4 * len(list(model.parameters()))
    assert "(expected)" not in full.describe()
    quantised = compose("qlora").apply(foreign.build("two"))
    linears = 2 * 2 * (4 * 32 * 32 + 2 * 32 * 64)
    saved = full.memory()["weights_bytes"] - quantised.memory()["weights_bytes"]
    adapters = 4 * 8 * (32 * 8 + 8 * 32)
    assert saved < 3.5 * linears - adapters
    assert saved > 2.5 * linears - adapters  # scales and code books take their share
    text = quantised.describe()
    for words in ("vision", "2,048 of", "rates", "base 0.001", "memory", "weights", "KiB", "activations depend"):
        assert words in text, words
