"""One module that is not called for rows it has seen: what is checked, computed and looked up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from strategies.errors import PlanError
from strategies.methods.data.feature_store import (
    FeatureStore,
    differing,
    fingerprints,
    flatten,
    has_rows,
    same_outputs,
    tolerance,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from torch import Tensor

SCALARS = (bool, int, float, str, type(None))
ALWAYS_SAME = "what is kept must not change: remove what is random, or leave cache_features out"


@dataclass
class CachedModule:
    """What one module computed so far, by form of its inputs."""

    name: str
    forward: Callable[..., Any]
    make: Callable[[], FeatureStore]
    forms: dict[Hashable, FeatureStore] = field(default_factory=dict)
    deterministic: bool = False  # whether it was seen to give the same twice

    def outputs(self, keys: Sequence[Hashable], step: int, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Give the module's output in update `step`, computing only what is not known."""
        leaves, rebuild = flatten((arguments, options))
        rows, keys = self._rows(leaves, keys)
        store = self.forms.setdefault(_form(leaves, rows), self.make())
        tensors = [leaf for leaf in leaves if hasattr(leaf, "requires_grad")]
        if any(tensor.requires_grad for tensor in tensors):
            raise PlanError(
                f"cache_features: something before {self.name!r} trains, so its outputs change with it; freeze that, "
                "too, or name another scope"
            )
        first = {key: row for row, key in reversed(list(enumerate(keys)))}
        # In one update the same items may pass twice (chosen among, tried again): that tells nothing of the next time.
        again = {key: row for key, row in first.items() if key in store.unchecked and store.unchecked[key][0] < step}
        self._check(store, again, tensors, rows)
        fresh = {key: row for key, row in first.items() if key not in store.positions}
        if fresh:
            chosen = sorted(fresh.values())
            new = [keys[row] for row in chosen]
            part = leaves if len(chosen) == rows else [
                leaf[chosen] if has_rows(leaf, rows) else leaf for leaf in leaves
            ]  # fmt: skip
            seen = fingerprints(tensors, rows, chosen)
            store.unchecked.update({key: (step, own) for key, own in zip(new, seen, strict=True)})
            self._require(store.add(new, self._compute(*rebuild(part))))
        return store.take(keys)

    def _rows(self, leaves: Sequence[Any], keys: Sequence[Hashable]) -> tuple[int, list[Hashable]]:
        """Count the rows of the inputs and give the key of each."""
        distinct = list(dict.fromkeys(keys))
        rows = next((len(leaf) for leaf in leaves if getattr(leaf, "ndim", 0)), 0)
        if rows == len(distinct):
            return rows, distinct
        if rows != len(keys):
            raise PlanError(
                f"cache_features: {self.name!r} got {rows} rows for {len(keys)} examples with {len(distinct)} distinct "
                "keys: it needs one row for each example, or for each key in the order of first appearance"
            )
        return rows, list(keys)

    def _check(self, store: FeatureStore, again: dict[Hashable, int], tensors: Sequence[Tensor], rows: int) -> None:
        """Compare the inputs of keys that are used for the second time with those of the first."""
        import torch

        if again:
            then = torch.stack([store.unchecked[key][1] for key in again])
            changed = differing(fingerprints(tensors, rows, list(again.values())), then, tolerance(tensors))
            if changed:
                key = list(again)[changed[0]]
                raise PlanError(
                    f"cache_features: the inputs of {self.name!r} for key {key!r} changed since it was last used: "
                    f"random augmentation, or rows that are not in the order of first appearance; {ALWAYS_SAME}"
                )
        for key in again:
            del store.unchecked[key]

    def _compute(self, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Call the module; the first time twice."""
        import torch

        with torch.no_grad():
            output = self.forward(*arguments, **options)
            if not self.deterministic:
                again = self.forward(*arguments, **options)
                if not same_outputs(flatten(output)[0], flatten(again)[0]):
                    raise PlanError(
                        f"cache_features: {self.name!r} gives another result for the same input each time (dropout, "
                        f"drop path, sampling?); {ALWAYS_SAME}"
                    )
                self.deterministic = True
        return output

    def _require(self, reason: str | None) -> None:
        if reason:
            raise PlanError(
                f"cache_features: the outputs of {self.name!r} cannot be kept by row: {reason}; name another scope"
            )


def _form(leaves: Sequence[Any], rows: int) -> Hashable:
    """Tell apart inputs whose outputs have different shapes: other lengths, other switches."""
    parts: list[Hashable] = []
    for leaf in leaves:
        if hasattr(leaf, "ndim") and hasattr(leaf, "dtype"):
            own = has_rows(leaf, rows)
            parts.append((str(leaf.dtype), own, tuple(leaf.shape[own:])))
        else:
            parts.append((type(leaf).__name__, leaf if isinstance(leaf, SCALARS) else None, ()))
    return tuple(parts)
