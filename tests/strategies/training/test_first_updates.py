"""The check of the first updates: what models do for good reasons is told once, what nobody can mean is refused."""

import warnings

import pytest
import torch
from torch import nn
from transformers import (
    Dinov2Config,
    Dinov2ForImageClassification,
    ReformerConfig,
    ReformerForSequenceClassification,
    Wav2Vec2Config,
    Wav2Vec2ForSequenceClassification,
)

from strategies import SelfCheckError, catalogue, compose, load_checkpoint, save_checkpoint
from strategies.training.first_step_check import UPDATES

WIDTH = 32
# All optimizers and whatever else looks at gradients or parameters after an update.
PLANS = (
    "full", "adalora", "lisa(n=1)", "progressive_freezing(start=0.0)", "checkpointing", "pure_bf16", "accumulate(n=2)",
    "selective_backprop(start=0.0)", "amp(dtype='fp16')", "adafactor", "adamw8bit(min_8bit_size=256)", "apollo(r=4)",
    "clip", "ema", "galore(r=4)", "layer_decay", "lion", "lion8bit(min_8bit_size=256)", "muon", "schedule_free",
    "optimizer_in_backward", "optimizer_in_backward+muon",
)  # fmt: skip


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.query, self.value = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.fc1, self.fc2 = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x):
        y = self.norm(x)
        x = x + torch.tanh(self.query(y)) * self.value(y)
        return x + self.fc2(torch.relu(self.fc1(x)))


class Skipping(nn.Module):
    """Blocks skipped as `plan` says, update by update; an unused parameter and an expert that no token reaches."""

    def __init__(self, plan=((0, 1), (1, 2), (0, 2))):
        super().__init__()
        self.layers = nn.ModuleList([Block() for _ in range(3)])
        self.experts = nn.ModuleList([nn.Linear(WIDTH, WIDTH) for _ in range(2)])
        self.mask_token = nn.Parameter(torch.zeros(WIDTH))
        self.head = nn.Linear(WIDTH, 3)
        self.plan, self.updates = plan, 0

    def forward(self, x):
        active = self.plan[self.updates % len(self.plan)] if self.training and torch.is_grad_enabled() else range(3)
        self.updates += self.training and torch.is_grad_enabled()
        for number in active:
            x = self.layers[number](x)
        return self.head(x + self.experts[0](x))


def losses(model, batch):
    return nn.functional.cross_entropy(model(batch["x"]), batch["y"], reduction="none")


def batch():
    return {"x": torch.randn(12, WIDTH, generator=torch.Generator().manual_seed(2)), "y": torch.arange(12) % 3}


def begin(text, make=Skipping, **options):
    torch.manual_seed(0)
    return compose(text).apply(make(), head="head", total_steps=9, **options)


def test_every_optimizer_is_tried():
    update = {word for word, strategy in catalogue().items() if strategy.kind == "update"}
    tried = {part.partition("(")[0] for text in PLANS for part in text.split("+")}
    assert update - tried == {"paged_adamw8bit", "schedule"}  # one needs a GPU, one has no state


@pytest.mark.parametrize("text", PLANS)
@pytest.mark.filterwarnings("ignore:.*got no gradient in the first:UserWarning")
def test_plans_stand_layers_that_are_skipped(text):
    tuned = begin(text)
    found = [float(tuned.step(losses, batch())) for _ in range(4)]
    assert all(torch.isfinite(p).all() for p in tuned.model.parameters() if p.is_floating_point())
    with tuned.evaluating():
        assert float(losses(tuned.model, batch()).mean()) < found[0] + 0.1


