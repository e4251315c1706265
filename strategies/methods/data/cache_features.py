"""cache_features — outputs of a tower at rest are computed once for each picture or text, and looked up afterwards.

What: in training, the rows of the scope's input whose key was seen before (an item's `keys`: a picture's id, say) take
their output from a store; the others go through the module together, once. Evaluation computes all. A module that is
not called for a whole batch costs nothing but the look-up.
Why it helps: from the second use of a picture on, its forward pass through the tower is gone; the outputs are the same.
What it costs: room for every distinct output (all tokens, not one vector), in host memory or in a temporary file;
`dtype` halves it and rounds. On a CPU, rows in memory count as weights in the record; beside a GPU they are in the
host's memory, which only the process's resident peak shows. Rows are computed at their first use, inside the time to
train; the first batch is computed twice.
When not to use it: anything in the scope trains, has dropout, or sees random augmentation (all refused); each picture
is seen once; outputs are larger than the room there is; padding follows the batch, so that a text has many forms.
Paper: Donahue et al., DeCAF, 2013, https://arxiv.org/abs/1310.1531 (features of a network at rest, computed once).

Refused while running: a module that gives two results for one input, and a key whose input changed between its first
and second use. With `compile(regional=False)` the scope's modules stay outside what is compiled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final

from strategies.errors import PlanError
from strategies.execution.engine import torch_dtype
from strategies.methods.data.feature_store import FeatureStore, InMemory, OnDisk
from strategies.methods.data.memo import CachedModule
from strategies.protocol import FROZEN, RANDOM_TOKENS, Context, Kind, State, Strategy

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from torch import Tensor, nn


@dataclass
class CacheState:
    """What the wrapped modules know of training: the state of the update under way, once there is one."""

    state: State | None = None
    device_rows: list[list[Tensor]] = field(default_factory=list)  # rows that are memory of the device

    def keys(self, scope: str) -> Sequence[Hashable]:
        """Give the keys of the batch under way for a scope, or for the tower it lies in."""
        known = self.state.keys if self.state else {}
        return known.get(scope) or known.get(scope.partition(".")[0], [])


def _dropouts(module: nn.Module) -> list[str]:
    """Name the layers that drop something in training."""
    from torch import nn
    from torch.nn.modules.dropout import _DropoutNd

    rates = [
        (name, part.p if isinstance(part, _DropoutNd) else part.dropout)
        for name, part in module.named_modules()
        if isinstance(part, _DropoutNd | nn.MultiheadAttention | nn.RNNBase)
    ]
    return [name for name, rate in rates if rate > 0]


@final
@dataclass(frozen=True, kw_only=True)
class CacheFeatures(Strategy):
    """Outputs of the modules of `scope` are kept in `to`, as `dtype` (default: as computed)."""

    name: ClassVar[str] = "cache_features"
    kind: ClassVar[Kind] = "data"
    stage: ClassVar[int] = 70
    slots: ClassVar[frozenset[str]] = frozenset({"features"})
    requires: ClassVar[frozenset[str]] = frozenset({FROZEN})
    incompatible_with: ClassVar[frozenset[str]] = frozenset({RANDOM_TOKENS})
    needs_items: ClassVar[bool] = True
    resumable: ClassVar[bool] = False  # rows would be computed again, in batches of another size: they round otherwise

    scope: str = "vision"
    to: Literal["memory", "disk"] = "memory"
    dtype: Literal["bf16", "fp16"] | None = None

    def external_loop_settings(self, facts: Mapping[str, str | int]) -> str:
        """Name what others have."""
        del facts
        return "it needs the keys of items, which only our loop passes on: use tuned.loader and tuned.step"

    def unsupported_item(self, item: Any) -> str | None:
        """Need keys for the scope."""
        known = item.get("keys", {}) if hasattr(item, "get") else {}
        if self.scope in known or self.scope.partition(".")[0] in known:
            return None
        there = ", ".join(sorted(known)) or "none at all"
        return f"items say no key for {self.scope!r}, by which to know its inputs again; they have keys for: {there}"

    def transform(self, model: nn.Module, context: Context) -> None:
        """Refuse layers with dropout."""
        for root in self._roots(model, context):
            dropping = _dropouts(model.get_submodule(root))
            if dropping:
                raise PlanError(
                    f"{self.name}: {len(dropping)} layers in {root!r} have dropout, the first {dropping[0]!r}, so "
                    "their outputs change each time: build the model without (hidden_dropout_prob=0.0, …)"
                )

    def place(self, model: nn.Module, context: Context) -> None:
        """Wrap the modules in place; names and parameters stay as they are."""
        import torch

        shared = context.member_state[self] = CacheState()
        compiled = any(part._compiled_call_impl is not None for part in model.modules())  # noqa: SLF001
        for root in self._roots(model, context):
            module = model.get_submodule(root)
            if context.device.type == "cpu":
                vars(module)["kept_features"] = shared.device_rows  # found there when weights are counted
            memo = CachedModule(root, module.forward, partial(self._new_store, shared.device_rows))
            forward = self._forward(memo, shared)
            # As a part of a larger graph its look-ups would be traced, and its stores be guarded.
            vars(module)["forward"] = torch.compiler.disable(forward) if compiled else forward

    def _roots(self, model: nn.Module, context: Context) -> list[str]:
        """Name the modules whose outputs are kept."""
        return [root for roots in context.layout.groups(model, self.scope).values() for root in roots]

    def _forward(self, memo: CachedModule, shared: CacheState) -> Callable[..., Any]:
        """Give what stands in for a module's forward."""

        @wraps(memo.forward)
        def forward(*arguments: Any, **options: Any) -> Any:
            keys = shared.keys(self.scope)
            if shared.state is None or not keys:
                return memo.forward(*arguments, **options)
            return memo.outputs(keys, shared.state.step, arguments, options)

        return forward

    def _new_store(self, device_rows: list[list[Tensor]]) -> FeatureStore:
        """Make an empty store."""

        def make() -> InMemory | OnDisk:
            store = OnDisk() if self.to == "disk" else InMemory()
            if isinstance(store, InMemory):
                device_rows.append(store.rows)
            return store

        return FeatureStore(make, torch_dtype(self.dtype) if self.dtype else None)

    def cache_bytes(self, state: State, distinct: Mapping[str, int]) -> int:
        """Count the rows that are not there yet; beside a GPU they are in the host's memory."""
        if state.device.type != "cpu":
            return 0
        count = distinct.get(self.scope) or distinct.get(self.scope.partition(".")[0], 0)
        return sum(max(0, count - len(rows)) * rows[0].nbytes for rows in state.member_state[self].device_rows if rows)

    def before_step(self, state: State) -> None:
        """Remember where the keys of each batch will be."""
        state.member_state[self].state = state
