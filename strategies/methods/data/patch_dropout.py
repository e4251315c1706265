"""patch_dropout — train on a random part of each picture's tokens.

What: in training a share `rate` of an image tower's tokens, drawn anew for each picture, is left out before the first
of its repeated blocks, so that all blocks, and what reads the tower, see the others only. The first `keep_first` tokens
always stay (the class token, where the tower has one). Evaluation sees all.
Why it helps: a tower's blocks cost in proportion to the tokens or more, so at 0.5 about half of its time and
activations go, frozen or not, and no two epochs show the same picture: a regulariser, too.
What it costs: training and evaluation differ, which can cost accuracy where the answer lies in a small part of the
picture; with short training nothing makes up for the tokens not seen. When not to use it: small objects and fine
detail matter, pictures have few tokens, or the tower's outputs are to be kept for the next epoch.
Paper: Liu et al., PatchDropout, 2022, https://arxiv.org/abs/2208.07220; Li et al., Scaling Language-Image Pre-training
via Masking (FLIP), 2022, https://arxiv.org/abs/2212.00794

A tower qualifies if it has a convolution before repeated blocks without one. Blocks that are given more than tokens (a
mask, rotary positions as in DINOv3, the picture's height and width as in BEiT and Swin) are refused in the first step.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, final

from strategies.errors import PlanError
from strategies.layout import is_within
from strategies.options import Natural, Range
from strategies.protocol import RANDOM_TOKENS, Context, Kind, Strategy
from strategies.structure.blocks import repeated_blocks

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor, nn

TOKEN_DIMENSIONS = 3  # dimensions of tokens: pictures, tokens, values
DropRate = Annotated[float, Range("between 0 and 1", lambda value: 0 < value < 1)]


def first_blocks(model: nn.Module, roots: Iterable[str]) -> dict[str, nn.Module]:
    """Give, for each convolution over pictures, the first of the blocks that are nearest to it in the tree of modules.

    Blocks that hold a convolution themselves keep their tokens in rows and columns: those do not count.
    """
    from torch import nn

    roots = tuple(roots)
    blocks = repeated_blocks(model, roots)
    found = {name for name, part in model.named_modules() if isinstance(part, nn.Conv2d | nn.Conv3d)}
    chosen: dict[str, nn.Module] = {}
    for name in sorted(name for name in found if is_within(name, roots) and not is_within(name, tuple(blocks))):
        near: list[str] = []
        around = name
        while around and not near:
            around = around.rpartition(".")[0]
            near = [block for block in blocks if is_within(block, (around,))]
        if near and not any(is_within(other, tuple(near)) for other in found):
            chosen[near[0]] = blocks[near[0]]
    return chosen


def drop_tokens(tokens: Tensor, rate: float, keep_first: int) -> Tensor:
    """Keep the first tokens and a random 1 − `rate` of the others, at least one, in their order."""
    import torch

    pictures, length = tokens.shape[:2]
    kept = max(1, round((length - keep_first) * (1 - rate)))
    drawn = torch.rand(pictures, length - keep_first, device=tokens.device).topk(kept).indices.sort().values
    first = torch.arange(keep_first, device=tokens.device).expand(pictures, -1)
    rows = torch.arange(pictures, device=tokens.device).unsqueeze(1)
    return tokens[rows, torch.cat([first, drawn + keep_first], 1)]  # unlike gather, keeps no tokens for backward


def refuse_position_inputs(tokens: Any, others: Iterable[Any], keep_first: int) -> None:
    """Refuse what a block is given if it tells of places that would no longer be there."""
    import torch

    if not isinstance(tokens, torch.Tensor) or tokens.ndim != TOKEN_DIMENSIONS:
        raise PlanError(
            "patch_dropout: the first block is not given tokens of shape (pictures, tokens, values); leave it out"
        )
    length = tokens.shape[1]
    if length <= keep_first + 1:
        raise PlanError(f"patch_dropout: of {length} tokens the first {keep_first} stay: nothing to drop; leave it out")
    for other in others:
        parts = other if isinstance(other, list | tuple) else [other]
        tensors = any(isinstance(part, torch.Tensor) for part in parts)
        grid = len(parts) > 1 and all(type(part) is int for part in parts)
        if tensors or grid:
            raise PlanError(
                "patch_dropout: the tower's blocks are given more than tokens (a mask, rotary positions, the picture's "
                "height and width), which would not fit the tokens that are left; leave it out"
            )


def drop_tokens_before(block: nn.Module, rate: float, keep_first: int) -> None:
    """Let a block, and so all that follow, see a part of the tokens in training; names stay as they are."""
    plain = block.forward

    @wraps(plain)
    def forward(*arguments: Any, **options: Any) -> Any:
        if not block.training:
            return plain(*arguments, **options)
        tokens, *others = *arguments, *options.values()
        refuse_position_inputs(tokens, others, keep_first)
        part = drop_tokens(tokens, rate, keep_first)
        if arguments:
            return plain(part, *arguments[1:], **options)
        return plain(**{**options, next(iter(options)): part})

    block.forward = forward


def stays_in_eval(block: nn.Module) -> bool:
    """Say whether a block stays in evaluation mode although it is told to train."""
    mode = block.training
    stays = not block.train().training
    block.train(mode)
    return stays


@final
@dataclass(frozen=True, kw_only=True)
class PatchDropout(Strategy):
    """The image towers of `scope` train on a random 1 − `rate` of their tokens, the first `keep_first` included."""

    name: ClassVar[str] = "patch_dropout"
    kind: ClassVar[Kind] = "data"
    stage: ClassVar[int] = 45  # around checkpointing, which then keeps and repeats the fewer tokens; inside compile
    slots: ClassVar[frozenset[str]] = frozenset({"tokens"})
    provides: ClassVar[frozenset[str]] = frozenset({RANDOM_TOKENS})

    rate: DropRate = 0.5
    keep_first: Natural = 1
    scope: str | None = None

    def transform(self, model: nn.Module, context: Context) -> None:
        """Wrap the first block of each image tower."""
        chosen: dict[str, nn.Module] = {}
        for roots in context.layout.groups(model, self.scope).values():
            chosen |= first_blocks(model, roots)
        if not chosen:
            raise PlanError(
                "patch_dropout: no image tower in scope: it takes a convolution (patch embedding) before repeated "
                "blocks that hold none; name one with scope=…, or leave it out"
            )
        if all(map(stays_in_eval, chosen.values())):
            raise PlanError(
                "patch_dropout: would do nothing: the image tower is kept in evaluation mode, where no token is "
                "dropped; let it train (lora, say), or leave patch_dropout out"
            )
        for block in chosen.values():
            drop_tokens_before(block, self.rate, self.keep_first)