def test_adalora_takes_a_skipped_layer_for_one_of_gradient_zero():
    """Against a model that computes the layer, times zero."""

    class Times(Skipping):
        def forward(self, x):
            active = self.plan[self.updates % len(self.plan)]
            self.updates += 1
            for number, layer in enumerate(self.layers):
                y = layer(x)
                x = y if number in active else x + 0 * y
            return self.head(x + self.experts[0](x))

    text = "adalora(deltaT=1, tinit=0.0, tfinal=0.2)"
    one, other = (begin(text, make) for make in (Skipping, Times))
    assert one.step(losses, batch()).equal(other.step(losses, batch()))
    importances = [next(iter(t.context.member_state.values()))[0].rankallocator.ipt for t in (one, other)]
    assert importances[0].keys() == importances[1].keys()
    assert all(torch.equal(value, importances[1][name]) for name, value in importances[0].items())


def test_what_never_gets_a_gradient_is_told_once_by_name():
    tuned = begin("full")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(UPDATES - 1):
            tuned.step(losses, batch())
    words = (
        r"3 of 37 parameters .* no gradient in the first 5 updates: mask_token, experts\.1\.weight, experts\.1\.bias\."
    )
    with pytest.warns(UserWarning, match=words) as told:
        tuned.step(losses, batch())
    assert len(told) == 1
    assert "\n" not in str(told[0].message)
    assert str(told[0].message) in tuned.describe()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tuned.step(losses, batch())
        # The remedy that it names.
        again = Skipping()
        again.get_submodule("experts.1").requires_grad_(requires_grad=False)
        again.get_parameter("mask_token").requires_grad_(requires_grad=False)
        tuned = begin("full", lambda: again)
        for _ in range(UPDATES + 1):
            tuned.step(losses, batch())
    assert "no gradient" not in tuned.describe()


def test_models_of_transformers_with_skipped_layers_and_unused_parameters():
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    convolutions = {"conv_dim": (8,), "conv_stride": (5,), "conv_kernel": (10,), "num_feat_extract_layers": 1}
    speech = Wav2Vec2ForSequenceClassification(
        Wav2Vec2Config(
            **sizes, **convolutions, intermediate_size=64, vocab_size=40, num_conv_pos_embeddings=16, layerdrop=0.5,
            num_conv_pos_embedding_groups=2, classifier_proj_size=16, num_labels=3, apply_spec_augment=False,
        )
    )  # fmt: skip
    pictures = Dinov2ForImageClassification(Dinov2Config(**sizes, image_size=16, patch_size=8, num_labels=3))
    y = torch.arange(4) % 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=r".*gradient in the first 5 updates: wav2vec2\.masked_spec_embed")
        tuned = compose("full").apply(speech)
        for _ in range(UPDATES):
            tuned.step(lambda model, b: model(**b).loss, {"input_values": torch.randn(4, 200), "labels": y})
    tuned = compose("full").apply(pictures)
    given = {"pixel_values": torch.randn(4, 3, 16, 16), "labels": y}
    with pytest.warns(UserWarning, match=r"1 of 45 .*dinov2\.embeddings\.mask_token"):
        assert [tuned.step(lambda model, b: model(**b).loss, given) for _ in range(UPDATES)]


class Towers(nn.Module):
    def __init__(self, cut=False):
        super().__init__()
        self.one, self.two, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 3)
        self.scopes = {"one": self.one, "two": self.two, "head": self.head}
        self.cut, self.updates = cut, 0

    def forward(self, x):
        self.updates += 1
        y = self.two(x).detach() if self.cut else self.two(x) if self.updates > 3 else 0
        return self.head(self.one(x) + y)


def test_a_detached_tower_is_refused_at_once_and_one_used_later_is_not():
    words = r"'two' was asked to train, but .* no gradient: two\.weight.*does not reach the loss.*freeze\(scope='two'\)"
    with pytest.raises(SelfCheckError, match=words):
        begin("full", lambda: Towers(cut=True)).step(losses, batch())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        begin("freeze(scope='two')", lambda: Towers(cut=True)).step(losses, batch())
        tuned = begin("full", Towers)
        for _ in range(UPDATES + 1):
            tuned.step(losses, batch())


