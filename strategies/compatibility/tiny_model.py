"""The tiny task that plans are tried on: sentences about a few pictures, a ViT and a BERT of two layers.

Several sentences share a picture, and their lengths differ, so that what groups, sorts, caches or divides has something
to act on. The vision tower counts the pictures that go through it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from strategies.quiet import quiet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

STEPS = 3
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
DROPOUT = {**NO_DROPOUT, "hidden_dropout_prob": 0.1}  # in the text tower: what can be cached has none
BATCH, PICTURES, LONGEST = 12, 8, 6


@quiet()
def tiny_model() -> nn.Module:
    """Make a ViT and a BERT of two layers with a fusion layer and a head, the same each time."""
    import torch
    from torch import nn
    from transformers import BertConfig, BertModel, ViTConfig, ViTModel

    class CountingViT(ViTModel):  # type: ignore[misc]
        pictures = 0

        def forward(self, pixel_values: Tensor) -> Any:
            self.pictures += len(pixel_values)
            return super().forward(pixel_values=pixel_values)

    class TwoTowers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            picture = ViTConfig(**SIZES, **NO_DROPOUT, image_size=16, patch_size=8)
            text = BertConfig(**SIZES, **DROPOUT, vocab_size=40, max_position_embeddings=16)
            self.vision = CountingViT(picture, add_pooling_layer=False)
            self.text = BertModel(text, add_pooling_layer=False)
            self.fusion, self.head = nn.Linear(64, 32), nn.Linear(32, 3)

        @property
        def scopes(self) -> dict[str, nn.Module]:
            return {"vision": self.vision, "text": self.text, "fusion": self.fusion, "head": self.head}

        def forward(self, batch: Mapping[str, Tensor]) -> Any:
            seen = self.vision(pixel_values=batch["pictures"]).last_hidden_state[:, 0]
            read = self.text(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state[
                :, 0
            ]
            both = torch.cat([seen.index_select(0, batch["picture_index"]), read], -1)
            return self.head(torch.tanh(self.fusion(both)))

    torch.manual_seed(11)
    return TwoTowers()


def tiny_items() -> list[dict[str, Any]]:
    """Make sentences of 2 to 6 words about a few pictures, with labels: enough for every step."""
    import torch

    generator = torch.Generator().manual_seed(5)
    pictures = torch.randn(PICTURES, 3, 16, 16, generator=generator)
    words = torch.randint(1, 40, (BATCH * STEPS, LONGEST), generator=generator)
    items = []
    for place, sentence in enumerate(words):
        picture, length = place * 5 % PICTURES, 2 + place * 7 % (LONGEST - 1)
        keys = {"vision": picture, "text": place}
        content = {"picture": pictures[picture], "words": sentence[:length], "label": place % 3}
        items.append({"id": place, "keys": keys, "length": length, **content})
    return items


def tiny_collate(items: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Make a batch: each picture once, sentences padded to the longest there is."""
    import torch
    from torch.nn.functional import pad

    rows = {item["keys"]["vision"]: item["picture"] for item in items}
    index = {picture: row for row, picture in enumerate(rows)}
    lengths = torch.tensor([item["length"] for item in items])
    return {
        "pictures": torch.stack(list(rows.values())),
        "picture_index": torch.tensor([index[item["keys"]["vision"]] for item in items]),
        "input_ids": torch.stack([pad(item["words"], (0, LONGEST - item["length"])) for item in items]),
        "attention_mask": (torch.arange(LONGEST) < lengths.unsqueeze(1)).long(),
        "labels": torch.tensor([item["label"] for item in items]),
    }


def tiny_loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Give each sentence's cross entropy."""
    import torch

    return torch.nn.functional.cross_entropy(model(batch).float(), batch["labels"], reduction="none")
