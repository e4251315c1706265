"""What is new in a model, its head and its towers: found by marks of loading, by class or by place, or refused."""

import copy
import itertools
import json
import warnings

import pytest
import torch
from torch import nn
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BartForSequenceClassification,
    BartModel,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    BitsAndBytesConfig,
    CLIPConfig,
    CLIPForImageClassification,
    CLIPModel,
    CLIPTextModelWithProjection,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    DistilBertConfig,
    DistilBertForMaskedLM,
    DistilBertForSequenceClassification,
    DistilBertModel,
    EncoderDecoderModel,
    GPT2Config,
    GPT2DoubleHeadsModel,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaModel,
    MarianConfig,
    MarianMTModel,
    T5Config,
    T5ForConditionalGeneration,
    T5ForQuestionAnswering,
    T5ForSequenceClassification,
    T5Model,
    ViTMAEConfig,
    ViTMAEForPreTraining,
    Wav2Vec2Config,
    Wav2Vec2ForSequenceClassification,
    Wav2Vec2Model,
    WhisperConfig,
    WhisperForAudioClassification,
)

from strategies import PlanError, compose, load
from strategies.structure.find_layout import find_layout
from tests.scripts import forked_code

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
BERT = BertConfig(**{**SIZES, "hidden_size": 32}, **STILL, vocab_size=60, max_position_embeddings=16)
DISTIL = DistilBertConfig(
    vocab_size=60, dim=16, n_layers=2, n_heads=2, hidden_dim=32, max_position_embeddings=16, dropout=0.0,
    attention_dropout=0.0, seq_classif_dropout=0.0, num_labels=3,
)  # fmt: skip
LLAMA = {**SIZES, "vocab_size": 60, "num_key_value_heads": 2}
GPT2 = GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=60, n_positions=16, num_labels=1)
T5 = T5Config(vocab_size=60, d_model=16, d_kv=8, d_ff=32, num_layers=3, num_heads=2, num_decoder_layers=2)
PAIR = {"encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "d_model": 16}
HEADS = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
BART = BartConfig(**PAIR, **HEADS, vocab_size=60, max_position_embeddings=16)
WHISPER = WhisperConfig(
    **PAIR, **HEADS, vocab_size=60, max_source_positions=16, max_target_positions=16, num_mel_bins=8, pad_token_id=0,
    bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
)  # fmt: skip
PICTURES = {**SIZES, "image_size": 16, "patch_size": 8}
CLIP = CLIPConfig(
    text_config={**SIZES, "vocab_size": 60, "max_position_embeddings": 16}, vision_config=PICTURES, projection_dim=8
)
WAV2VEC2 = Wav2Vec2Config(
    **SIZES, conv_dim=(16, 16), conv_kernel=(10, 3), conv_stride=(5, 2), num_feat_extract_layers=2,
    num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2, classifier_proj_size=8, vocab_size=20,
)  # fmt: skip
MAE = ViTMAEConfig(
    **PICTURES, decoder_num_hidden_layers=2, decoder_hidden_size=16, decoder_num_attention_heads=2,
    decoder_intermediate_size=32,
)  # fmt: skip
WORDS = {"input_ids": torch.arange(40).reshape(4, 10) % 60}
LABELS = torch.tensor([0, 1, 2, 0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Save a model of a class and a configuration, once; give the folder."""
    saved = {}

    def save(kind, config):
        if (kind, id(config)) not in saved:
            torch.manual_seed(1)
            saved[kind, id(config)] = tmp_path_factory.mktemp(kind.__name__)
            kind(config).save_pretrained(saved[kind, id(config)])
        return saved[kind, id(config)]

    return save


@pytest.fixture
def classifier(folder):
    """Put a new classifier on the saved DistilBERT, from a seed."""

    def make(seed=2, **options):
        torch.manual_seed(seed)
        return DistilBertForSequenceClassification.from_pretrained(
            folder(DistilBertModel, DISTIL), num_labels=3, **options
        )

    return make


def loss(model, batch):
    return nn.functional.cross_entropy(model(**batch["inputs"]).logits, batch["labels"])


def train(tuned, inputs=WORDS):
    tuned.step(loss, {"inputs": inputs, "labels": LABELS})


def scores(tuned, inputs=WORDS):
    with tuned.evaluating():
        return tuned.model(**inputs).logits


def test_new_layers_train_and_come_back_whatever_the_seed(classifier, tmp_path):
    for text in ("lora", "freeze", "linear_probe", "nf4+lora", "full"):
        model = classifier()
        before = {name: p.clone() for name, p in model.named_parameters()}
        tuned = compose(text).apply(model)
        assert tuned.context.layout.new_parts == ("pre_classifier", "classifier")
        train(tuned)
        moved = {
            name for name, p in model.named_parameters() if p.is_floating_point() and not p.equal(before.get(name, p))
        }
        new = {f"{part}.{own}" for part in ("pre_classifier", "classifier") for own in ("weight", "bias")}
        assert moved == (set(before) if text == "full" else new), text
        tuned.save(tmp_path / text)
        again = load(tmp_path / text, classifier(seed=3))
        assert scores(again).equal(scores(tuned)), text
        assert json.loads((tmp_path / text / "plan.json").read_text())["head"] == ["pre_classifier", "classifier"]


FRESH = """
import json, sys, torch
from transformers import DistilBertForSequenceClassification
from strategies import load
torch.manual_seed(7)
tuned = load(sys.argv[2], DistilBertForSequenceClassification.from_pretrained(sys.argv[1], num_labels=3))
with tuned.evaluating():
    print(json.dumps(tuned.model(input_ids=torch.arange(40).reshape(4, 10) % 60).logits.tolist()))
"""


@pytest.mark.slow
@pytest.mark.usefixtures("forks")
def test_new_layers_come_back_in_a_fresh_process(classifier, folder, tmp_path):
    tuned = compose("lora").apply(classifier())
    train(tuned)
    tuned.save(tmp_path)
    printed = forked_code(FRESH, folder(DistilBertModel, DISTIL), tmp_path, cwd=tmp_path)
    assert torch.tensor(json.loads(printed.splitlines()[-1])).allclose(scores(tuned), atol=1e-6)


def test_a_new_projector_and_a_single_new_parameter_train_and_come_back(folder, tmp_path):
    def make(seed):
        torch.manual_seed(seed)
        base = folder(Wav2Vec2Model, WAV2VEC2)
        return Wav2Vec2ForSequenceClassification.from_pretrained(base, num_labels=3, use_weighted_layer_sum=True)

    sound = {"input_values": torch.randn(4, 400, generator=torch.Generator().manual_seed(0))}
    tuned = compose("lora+amp(dtype='bf16')").apply(make(1))
    assert tuned.context.layout.new_parts == ("projector", "classifier", "layer_weights")
    with torch.no_grad():
        tuned.model.layer_weights.copy_(torch.tensor([0.5, 1.0, 2.0]))
    tuned.save(tmp_path)
    assert scores(load(tmp_path, make(2)), sound).equal(scores(tuned, sound))
    assert "layer_weights" in tuned.trained
    assert compose("linear_probe").apply(make(1)).trained == {n for n in tuned.trained if "lora" not in n}


BESIDE = {
    T5Model: (T5, (), "is a base model"), T5ForConditionalGeneration: (T5, (), "tied to shared.weight"),
    T5ForSequenceClassification: (T5, ("classification_head",), "beside its pretrained body"),
    T5ForQuestionAnswering: (T5, ("qa_outputs",), "beside its pretrained body"), BartModel: (BART, (), "base model"),
    BartForConditionalGeneration: (BART, (), "output embedding, tied to model.shared.weight"),
    BartForSequenceClassification: (BART, ("classification_head",), "beside"), CLIPModel: (CLIP, (), "a base model"),
    CLIPTextModelWithProjection: (CLIP.text_config, (), "base model"),
    CLIPForImageClassification: (CLIP, ("classifier",), "beside its pretrained body"),
    LlamaModel: (LlamaConfig(**LLAMA), (), "base model"),
    LlamaForSequenceClassification: (LlamaConfig(**LLAMA), ("score",), "beside"),
    GPT2LMHeadModel: (GPT2, (), "tied to transformer.wte.weight"),
    GPT2DoubleHeadsModel: (GPT2, ("multiple_choice_head",), "beside"),
    BertForMaskedLM: (BERT, (), "cls holds the output embedding, tied to"),
    DistilBertForMaskedLM: (DISTIL, (), "vocab_projector holds the output embedding"),
    DINOv3ViTModel: (DINOv3ViTConfig(**PICTURES), (), "base model"),
    Wav2Vec2ForSequenceClassification: (WAV2VEC2, ("projector", "classifier"), "beside"),
    WhisperForAudioClassification: (WHISPER, ("projector", "classifier"), "beside its pretrained body"),
}  # fmt: skip


def test_without_marks_the_class_of_a_transformers_model_tells_its_head():
    for kind, (config, head, words) in BESIDE.items():
        layout = find_layout(kind(config))
        assert layout.scopes["head"] == layout.new_parts == head, kind
        assert words in layout.head_origin, (kind, layout.head_origin)


def test_a_pretrained_decoder_is_refused_as_a_head_with_the_names_to_choose_from(folder):
    with pytest.raises(
        PlanError, match=r"'decoder' holds repeated blocks; .* head=None .* there is: vit, .*decoder_pred"
    ):
        find_layout(ViTMAEForPreTraining(MAE))
    loaded = ViTMAEForPreTraining.from_pretrained(folder(ViTMAEForPreTraining, MAE))
    assert find_layout(loaded).head_origin == "all was in the checkpoint, so nothing is new"
    assert find_layout(ViTMAEForPreTraining(MAE), "decoder.decoder_pred").new_parts == ("decoder.decoder_pred",)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT asks for it
@pytest.mark.parametrize("tied", [True, False])
def test_lora_on_a_language_model_trains_what_peft_trains(tied, folder):
    import peft

    config = LlamaConfig(**LLAMA, tie_word_embeddings=tied)
    theirs = peft.get_peft_model(LlamaForCausalLM(config), peft.LoraConfig(task_type="CAUSAL_LM", r=8))
    expected, _ = theirs.get_nb_trainable_parameters()
    for model in (LlamaForCausalLM(config), LlamaForCausalLM.from_pretrained(folder(LlamaForCausalLM, config))):
        tuned = compose("lora(r=8)").apply(model)
        assert tuned.counts()["trainable_parameters"] == expected
        assert "head: none (" in tuned.describe()
        assert tuned.context.layout.is_new("lm_head") is False


def test_a_new_output_embedding_is_new_and_a_resized_one_is_pointed_out(folder):
    config = LlamaConfig(**LLAMA, tie_word_embeddings=False)
    layout = find_layout(LlamaForCausalLM.from_pretrained(folder(LlamaModel, config)))
    assert layout.new_parts == ("lm_head",)
    model = LlamaForCausalLM.from_pretrained(folder(LlamaForCausalLM, config))
    model.resize_token_embeddings(64, mean_resizing=False)
    tuned = compose("lora").apply(model)
    assert "head: lm_head (not in the checkpoint; if lm_head was only resized, head=None leaves it" in tuned.describe()
    model = LlamaForCausalLM.from_pretrained(folder(LlamaForCausalLM, config))
    model.resize_token_embeddings(64, mean_resizing=False)
    assert compose("lora").apply(model, head=None).trained == tuned.trained - {"lm_head.weight"}


def test_marks_survive_moves_wrapping_and_quantising(classifier):
    expected = ("pre_classifier", "classifier")
    assert find_layout(classifier().to(torch.bfloat16)).new_parts == expected
    wrapped = nn.Sequential(classifier())
    assert find_layout(wrapped).new_parts == ("0.pre_classifier", "0.classifier")
    for bits in ({"load_in_8bit": True}, {"load_in_4bit": True}):
        assert find_layout(classifier(quantization_config=BitsAndBytesConfig(**bits))).new_parts == expected


def test_where_marks_are_lost_the_class_decides_and_it_is_printed(classifier):
    copied, assigned = copy.deepcopy(classifier()), classifier()
    assigned.load_state_dict(classifier().state_dict(), assign=True)
    for model in (copied, assigned):
        text = compose("lora").apply(model).describe()
        assert "head: pre_classifier, classifier (what DistilBertForSequenceClassification has beside its" in text
    filled = classifier()
    filled.load_state_dict(classifier().state_dict())
    assert find_layout(filled).head_origin == "not in the checkpoint"


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
def test_what_is_rebuilt_after_loading_is_not_new(classifier):
    from torch.nn.utils import parametrizations, prune, weight_norm

    model = classifier()
    blocks = model.distilbert.transformer.layer
    parametrizations.weight_norm(blocks[0].ffn.lin1)
    weight_norm(blocks[1].ffn.lin1)
    prune.random_unstructured(blocks[1].ffn.lin2, "weight", amount=0.5)
    parametrizations.weight_norm(model.classifier)
    layout = find_layout(model)
    assert layout.new_parts == ("pre_classifier", "classifier")
    rebuilt = ", ".join(f"distilbert.transformer.layer.{number}.ffn.lin1" for number in range(2))
    assert layout.head_origin == f"not in the checkpoint; rebuilt after loading, and taken for pretrained: {rebuilt}"


def test_other_sizes_and_a_new_pooler_are_new_and_the_rest_of_a_loaded_head_trains_with_it(folder):
    base = folder(BertForMaskedLM, BERT)
    assert find_layout(BertForSequenceClassification.from_pretrained(base)).new_parts == ("bert.pooler", "classifier")
    tuned = folder(DistilBertForSequenceClassification, DISTIL)
    model = DistilBertForSequenceClassification.from_pretrained(tuned, num_labels=7, ignore_mismatched_sizes=True)
    layout = find_layout(model)
    assert layout.new_parts == ("classifier", "pre_classifier")
    assert layout.head_origin.startswith("not in the checkpoint: classifier; what DistilBert")
    whole = find_layout(DistilBertForSequenceClassification.from_pretrained(tuned))
    assert whole.new_parts == ("pre_classifier", "classifier")
    assert whole.head_origin.startswith("all was in the checkpoint; what DistilBert")


def test_what_is_computed_is_not_new_and_a_loaded_head_with_most_of_the_parameters_is_none(folder):
    marian = MarianConfig(**PAIR, **HEADS, vocab_size=60, max_position_embeddings=16, pad_token_id=0)
    assert find_layout(MarianMTModel.from_pretrained(folder(MarianMTModel, marian))).new_parts == ()
    model = DistilBertForSequenceClassification(DISTIL)
    model.pre_classifier, model.classifier = nn.Linear(16, 900), nn.Linear(900, 3)
    for parameter in model.parameters():
        parameter._is_hf_initialized = True
    layout = find_layout(model)
    assert layout.new_parts == ()
    assert layout.head_origin.startswith("all was in the checkpoint, so nothing is new; head=['pre_classifier', 'clas")


def test_the_caller_names_one_part_several_or_none(classifier):
    with pytest.warns(UserWarning, match=r"leaves out pre_classifier, .*head=\["):
        tuned = compose("lora").apply(classifier(), head="classifier")
    assert "head: classifier (named by the caller; not in the checkpoint either: pre_classifier)" in tuned.describe()
    both = ["pre_classifier", "classifier.bias"]
    with pytest.warns(UserWarning, match=r"leaves out classifier,"):
        assert compose("lora").apply(classifier(), head=both).context.layout.new_parts == tuple(both)
    none = compose("lora").apply(classifier(), head=None)
    assert all("lora" in name for name in none.trained)
    assert "head: none (the caller says that nothing is new)" in none.describe()


@pytest.mark.parametrize("head", ["clasifier", ["classifier", "clasifier"], 3, [3]])
def test_a_wrong_name_is_refused(head, classifier):
    with pytest.raises(PlanError, match=r"is no module .*; there is: classifier|should be the name of a module"):
        find_layout(classifier(), head)


def test_wrapped_models_get_the_sentence_that_helps(foreign):
    for wrap, attribute in ((torch.compile, "_orig_mod"), (nn.DataParallel, "module")):
        with pytest.raises(PlanError, match=rf"wraps the model: pass the plain one \(model\.{attribute}\)"):
            compose("lora").apply(wrap(foreign.build("mlp")))


def test_without_a_head_what_needs_one_says_what_to_write():
    def model():
        return LlamaForCausalLM(LlamaConfig(**LLAMA))

    for text in ("freeze", "linear_probe"):
        with pytest.raises(
            PlanError, match=r"no head \(lm_head .*\); name what is new with head=…, train the last blocks"
        ):
            compose(text).apply(model())
    with pytest.raises(PlanError, match=r"scope 'head' holds no module of LlamaForCausalLM: lm_head holds"):
        compose("lora(scope='head')").apply(model())
    quantised = compose("nf4+lora").apply(LlamaForCausalLM(LlamaConfig(**{**LLAMA, "hidden_size": 32}))).model
    assert quantised.lm_head.weight.dtype == torch.float32
    assert quantised.model.layers[0].mlp.up_proj.weight.dtype == torch.uint8
    tuned = compose("muon").apply(model())
    group = next(g for g in tuned.optimizer.param_groups if any(p is tuned.model.lm_head.weight for p in g["params"]))
    assert not any(p is tuned.model.model.layers[0].mlp.up_proj.weight for p in group["params"])


class Tower(nn.Module):
    def __init__(self, norm=True):
        super().__init__()
        kinds = [nn.LayerNorm(8)] if norm else []
        self.embed = nn.Linear(8, 8)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), *kinds) for _ in range(2))


class Parts(nn.Module):
    """Children under the names that they are given."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


def small_cnn(**parts):
    return Parts(features=nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)), **parts)


def layers(*sizes):
    return nn.Sequential(*[nn.Linear(one, other) for one, other in itertools.pairwise(sizes)])


FOUND = {
    "the last child": (lambda: Parts(body=Tower(), pool=nn.Linear(8, 8), out=nn.Linear(8, 2)), ("out",)),
    "one layer, however large": (lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 99)), ("2",)),
    "a large classifier by its name": (lambda: small_cnn(classifier=layers(400, 64, 3)), ("classifier",)),
    "several heads": (
        lambda: Parts(body=Tower(), box_head=nn.Linear(8, 4), drop=nn.Dropout(), class_head=nn.Linear(8, 3)),
        ("box_head", "class_head"),
    ),
    "behind two towers": (
        lambda: Parts(one=Tower(), other=Tower(), one_out=nn.Linear(8, 4), norm=nn.LayerNorm(8), out=nn.Linear(8, 4)),
        ("one_out", "out"),
    ),
    "in wrappers": (lambda: Parts(net=nn.Sequential(small_cnn(fc=nn.Linear(4, 2)))), ("net.0.fc",)),
    "nothing to tell apart": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), ()),
    "beside models of transformers": (
        lambda: Parts(text=BertModel(BERT), image=BertModel(BERT), mix=nn.Linear(32, 8), answer=nn.Linear(8, 3)),
        ("mix", "answer"),
    ),
    "and in them": (
        lambda: Parts(text=BertForSequenceClassification(BERT), image=BertModel(BERT)), ("text.classifier",),
    ),
}  # fmt: skip
REFUSED = {
    "a tower": (lambda: Parts(image=Tower(), text=Tower(norm=False)), "'text' holds repeated blocks"),
    "a norm": (lambda: Parts(body=Tower(), norm=nn.LayerNorm(8)), "'norm' is a norm"),
    "an embedding": (lambda: Parts(body=Tower(), places=nn.Embedding(4, 8)), "'places' is an embedding"),
    "most of it": (lambda: Parts(encoder=layers(8, 4, 2), decoder=layers(2, 4, 8)), "'decoder' has 53% of the param"),
    "a tower beside models": (lambda: Parts(text=BertModel(BERT), image=Tower()), "'image' holds repeated blocks"),
}


