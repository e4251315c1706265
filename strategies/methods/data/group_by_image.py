"""group_by_image — the questions of one picture come together, so that the picture is encoded once for all of them.

What: the order of the training items is drawn over pictures (the items' keys of `scope`), and the items of one picture
follow each other. Where a batch holds each picture once, as the VQA task's does, the tower runs once per picture.
Why it helps: VQA v2 has 5.4 questions per picture, so about a fifth of the vision tower's work, in training, for
exactly the gradients of these batches.
What it costs: the examples of a batch are no longer independent: fewer different pictures in each update, so noisier
gradients for the same number of questions. When not to use it: few items share anything; batches are so small
that a handful of pictures fills them.
Paper: none describes it alone; Fast R-CNN (Girshick, 2015, https://arxiv.org/abs/1504.08083, section 2.3) samples the
regions of one picture together for the same reason, and found the correlated batches to do no harm there.

A group may be cut at the end of a batch. Items without keys cannot be grouped. Evaluation is untouched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

from strategies.execution.batch_order import order_of
from strategies.execution.feed import missing_key
from strategies.layout import EVERYTHING
from strategies.protocol import Kind, Strategy


@final
@dataclass(frozen=True, kw_only=True)
class GroupByImage(Strategy):
    """Items with the same key of `scope` follow each other in training."""

    name: ClassVar[str] = "group_by_image"
    kind: ClassVar[Kind] = "data"
    stage: ClassVar[int] = 70
    slots: ClassVar[frozenset[str]] = frozenset({"groups"})

    scope: str = "vision"

    def external_loop_settings(self, facts: Mapping[str, str | int]) -> str:
        """Name what others have."""
        del facts
        return "Trainer has no such order: use tuned.loader and tuned.step, or for_accelerate and ready.loader"

    def scope_name(self) -> str:
        """Change no module: `scope` names keys."""
        return EVERYTHING

    def unsupported_item(self, item: Any) -> str | None:
        """Need keys."""
        return missing_key(item, self.scope)

    def loader(self, options: dict[str, Any]) -> dict[str, Any]:
        """Let items with one key follow each other."""
        order, options = order_of(options)
        dataset = options["dataset"]
        order.group_by([dataset[place]["keys"][self.scope] for place in range(len(dataset))])
        return options
