"""Who reads a value where tensors have none: what follows from the batch is known, all else is said.

A batch has values even if the model has none. What is computed from them alone (masks, counts of tokens) is computed
besides, so that `if mask.all()` is answered as in training. Small random numbers are drawn at one end of what they may
be, and a prediction takes the costlier of both ends. Where a model needs more (`if hidden.sum() > 0`) an update cannot
be predicted; where it only chooses rows all of them are taken, and `notes` say so. Strategies and optimizers that read
a value get 1: what is compared is equal.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakIdKeyDictionary

from strategies.prediction.frames import callers, is_of_model

ATEN: Final = torch.ops.aten
NONZERO: Final = ATEN.nonzero.default
KNOWN_ELEMENTS: Final = 1 << 20  # of what is computed besides, at most
DRAWN_ELEMENTS: Final = 64  # of random numbers that may decide on something, at most
ENDS: Final = (0.0, 1 - 2**-24)  # the least and the most that is drawn
FACTORIES: Final = (
    "arange", "eye", "full", "linspace", "ones", "scalar_tensor", "tril_indices", "triu_indices", "zeros",
)  # fmt: skip
UNSET: Final = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resize_")


class UnpredictableError(RuntimeError):
    """A plan that cannot be run through on tensors without values."""

    def __init__(self, what: str) -> None:
        super().__init__(f"cannot be predicted: {what}")


@dataclass(frozen=True)
class Known:
    """The values behind a fake tensor, on the CPU; `drawn`: random numbers decide on them."""

    value: Any
    drawn: bool = False


def _one(tensor: Tensor) -> bool | float:
    return True if tensor.dtype == torch.bool else 1.0 if tensor.dtype.is_floating_point else 1


READS: Final[dict[Any, Callable[..., Any]]] = {  # operation → what strategies and optimizers are answered
    ATEN._local_scalar_dense.default: _one,  # noqa: SLF001 - how torch names `item()`, `bool()` and `int()`
    ATEN.equal.default: lambda *_: True,
}
MOST: Final[dict[Any, Callable[..., Tensor]]] = {  # operation → all the rows that it may choose
    NONZERO: lambda mask: torch.empty((mask.numel(), mask.ndim), dtype=torch.int64, device=mask.device),
    ATEN.masked_select.default: lambda tensor, mask: tensor.new_empty(torch.broadcast_tensors(tensor, mask)[0].numel()),
}
DRAWS: Final[dict[Any, Callable[..., float]]] = {  # operation → the number at `end` of all that it may draw
    ATEN.rand.default: lambda end, *_: end,
    ATEN.rand_like.default: lambda end, *_: end,
    ATEN.uniform_.default: lambda end, _, low=0.0, high=1.0: low + end * (high - low),
    ATEN.bernoulli.default: lambda end, *_: round(end),
    ATEN.bernoulli.p: lambda end, *_: round(end),
    ATEN.bernoulli_.float: lambda end, *_: round(end),
    ATEN.randint.default: lambda end, high, *_: int(end * high),
    ATEN.randint.low: lambda end, low, high, *_: int(low + end * (high - low)),
}


def _grouped_product(first: Tensor, second: Tensor, offsets: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
    """Give what a product of groups of rows gives; torch's own stand-in knows bf16 only."""
    groups = [] if offsets is None or first.ndim != second.ndim else [len(offsets)]
    batch = [len(first)] if offsets is None else groups
    return first.new_empty([*batch, first.shape[-2], second.shape[-1]])


SHAPES: Final[dict[Any, Callable[..., Tensor]]] = {
    ATEN._grouped_mm.default: _grouped_product,  # noqa: SLF001 - how torch names it
}