def test_other_models_have_a_head_by_place_and_name():
    for what, (make, head) in FOUND.items():
        assert find_layout(make()).scopes["head"] == head, what
    for what, (make, words) in REFUSED.items():
        with pytest.raises(
            PlanError, match=f"{words}.*; name what is new with head=…, or write head=None .* there is: "
        ):
            find_layout(make())
        assert find_layout(make(), None).new_parts == (), what


def test_a_language_model_of_ones_own_is_told_that_its_head_may_be_pretrained():
    model = Parts(embed=nn.Embedding(50, 8), body=Tower(), out=nn.Linear(8, 50, bias=False))
    assert find_layout(model).head_origin.endswith(
        "shaped like the embedding 'embed': if it is pretrained, give head=None"
    )
    model.out.weight = model.embed.weight
    assert find_layout(model).head_origin == "the last child with parameters"
    assert "tied to embed.weight" in compose("lora").apply(model).describe()


def test_in_a_composite_what_carries_no_mark_is_new_but_a_tower_is_asked_about(folder):
    def bert():
        return BertModel.from_pretrained(folder(BertModel, BERT))

    small = {"mix": nn.Linear(32, 8), "answer": nn.Linear(8, 3)}
    assert find_layout(Parts(text=bert(), image=bert(), **small)).new_parts == ("mix", "answer")
    for tower in (copy.deepcopy(bert()), Tower()):
        model = Parts(text=bert(), image=tower, **small)
        with pytest.raises(
            PlanError, match=r"whether image of Parts is new: .*head=\['mix', 'answer'\] if it was loaded"
        ):
            find_layout(model)
        assert find_layout(model, ["mix", "answer"]).left_out == ()


