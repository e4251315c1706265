"""Where computed rows wait for their next use: in host memory or in a file, found by key.

A value here is whatever a module takes or gives: tensors in tuples, dictionaries, dataclasses or outputs of
transformers. Those of its tensors that have a row for each example are kept row by row; the rest is kept once.
"""

from __future__ import annotations

import dataclasses
import tempfile
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    import torch
    from torch import Tensor

RELATIVE_TOLERANCE = 1e-9  # relative; sums of the same numbers differ by less, whatever their order


def flatten(value: Any) -> tuple[list[Any], Callable[[Sequence[Any]], Any]]:
    """Give the leaves of a value, and what makes one like it of other leaves."""
    from torch.utils._pytree import tree_flatten, tree_unflatten

    leaves, spec = tree_flatten(value)
    opened = [_flatten_dataclass(leaf) for leaf in leaves]

    def rebuild(flat: Sequence[Any]) -> Any:
        rest = iter(flat)
        return tree_unflatten([make([next(rest) for _ in inner]) for inner, make in opened], spec)

    return [leaf for inner, _ in opened for leaf in inner], rebuild


def _flatten_dataclass(leaf: Any) -> tuple[list[Any], Callable[[Sequence[Any]], Any]]:
    """Look into dataclasses, which torch's own flattening takes for leaves."""
    if not dataclasses.is_dataclass(leaf) or isinstance(leaf, type):
        return [leaf], lambda flat: flat[0]
    inner, rebuild = flatten({part.name: getattr(leaf, part.name) for part in dataclasses.fields(leaf)})
    return inner, lambda flat: dataclasses.replace(leaf, **rebuild(flat))


def has_rows(leaf: Any, rows: int) -> bool:
    """Say whether a leaf is a tensor with `rows` rows."""
    import torch

    return isinstance(leaf, torch.Tensor) and leaf.ndim > 0 and len(leaf) == rows


def fingerprints(tensors: Sequence[Tensor], rows: int, chosen: Sequence[int]) -> Tensor:
    """Give two sums for each tensor and each chosen row, on the device: (chosen, tensors, 2), float64.

    The first is weighted by place, so that a mirrored picture has another one; the second is its scale.
    """
    import torch

    sums = []
    for tensor in tensors:
        flat = tensor.detach()[list(chosen)].flatten(1) if has_rows(tensor, rows) else tensor.detach().reshape(1, -1)
        exact = torch.nan_to_num(flat.double(), nan=0.0, posinf=1.0, neginf=-1.0)
        weights = torch.linspace(1, 2, exact.shape[1], dtype=exact.dtype, device=exact.device)
        sums.append(torch.stack([exact @ weights, exact.abs() @ weights], -1).expand(len(chosen), 2))
    return torch.stack(sums, 1)


def tolerance(tensors: Sequence[Tensor]) -> Tensor:
    """Give how far, relative to their scale, fingerprints may be apart: what a layer before them rounds differently."""
    import torch

    closest = [2 * torch.finfo(t.dtype).eps if t.is_floating_point() else RELATIVE_TOLERANCE for t in tensors]
    return torch.tensor(closest, dtype=torch.float64, device=tensors[0].device)


def differing(now: Tensor, then: Tensor, tolerance: Tensor) -> list[int]:
    """Give the places at which fingerprints differ; waits for the device."""
    import torch

    if torch.equal(now, then):
        return []
    differs = (now - then)[..., 0].abs() > tolerance * now[..., 1]
    positions: list[int] = differs.any(-1).nonzero().flatten().tolist()
    return positions