class FakeValueMode(TorchDispatchMode):
    """Answers who reads a value, or says why it cannot; `notes`: where more is counted than training may need."""

    def __init__(self, fake: FakeTensorMode) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.end = ENDS[0]
        self.notes: dict[str, None] = {}
        self.decided_by_draws = False
        self._fake = fake
        self._known: Any = WeakIdKeyDictionary()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        kwargs = kwargs or {}
        if func is ATEN.index.Tensor:
            args = (args[0], [part for index in args[1] for part in self._chosen(index)])
        known = self._evaluate(func, args, kwargs)
        if func in READS:
            return self._answer(func, args, known)
        stand_in = func in SHAPES and args[0].dtype != torch.bfloat16
        try:
            out = SHAPES[func](*args, **kwargs) if stand_in else func(*args, **kwargs)
        except (DynamicOutputShapeException, DataDependentOutputException):
            return self._of_unknown_size(func, args, known)
        self._remember(func, args, out, known)
        return out

    def to_fake(self, tensor: Tensor) -> Any:
        """Give a fake tensor whose values are known, if they are few."""
        made = self._fake.from_tensor(tensor)
        if tensor.numel() <= KNOWN_ELEMENTS:
            with _disable_current_modes():
                self._known[made] = Known(tensor.detach().cpu().clone())
        return made

    def assume(self, tensor: Tensor, answer: bool) -> None:
        """Take all values of a tensor for the same."""
        with _disable_current_modes():
            self._known[tensor] = Known(torch.tensor(answer).expand(tensor.shape))

    def _value_of(self, tensor: Tensor) -> Known | None:
        if not isinstance(tensor, FakeTensor):
            return None if tensor.is_meta else Known(tensor)
        found: Known | None = self._known.get(tensor)
        return found

    def _evaluate(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known | None:
        """Compute besides what follows from known values."""
        name = func.overloadpacket.__name__
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if (not tensors and name not in FACTORIES) or name in UNSET or torch.Tag.nondeterministic_seeded in func.tags:
            return None
        values = [self._value_of(tensor) for tensor in tensors]
        written = _writes(func) and not all(isinstance(tensor, FakeTensor) for tensor in tensors)
        if written or any(value is None for value in values):
            return None

        def real(leaf: Any) -> Any:
            value = self._value_of(leaf) if isinstance(leaf, Tensor) else None
            return torch.device("cpu") if isinstance(leaf, torch.device) else leaf if value is None else value.value

        with _disable_current_modes(), torch.no_grad():
            made = func(*tree_map(real, args), **tree_map(real, dict(kwargs)))
        return Known(made, drawn=any(value.drawn for value in values if value))

    def _remember(self, func: Any, args: tuple[Any, ...], out: Any, known: Known | None) -> None:
        if known is None and func in DRAWS and isinstance(out, Tensor) and out.numel() <= DRAWN_ELEMENTS:
            with _disable_current_modes():
                known = Known(torch.full(out.shape, DRAWS[func](self.end, *args), dtype=out.dtype), drawn=True)
        if known is not None:
            for made, value in zip(tree_leaves(out), tree_leaves(known.value), strict=True):
                if isinstance(made, FakeTensor) and made.numel() <= KNOWN_ELEMENTS:
                    self._known[made] = Known(value, known.drawn)
        elif _writes(func):
            self._forget(leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor))

    def _forget(self, tensors: Iterable[Tensor]) -> None:
        """Know no more of what was written to, under none of its names."""
        written = {id(tensor.untyped_storage()) for tensor in tensors}
        for tensor in [known for known in self._known if id(known.untyped_storage()) in written]:
            del self._known[tensor]

    def _answer(self, func: Any, args: tuple[Any, ...], known: Known | None) -> Any:
        if known is not None and not known.drawn:
            return known.value
        places = [*callers(inspect.currentframe())]
        if known is not None:
            self.decided_by_draws = True
            self.notes[f"{places[0]} decides at random"] = None
            return known.value
        if not is_of_model(places):
            return READS[func](*args)
        raise UnpredictableError(f"{places[0]} branches on values ({WORDS.get(func, func)})")

    def _of_unknown_size(self, func: Any, args: tuple[Any, ...], known: Known | None) -> Any:
        """Give as many rows as there are, where that is known, else the most there can be."""
        if known is not None:
            return tree_map(lambda leaf: self.to_fake(leaf) if isinstance(leaf, Tensor) else leaf, known.value)
        places = [*callers(inspect.currentframe())]
        if func not in MOST:
            raise UnpredictableError(f"{places[0]} makes as many rows as values say ({func})")
        if is_of_model(places):
            self.notes[f"{places[0]} chooses rows by values"] = None
        return MOST[func](*args)

    def _chosen(self, index: Tensor | None) -> tuple[Tensor | None, ...]:
        """Give a mask that chooses rows as their numbers."""
        if index is None or index.dtype not in {torch.bool, torch.uint8}:
            return (index,)
        rows = self._of_unknown_size(NONZERO, (index,), self._evaluate(NONZERO, (index,), {}))
        numbers: tuple[Tensor, ...] = rows.unbind(1)
        return numbers


class FiniteValues(TorchFunctionMode):
    """Takes all numbers for finite, as they are in a training that is worth predicting."""

    def __init__(self, values: FakeValueMode) -> None:
        super().__init__()
        self._values = values

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        out = func(*args, **(kwargs or {}))
        if func in FINITE and isinstance(out, FakeTensor):
            self._values.assume(out, FINITE[func])
        return out


def _writes(func: Any) -> bool:
    """Say whether an operation changes one of its arguments."""
    return bool(func._schema.is_mutable)  # noqa: SLF001 - torch has no other name for it


FINITE: Final[dict[Any, bool]] = {
    torch.isfinite: True, torch.Tensor.isfinite: True, torch.isnan: False, torch.Tensor.isnan: False,
    torch.isinf: False, torch.Tensor.isinf: False,
}  # fmt: skip
WORDS: Final = {
    ATEN._local_scalar_dense.default: "bool(), item() or int() of a tensor",  # noqa: SLF001 - see above
    ATEN.equal.default: "torch.equal",
}