def test_what_is_new_in_an_offered_tower_trains(folder):
    class Offering(Parts):
        @property
        def scopes(self):
            return {"text": self.text, "fusion": self.mix, "head": self.answer}

    text = BertModel.from_pretrained(folder(BertForMaskedLM, BERT))
    layout = find_layout(Offering(text=text, mix=nn.Linear(16, 8), answer=nn.Linear(8, 3)))
    assert layout.scopes["head"] == ("answer", "text.pooler")
    assert layout.new_parts == ("answer", "text.pooler", "mix")
    assert layout.head_origin == "model.scopes; not in the checkpoint: text.pooler"


def blocks_that_train(tuned):
    return {
        name.rpartition(".layers.")[0] + name.rpartition(".layers.")[2][:1]
        for name in tuned.trained
        if ".layers." in name
    }


def test_the_last_blocks_are_those_of_each_tower():
    tuned = compose("freeze(last_n=1)").apply(CLIPModel(CLIP))
    assert blocks_that_train(tuned) == {"text_model.encoder1", "vision_model.encoder1"}
    assert {key for key in tuned.counts() if key.endswith("_trainable_parameters")} == {
        "text_model_trainable_parameters", "vision_model_trainable_parameters", "head_trainable_parameters"
    }  # fmt: skip
    tuned = compose("freeze(last_n=1)").apply(T5ForConditionalGeneration(T5))
    assert {name.rpartition(".layer.")[0] for name in tuned.trained} == {"encoder.block.2", "decoder.block.1"}
    tuned = compose("freeze(last_n=1)").apply(Wav2Vec2ForSequenceClassification(WAV2VEC2))
    assert blocks_that_train(tuned) == {"wav2vec2.encoder1"}
    plain = Parts(image=Tower(), text=Tower(), out=nn.Linear(8, 2))
    assert find_layout(plain).towers == {"image": ("image",), "text": ("text",)}
    stages = Parts(stage1=Tower(), stage2=Tower(), out=nn.Linear(8, 2))
    assert find_layout(stages).towers == {"body": ("stage1", "stage2")}
    assert find_layout(CLIPModel(CLIP)).towers["vision_model"][-1] == "text_projection"
    assert compose("freeze(scope='body', last_n=1)").apply(CLIPModel(CLIP)).trained