def test_an_adapter_on_a_layer_that_nothing_calls_is_refused_and_on_an_idle_expert_told():
    class Direct(nn.Module):
        def __init__(self):
            super().__init__()
            self.called, self.read, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 3)

        def forward(self, x):
            return self.head(self.called(x) @ self.read.get_parameter("weight").T)

    def train(model, names):
        tuned = begin(f"lora(target_modules={names})", lambda: model)
        for _ in range(UPDATES):
            tuned.step(losses, batch())

    class Unused(Direct):
        def forward(self, x):
            return self.head(self.called(x))

    with pytest.raises(SelfCheckError, match=r"nothing calls: read\. The model reads"):
        train(Direct(), ["called", "read"])
    with pytest.warns(UserWarning, match=r"2 of 6 .*read\.lora_A.*target_modules"):
        train(Unused(), ["called", "read"])
    with pytest.warns(UserWarning, match=r"experts\.1\.lora_A.*target_modules"):
        train(Skipping(), ["0", "1"])


def test_the_check_goes_on_where_training_was_stopped(tmp_path):
    whole = begin("full", lambda: Skipping(plan=((0, 1),)))
    for update in range(UPDATES):
        if update == 2:
            save_checkpoint(whole, tmp_path / "checkpoint")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            whole.step(losses, batch())
    rest = begin("full", lambda: Skipping(plan=((2,),)))
    load_checkpoint(rest, tmp_path / "checkpoint")
    rest.step(losses, batch())
    rest.step(losses, batch())
    with pytest.warns(UserWarning, match="3 of 37 .*mask_token, experts"):  # layer 2 came, 0 and 1 had been there
        rest.step(losses, batch())
    assert rest.losses.check.done


def test_one_synchronisation_in_the_first_update_and_none_later(monkeypatch):
    tuned = begin("full")
    reads = []
    for name in ("tolist", "item", "__bool__", "__float__", "__int__"):
        plain = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda *a, plain=plain, name=name: (reads.append(name), plain(*a))[1])
    tuned.step(losses, batch())
    first = len(reads)
    assert reads.count("tolist") == 1
    tuned.step(losses, batch())
    later = len(reads) - first
    assert later == first - 1


def test_a_frozen_speech_model_builds_no_graph():
    """Its feature encoder asks for gradients of its input in training, unless told that it is frozen."""
    config = Wav2Vec2Config(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, vocab_size=40, conv_dim=(8,),
        conv_stride=(5,), conv_kernel=(10,), num_feat_extract_layers=1, num_conv_pos_embeddings=16, num_labels=3,
        num_conv_pos_embedding_groups=2, classifier_proj_size=16, apply_spec_augment=False,
    )  # fmt: skip
    model = Wav2Vec2ForSequenceClassification(config)
    tuned = compose("freeze").apply(model)
    given = {"input_values": torch.randn(2, 200), "labels": torch.tensor([0, 1])}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tuned.step(lambda m, b: m(**b).loss, given)
    assert not model.wav2vec2(given["input_values"]).last_hidden_state.requires_grad


def test_reversible_layers_with_adapters_are_refused_with_a_way_out():
    """A Reformer's blocks have a backward pass of their own, which inputs without gradients do not lead to."""
    sizes = {"attention_head_size": 16, "hidden_size": 32, "num_attention_heads": 2, "feed_forward_size": 64}
    config = ReformerConfig(
        **sizes, attn_layers=["local", "local"], axial_pos_shape=[4, 4], axial_pos_embds_dim=[16, 16], vocab_size=40,
        is_decoder=False, local_attn_chunk_length=4,
    )  # fmt: skip
    batch = {"input_ids": torch.arange(32).reshape(2, 16), "labels": torch.tensor([0, 1])}
    with pytest.raises(SelfCheckError, match=r"blocks with a backward pass of their own.*enable_input_require_grads"):
        compose("lora").apply(ReformerForSequenceClassification(config)).step(lambda m, b: m(**b).loss, batch)
    model = ReformerForSequenceClassification(config)
    model.enable_input_require_grads()
    tuned = compose("lora").apply(model, lr=0.01)
    tuned.step(lambda m, b: m(**b).loss, batch)
    assert all(p.abs().sum() > 0 for name, p in model.named_parameters() if "lora_B" in name)
