"""Checkpoint folders as the hub has them, one of each family, with random weights.

Saved from the full class with its heads, under the names of transformers 4 (`save_pretrained` writes these), with
the preprocessor and the tokenizer files that the family's best known folder has.
"""

import json
from functools import partial

import torch
from tokenizers import AddedToken, ByteLevelBPETokenizer, Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    AlbertConfig,
    AlbertForPreTraining,
    AlbertTokenizer,
    BertConfig,
    BertForPreTraining,
    BertModel,
    DeiTConfig,
    DeiTForImageClassificationWithTeacher,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DistilBertConfig,
    DistilBertForMaskedLM,
    RobertaConfig,
    RobertaForMaskedLM,
    ViTConfig,
    ViTForImageClassification,
)

from vqa_model.picture_world.tokenizer import make_tokenizer

TEXTS = ["what is this", "what is that", "how many cats are on the table", "is this a dog"]
SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
IMAGE = {**SHAPE, "image_size": 16, "patch_size": 8}
WORDS = {**SHAPE, "vocab_size": 2000, "max_position_embeddings": 66}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
CUT = {"do_center_crop": True, "crop_size": {"height": 16, "width": 16}, **IMAGENET, "resample": 3}
BIT = {**CUT, "image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 18}}
VISION = {
    "vit": (
        lambda: ViTForImageClassification(ViTConfig(**IMAGE)),
        {"preprocessor_config.json": {"feature_extractor_type": "ViTFeatureExtractor", "size": 16, "resample": 2}},
    ),
    "deit": (
        lambda: DeiTForImageClassificationWithTeacher(DeiTConfig(**IMAGE)),
        {"preprocessor_config.json": {**CUT, "feature_extractor_type": "DeiTFeatureExtractor", "size": 18}},
    ),
    "dinov2": (  # as facebook/dinov2-base: weights for pictures of 518, a preprocessor for 224
        lambda: Dinov2Model(Dinov2Config(**{**IMAGE, "image_size": 40})),
        {"preprocessor_config.json": BIT},
    ),
    "dinov2_with_registers": (
        lambda: Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**{**IMAGE, "image_size": 40})),
        {"processor_config.json": {"image_processor": BIT, "processor_class": "P"}},
    ),
}  # fmt: skip


def write_json(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def word_pieces(folder, *, fast=True):
    """BERT's files; without tokenizer.json as older folders are."""
    pieces = make_tokenizer(TEXTS)
    by_id = sorted(pieces.get_vocab().items(), key=lambda item: item[1])
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece, _ in by_id))
    write_json(folder / "tokenizer_config.json", {"do_lower_case": True, "tokenizer_class": "BertTokenizer"})
    if fast:
        pieces.save(str(folder / "tokenizer.json"))


def byte_pairs(folder):
    tokenizer = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator(TEXTS, vocab_size=300, min_frequency=1, special_tokens=special, show_progress=False)
    tokenizer.save_model(str(folder))


def unigram(folder):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(
        TEXTS,
        trainers.UnigramTrainer(vocab_size=60, special_tokens=special, unk_token="<unk>", show_progress=False),
    )
    scored = [tuple(row) for row in json.loads(tokenizer.to_str())["model"]["vocab"]]
    mask = AddedToken("[MASK]", lstrip=True, special=True)
    AlbertTokenizer(vocab=scored, mask_token=mask).save_pretrained(folder)


def sentence_transformer(folder):
    """What a sentence-transformers folder holds besides: more folders, and a tokenizer that pads to 32 pieces."""
    word_pieces(folder)
    write_json(folder / "modules.json", [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.T"}])
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 32, "do_lower_case": False})
    write_json(
        folder / "1_Pooling" / "config.json", {"word_embedding_dimension": 384, "pooling_mode_mean_tokens": True}
    )
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(32)
    tokenizer.enable_padding(length=32)
    tokenizer.save(str(folder / "tokenizer.json"))


DISTILBERT = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "vocab_size": 2000}
ALBERT = {**WORDS, "num_hidden_layers": 3, "embedding_size": 8}
MINILM = {"hidden_size": 384, "num_attention_heads": 12, "num_hidden_layers": 2, "intermediate_size": 96}
TEXT = {
    "bert": (lambda: BertForPreTraining(BertConfig(**WORDS)), word_pieces),
    "roberta": (
        lambda: RobertaForMaskedLM(RobertaConfig(**WORDS, pad_token_id=1, bos_token_id=0, eos_token_id=2)),
        byte_pairs,
    ),
    "distilbert": (lambda: DistilBertForMaskedLM(DistilBertConfig(**DISTILBERT)), partial(word_pieces, fast=False)),
    "albert": (lambda: AlbertForPreTraining(AlbertConfig(**ALBERT)), unigram),
    "minilm": (lambda: BertModel(BertConfig(**{**WORDS, **MINILM})), sentence_transformer),
}  # fmt: skip


def build(family):
    """The full model of a family, always with the same weights, and its other files or what writes them."""
    torch.manual_seed(0)
    make, files = {**VISION, **TEXT}[family]
    model = make().eval()
    for name, parameter in model.named_parameters():
        if "position_embeddings" in name:  # some start at zero, where no mistake shows
            torch.nn.init.normal_(parameter)
    return model, files


def save(family, folder):
    """Save a family's folder; gives the model in it, without the heads."""
    model, files = build(family)
    model.save_pretrained(folder)
    if family in TEXT:
        files(folder)
    else:
        for name, content in files.items():
            write_json(folder / name, content)
    return model.base_model