def test_what_is_new_within_blocks_neither_hides_them_nor_is_changed(folder):
    def model():
        base = str(folder(BertModel, BERT))
        return EncoderDecoderModel.from_encoder_decoder_pretrained(base, base)

    tuned = compose("freeze(last_n=1)").apply(model())
    layout = tuned.context.layout
    new = {f"decoder.bert.encoder.layer.{block}.crossattention" for block in range(2)}
    assert new < set(layout.new_parts)
    old = {name for name in tuned.trained if not layout.is_new(name)}
    assert {name.partition(".layer.")[2][0] for name in old} == {"1"}
    assert {name.partition(".")[0] for name in old} == {"encoder", "decoder"}
    adapted = compose("nf4+lora(roles=['query', 'value'])").apply(model())
    assert not any("crossattention" in name and "lora" in name for name in adapted.trained)
    block = adapted.model.decoder.bert.encoder.layer[0]
    assert block.crossattention.self.key.weight.dtype == torch.float32
    assert block.attention.self.key.weight.dtype == torch.uint8
    assert "decoder.bert.encoder.layer.0.crossattention.self.key.weight" in adapted.trained
    frozen = compose("lora(scope='decoder')").apply(model())
    assert any("crossattention.self.query.weight" in name for name in frozen.trained)


