"""Two streams, words and image tokens, that look at themselves and at each other, layer by layer.

The co-attention of METER (https://arxiv.org/abs/2111.02387, section 3.1): each layer of each stream is self-attention,
cross-attention to the other stream, and a feed-forward layer, with weights of its own. The strongest of the fusions
without pretraining on pictures and text together, and by far the largest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.functional import gelu

from vqa_model.modeling.fusion.layers import attend, masked_mean

if TYPE_CHECKING:
    from torch import Tensor


class Attention(nn.Module):
    """Multi-head attention from one sequence to another, or to itself."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.o_proj = nn.Linear(dim, dim)

    def forward(self, queries: Tensor, other: Tensor, mask: Tensor | None) -> Tensor:
        """Let `queries` (n, places, dim) look at `other` (n, tokens, dim), where mask (n, tokens) is 1."""
        query, key, value = self.q_proj(queries), self.k_proj(other), self.v_proj(other)
        attended: Tensor = self.o_proj(attend(query, key, value, self.heads, mask))
        return attended


class CoAttentionLayer(nn.Module):
    """One layer of one stream, pre-norm."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.self_norm = nn.LayerNorm(dim)
        self.self_attention = Attention(dim, heads)
        self.cross_norm = nn.LayerNorm(dim)
        self.cross_attention = Attention(dim, heads)
        self.mlp_norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, own: Tensor, other: Tensor, own_mask: Tensor | None, other_mask: Tensor | None) -> Tensor:
        """Update `own` (n, places, dim) by itself and by `other` (n, tokens, dim)."""
        normal = self.self_norm(own)
        own = own + self.self_attention(normal, normal, own_mask)
        own = own + self.cross_attention(self.cross_norm(own), other, other_mask)
        updated: Tensor = own + self.fc2(gelu(self.fc1(self.mlp_norm(own))))
        return updated


class CoAttentionFusion(nn.Module):
    """Both streams through their layers, then the product of what each came to."""

    def __init__(self, text_dim: int, image_dim: int, dim: int, *, heads: int, layers: int) -> None:
        super().__init__()
        self.text_proj = nn.Linear(text_dim, dim)
        self.image_proj = nn.Linear(image_dim, dim)
        self.text_layers = nn.ModuleList(CoAttentionLayer(dim, heads) for _ in range(layers))
        self.image_layers = nn.ModuleList(CoAttentionLayer(dim, heads) for _ in range(layers))
        self.text_norm = nn.LayerNorm(dim)
        self.image_norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(2 * dim, dim)

    def forward(self, text: Tensor, mask: Tensor, image: Tensor) -> Tensor:
        """Fuse text (questions, words, text_dim) and image (questions, tokens, image_dim) to (questions, dim)."""
        words, tokens = self.text_proj(text), self.image_proj(image)
        for of_text, of_image in zip(self.text_layers, self.image_layers, strict=True):
            words, tokens = of_text(words, tokens, mask, None), of_image(tokens, words, None, mask)
        text_vector, image_vector = masked_mean(self.text_norm(words), mask), self.image_norm(tokens).mean(1)
        return gelu(self.fc1(torch.cat([text_vector * image_vector, text_vector + image_vector], dim=-1)))
