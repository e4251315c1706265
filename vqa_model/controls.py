"""The model behind the majority-answer row: what one gets for knowing nothing at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class AnswerBias(nn.Module):
    """One learned number per answer."""

    def __init__(self, log_share: Tensor) -> None:
        super().__init__()
        self.bias = nn.Parameter(log_share)

    def forward(self, num_questions: int) -> Tensor:
        """Repeat the bias: (questions, answers)."""
        return self.bias.expand(num_questions, -1)


class MajorityAnswer(nn.Module):
    """Gives every question the same scores, starting from how often each answer occurs in training."""

    def __init__(self, counts: Sequence[int]) -> None:
        super().__init__()
        share = torch.tensor(counts, dtype=torch.float32, device="cpu")
        self.head = AnswerBias((share / share.sum()).log())

    @property
    def scopes(self) -> dict[str, nn.Module]:
        """Only a head: there is no tower to freeze or adapt."""
        return {"head": self.head}

    def forward(self, input_ids: Tensor) -> Tensor:
        """Score answers for as many questions as `input_ids` has rows."""
        scores: Tensor = self.head(len(input_ids))
        return scores