def test_marks_are_read_before_a_trainer_or_accelerate_touches_the_model(classifier, tmp_path):
    from accelerate import Accelerator
    from transformers import TrainingArguments

    args = TrainingArguments(str(tmp_path / "out"), max_steps=1, report_to="none", use_cpu=True)
    events = compose("lora").for_trainer(classifier(), args)["callbacks"][0]
    ready = compose("lora").for_accelerate(Accelerator(cpu=True), classifier())
    for number, saver in enumerate((events, ready)):
        assert saver.tuned.context.layout.new_parts == ("pre_classifier", "classifier")
        saver.save(tmp_path / str(number))
        again = load(tmp_path / str(number), classifier(seed=3))
        assert scores(again).equal(scores(saver.tuned))
        assert again.base_note.startswith("verified: ")


def test_what_has_no_parameters_yet_or_is_no_python_is_refused():
    with pytest.raises(PlanError, match=r"'0.weight' has no shape before the first call: pass one batch"):
        find_layout(nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 2)))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.*")
        compiled = torch.jit.script(nn.Linear(4, 4))
    with pytest.raises(PlanError, match=r"'body' is compiled by torch.jit: take the module that it was made of"):
        find_layout(nn.ModuleDict({"body": compiled, "head": nn.Linear(4, 2)}))