def same_outputs(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Say whether two lists of leaves are alike, but for what rounding in another order makes."""
    return len(one) == len(other) and all(map(_same, one, other))


def _same(one: Any, other: Any) -> bool:
    import torch

    if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
        return type(one) is type(other)
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if torch.equal(one, other):
        return True
    if not one.is_floating_point() or not one.numel():
        return False
    tolerance = 2 * torch.finfo(one.dtype).eps * float(one.nan_to_num().abs().max())
    return torch.allclose(one.double(), other.double(), rtol=0, atol=tolerance, equal_nan=True)


class InMemory:
    """Rows as tensors of their own: a view would keep its whole batch."""

    def __init__(self) -> None:
        self.rows: list[Tensor] = []

    def put(self, position: int, rows: Tensor) -> None:
        """Keep rows from `position` on; what a pass that broke off left there goes."""
        del self.rows[position:]
        self.rows += [row.clone() for row in rows]

    def take(self, positions: Sequence[int]) -> Tensor:
        """Give rows as one tensor."""
        import torch

        return torch.stack([self.rows[position] for position in positions])


class OnDisk:
    """Rows as bytes of one growing temporary file without a name: it goes with this object, or with the process.

    Rows are written, not assigned to the map: on a full disk a write raises, where a map would kill the process.
    """

    def __init__(self) -> None:
        self._file: Any = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by the finalizer
        weakref.finalize(self, self._file.close)
        self._map: Any = None

    def put(self, position: int, rows: Tensor) -> None:
        """Write rows from `position` on."""
        import torch

        if position == 0:
            self._dtype, self._shape = rows.dtype, rows.shape[1:]
        data = rows.contiguous().reshape(len(rows), -1).view(torch.uint8).numpy()
        self._row_bytes, self._map = data.shape[1], None
        self._file.seek(position * self._row_bytes)
        left = data.data.cast("B")
        try:
            while left:  # numpy's tofile says nothing when its last block does not fit
                left = left[self._file.write(left) :]
        except OSError as error:
            raise OSError(
                f"cache_features: {position + len(rows)} rows of {self._row_bytes} bytes do not fit in "
                f"{tempfile.gettempdir()} ({error}): point TMPDIR at a folder with more room, or take dtype='bf16'"
            ) from error

    def take(self, positions: Sequence[int]) -> Tensor:
        """Read rows as one tensor."""
        import numpy as np
        import torch

        if self._map is None:
            count = self._file.seek(0, 2) // self._row_bytes
            self._map = np.memmap(self._file, dtype=np.uint8, mode="r", shape=(count, self._row_bytes))
        return torch.from_numpy(self._map[list(positions)]).view(self._dtype).reshape(len(positions), *self._shape)


class FeatureStore:
    """The outputs of a module for inputs of one form: rows by key, and what all outputs share."""

    def __init__(self, make: Callable[[], InMemory | OnDisk], dtype: torch.dtype | None) -> None:
        self._make_store, self._dtype = make, dtype
        self.positions: dict[Hashable, int] = {}
        self.unchecked: dict[Hashable, tuple[int, Tensor]] = {}  # of inputs that were seen once: update, fingerprint
        self._template: list[Any] = []  # the leaves of the first output, without rows where they have some
        self._stores: dict[int, InMemory | OnDisk] = {}  # by number of the leaf

    def add(self, keys: Sequence[Hashable], output: Any) -> str | None:
        """Keep an output's rows under `keys`; gives the reason if it is none of rows."""
        leaves, rebuild = flatten(output)
        if not self._template:
            self._rebuild = rebuild
            self._stores = {
                number: self._make_store() for number, leaf in enumerate(leaves) if has_rows(leaf, len(keys))
            }
            self._template = self._without_rows(leaves, len(keys))
        shared = self._without_rows(leaves, len(keys))
        if not self._stores or not same_outputs(shared, self._template):
            shapes = [tuple(leaf.shape) if hasattr(leaf, "shape") else leaf for leaf in leaves]
            return f"for {len(keys)} rows it gives {shapes}, of which some depend on more than their own row"
        start = len(self.positions)
        for number, store in self._stores.items():
            rows = leaves[number].detach()
            store.put(start, rows.to("cpu", self._dtype if self._dtype and rows.is_floating_point() else rows.dtype))
        self.positions.update({key: start + position for position, key in enumerate(keys)})
        return None

    def _without_rows(self, leaves: Sequence[Any], rows: int) -> list[Any]:
        """Empty the leaves that are kept by row; views of them would keep the whole batch."""
        mine = [number in self._stores and has_rows(leaf, rows) for number, leaf in enumerate(leaves)]
        return [leaf.new_empty((0, *leaf.shape[1:])) if own else leaf for own, leaf in zip(mine, leaves, strict=True)]

    def take(self, keys: Sequence[Hashable]) -> Any:
        """Give the output for these keys, on its device and in its number type."""
        positions = [self.positions[key] for key in keys]
        leaves = list(self._template)
        for number, store in self._stores.items():
            like, rows = self._template[number], store.take(positions)
            if like.device.type == "cuda":
                rows = rows.pin_memory().to(like.device, non_blocking=True)
            leaves[number] = rows.to(like.dtype)
        return self._rebuild(leaves)
