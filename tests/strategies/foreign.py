"""Models that know nothing of this suite, with a batch and a loss each; also imported by fresh processes."""

import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2ForSequenceClassification,
    ViTConfig,
    ViTModel,
)

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
BERT = {**SIZES, "vocab_size": 40, "max_position_embeddings": 16}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 41, "n_positions": 16, "pad_token_id": 0}
VIT = {**SIZES, "image_size": 16, "patch_size": 8}


class ConvAttention(nn.Module):
    """Convolution and batch norm, then torch's own transformer encoder and multi-head attention."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 4, 4), nn.BatchNorm2d(32), nn.ReLU())
        layer = nn.TransformerEncoderLayer(32, 2, 64, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.pool = nn.MultiheadAttention(32, 2, batch_first=True)
        self.classifier = nn.Linear(32, 3)

    def forward(self, x):
        tokens = self.encoder(self.stem(x).flatten(2).transpose(1, 2))
        return self.classifier(self.pool(tokens[:, :1], tokens, tokens)[0][:, 0])


class Residual(nn.Module):
    """Two convolutions with batch norm around a shortcut."""

    def __init__(self, width):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)

    def forward(self, x):
        inner = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        return torch.relu(x + inner)


class Convolutions(nn.Module):
    """A small residual network without any linear layer but the last."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 4, 4)
        self.stages = nn.Sequential(Residual(16), Residual(16))
        self.classifier = nn.Linear(16, 3)

    def forward(self, x):
        return self.classifier(self.stages(self.stem(x)).mean((2, 3)))


class TwoTowers(nn.Module):
    """ViT and BERT with scopes, as the suite's own model offers them."""

    def __init__(self, dropout=0.0):
        super().__init__()
        still = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
        self.seeing = ViTModel(ViTConfig(**VIT, **still), add_pooling_layer=False)
        self.reading = BertModel(BertConfig(**BERT, **still), add_pooling_layer=False)
        self.mix = nn.Linear(64, 32)
        self.answer = nn.Linear(32, 3)

    @property
    def scopes(self):
        return {"vision": self.seeing, "text": self.reading, "fusion": self.mix, "head": self.answer}

    def forward(self, x, ids):
        seen = self.seeing(pixel_values=x).last_hidden_state[:, 0]
        read = self.reading(input_ids=ids).last_hidden_state[:, 0]
        return self.answer(torch.tanh(self.mix(torch.cat([seen, read], -1))))


def build(kind):
    """Make a model, the same each time."""
    torch.manual_seed(11)
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    if kind == "mlp":
        return nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 3))
    if kind == "text":
        return BertForSequenceClassification(BertConfig(**BERT, **still, num_labels=3))
    if kind == "gpt":
        quiet = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        return GPT2ForSequenceClassification(GPT2Config(**GPT, **quiet, num_labels=3))
    return {"conv": ConvAttention, "cnn": Convolutions, "two": TwoTowers}[kind]()


def batch(kind, seed=5):
    """Make a batch of 12."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(12) % 3
    pictures = torch.randn(12, 3, 16, 16, generator=generator)
    words = torch.randint(0, 40, (12, 6), generator=generator)
    numbers = torch.randn(12, 12, generator=generator)
    inputs = {"mlp": (numbers,), "text": (words,), "conv": (pictures,), "gpt": (words + 1,), "cnn": (pictures,)}
    return {"inputs": inputs.get(kind, (pictures, words)), "labels": labels}


def outputs(model, data):
    """Give the model's scores."""
    result = model(*data["inputs"])
    return result if isinstance(result, torch.Tensor) else result.logits


def losses(model, data):
    """Give each example's cross entropy."""
    return nn.functional.cross_entropy(outputs(model, data).float(), data["labels"], reduction="none")


def loss(model, data):
    """Give the mean cross entropy."""
    return losses(model, data).mean()
