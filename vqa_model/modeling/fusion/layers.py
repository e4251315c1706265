"""Ways to let a question look at a picture, all of plain `nn.Linear` layers.

`ConcatFusion` joins two pooled vectors: the student baseline, cheap and weak. `HadamardFusion` multiplies them.
`GuidedAttentionFusion` lets the question choose among the picture's tokens first. `CrossAttentionFusion` lets every
word query them. Projections carry the field's names (`q_proj`, `k_proj`, `v_proj`, `o_proj`, `fc1`, `fc2`), so that
adapters and quantisers find them, and attention is SDPA: autocast, compile and the GPU's fast kernels all apply.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.functional import gelu, scaled_dot_product_attention

if TYPE_CHECKING:
    from torch import Tensor


class ConcatFusion(nn.Module):
    """Join the first text token and the mean image token through one hidden layer."""

    def __init__(self, text_dim: int, image_dim: int, dim: int) -> None:
        super().__init__()
        self.text_norm = nn.LayerNorm(text_dim)
        self.image_norm = nn.LayerNorm(image_dim)
        self.fc1 = nn.Linear(text_dim + image_dim, dim)

    def forward(self, text: Tensor, mask: Tensor, image: Tensor) -> Tensor:  # noqa: ARG002 -- fusions share one call
        """Fuse text (questions, words, text_dim) and image (questions, tokens, image_dim) to (questions, dim)."""
        pooled = (self.text_norm(text[:, 0]), self.image_norm(image.mean(1)))
        return gelu(self.fc1(torch.cat(pooled, dim=-1)))


class HadamardFusion(nn.Module):
    """Multiply the mean word by the mean image token, each projected to a wider space (https://arxiv.org/abs/1610.04325)."""

    def __init__(self, text_dim: int, image_dim: int, dim: int) -> None:
        super().__init__()
        self.text_norm = nn.LayerNorm(text_dim)
        self.image_norm = nn.LayerNorm(image_dim)
        self.text_proj = nn.Linear(text_dim, 2 * dim)
        self.image_proj = nn.Linear(image_dim, 2 * dim)
        self.fc1 = nn.Linear(2 * dim, dim)

    def forward(self, text: Tensor, mask: Tensor, image: Tensor) -> Tensor:
        """Fuse text (questions, words, text_dim) and image (questions, tokens, image_dim) to (questions, dim)."""
        text_vector = self.text_proj(self.text_norm(masked_mean(text, mask)))
        image_vector = self.image_proj(self.image_norm(image.mean(1)))
        return gelu(self.fc1(gelu(text_vector) * gelu(image_vector)))


class GuidedAttentionFusion(nn.Module):
    """The question weighs the image tokens in several glimpses, then is multiplied by what it chose.

    The attention and product of bottom-up and top-down attention (https://arxiv.org/abs/1707.07998, section 3.2), over
    patches in place of detected objects, with scaled dot products for its gated layers.
    """

    def __init__(self, text_dim: int, image_dim: int, dim: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.text_norm = nn.LayerNorm(text_dim)
        self.image_norm = nn.LayerNorm(image_dim)
        self.q_proj = nn.Linear(text_dim, dim)
        self.k_proj = nn.Linear(image_dim, dim)
        self.v_proj = nn.Linear(image_dim, dim)
        self.text_proj = nn.Linear(text_dim, 2 * dim)
        self.image_proj = nn.Linear(dim, 2 * dim)
        self.fc1 = nn.Linear(2 * dim, dim)

    def forward(self, text: Tensor, mask: Tensor, image: Tensor) -> Tensor:
        """Fuse text (questions, words, text_dim) and image (questions, tokens, image_dim) to (questions, dim)."""
        question, tokens = self.text_norm(masked_mean(text, mask)), self.image_norm(image)
        parts = self.q_proj(question).unsqueeze(1), self.k_proj(tokens), self.v_proj(tokens)
        image_vector = attend(*parts, self.heads).squeeze(1)
        return gelu(self.fc1(gelu(self.text_proj(question)) * gelu(self.image_proj(image_vector))))


def masked_mean(words: Tensor, mask: Tensor) -> Tensor:
    """Average words (questions, words, dim) where mask (questions, words) is 1."""
    weight = mask.to(words.dtype).unsqueeze(-1)
    return (words * (weight / weight.sum(1, keepdim=True))).sum(1)


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """Attend with several heads: query (n, places, dim) to key and value (n, tokens, dim); gives (n, places, dim).

    mask: (n, tokens), 0 for a token that nothing may attend to.
    """
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    known = None if mask is None else mask[:, None, None, :].bool()
    return scaled_dot_product_attention(q, k, v, attn_mask=known).transpose(1, 2).flatten(2)


class CrossAttentionLayer(nn.Module):
    """One pre-norm block: words attend to image tokens, then a feed-forward layer.

    What a word sees is multiplied by what it asks (`gate_proj`).
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(dim)
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.gate_proj = nn.Linear(dim, dim)
        self.o_proj = nn.Linear(dim, dim)
        self.mlp_norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, words: Tensor, image: Tensor) -> Tensor:
        """Update words (questions, words, dim) by image (questions, tokens, dim)."""
        queries = self.attention_norm(words)
        query = self.q_proj(queries)
        attended = attend(query, self.k_proj(image), self.v_proj(image), self.heads)
        words = words + self.o_proj(attended * self.gate_proj(queries))
        updated: Tensor = words + self.fc2(gelu(self.fc1(self.mlp_norm(words))))
        return updated


class CrossAttentionFusion(nn.Module):
    """The question marks the image tokens it is about, then its words query them for a layer or two.

    Both steps multiply question and picture. Sums alone make "is there a star?" an exclusive-or that
    a small model needs many epochs to find; products find it in two.
    """

    def __init__(self, text_dim: int, image_dim: int, dim: int, *, heads: int, layers: int) -> None:
        super().__init__()
        self.text_proj = nn.Linear(text_dim, dim)
        self.image_proj = nn.Linear(image_dim, dim)
        self.image_norm = nn.LayerNorm(dim)
        self.guide_proj = nn.Linear(dim, dim)
        self.token_proj = nn.Linear(dim, dim)
        self.layers = nn.ModuleList(CrossAttentionLayer(dim, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)

    def forward(self, text: Tensor, mask: Tensor, image: Tensor) -> Tensor:
        """Fuse text (questions, words, text_dim) and image (questions, tokens, image_dim) to (questions, dim)."""
        words, tokens = self.text_proj(text), self.image_norm(self.image_proj(image))
        weight = mask.to(words.dtype).unsqueeze(-1)
        weight = weight / weight.sum(1, keepdim=True)
        guide = self.guide_proj((words * weight).sum(1, keepdim=True))
        tokens = tokens + guide * self.token_proj(tokens)
        for layer in self.layers:
            words = layer(words, tokens)
        words = self.norm(words)
        fused: Tensor = words[:, 0] + (words * weight).sum(1)
        return fused


class AnswerHead(nn.Module):
    """Score every answer of the vocabulary from the fused vector."""

    def __init__(self, dim: int, num_answers: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, dim)
        self.fc2 = nn.Linear(dim, num_answers)

    def forward(self, fused: Tensor) -> Tensor:
        """Map fused (questions, dim) to logits (questions, answers)."""
        logits: Tensor = self.fc2(gelu(self.fc1(fused)))
        return logits
