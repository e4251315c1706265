"""bucketing — batches of like length, padded no further than their longest item.

What: items are shuffled, `pool` batches at a time are sorted by length, the batches come in random order, and each is
cut after its longest item (rounded up to `multiple`). Cut are the entries `fields` of a batch, as `mask` says.
Why it helps: no work on padding. VQA v2's questions have 6 words on average and up to 20.
What it costs: items of like length meet more often, a mild correlation; shapes vary, so that `compile` compiles anew or
for variable shapes. When not to use it: lengths are alike; most of the time goes elsewhere (a vision tower, say).
Paper: Khomenko et al., Accelerating recurrent neural network training using sequence bucketing, 2016,
https://arxiv.org/abs/1708.05604

Items say their `length`; those without cannot be sorted. Padding stands behind the text. Exact wherever masked
positions do not count: outputs differ by rounding only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from strategies.execution.batch_order import order_of
from strategies.options import Count, Names
from strategies.protocol import Kind, Strategy

if TYPE_CHECKING:
    from collections.abc import Callable


@final
@dataclass(frozen=True, kw_only=True)
class Bucketing(Strategy):
    """Sort `pool` batches at a time by length and cut `fields`, as long as `mask`, to a `multiple` of places."""

    name: ClassVar[str] = "bucketing"
    kind: ClassVar[Kind] = "data"
    stage: ClassVar[int] = 70
    slots: ClassVar[frozenset[str]] = frozenset({"lengths"})
    trial: ClassVar[Mapping[str, Any]] = {"multiple": 1}

    pool: Count = 50
    multiple: Count = 4
    mask: str = "attention_mask"
    fields: Names = ("attention_mask", "input_ids", "token_type_ids")

    def external_loop_settings(self, facts: Mapping[str, str | int]) -> str:
        """Name what others have."""
        del facts
        return "leave it out: TrainingArguments(train_sampling_strategy='group_by_length'), and pad to the longest item"

    def unsupported_item(self, item: Any) -> str | None:
        """Need lengths."""
        known = isinstance(item, Mapping) and "length" in item
        return None if known else "needs items that say their `length` (tokens), these do not"

    def loader(self, options: dict[str, Any]) -> dict[str, Any]:
        """Sort, and cut what comes out of collate."""
        order, options = order_of(options)
        dataset = options["dataset"]
        order.lengths, order.pool = [dataset[place]["length"] for place in range(len(dataset))], self.pool
        return {**options, "collate_fn": self._trimming(options["collate_fn"])}

    def _trimming(self, collate: Callable[[Sequence[Any]], Any]) -> Callable[[Sequence[Any]], Any]:
        def cut(items: Sequence[Any]) -> Any:
            batch = collate(items)
            has = isinstance(batch, Mapping) and self.mask in batch
            self.require(has, f"the batch has no entry {self.mask!r} to say what is padding")
            mask = batch[self.mask]
            longest = max([1, *(place + 1 for place in mask.any(0).nonzero().flatten().tolist())])
            width = min(mask.shape[1], -(-longest // self.multiple) * self.multiple)
            cut_too = [name for name in self.fields if name in batch]
            return {**batch, **{name: batch[name][:, :width] for name in cut_too}}

        return cut
