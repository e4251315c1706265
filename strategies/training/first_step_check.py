"""The check of the first step: what was asked to train does, what was asked to rest carries no graph.

Training with a detached tower, a forgotten adapter or a graph through frozen layers raises nothing by itself; it
only gives a worse model or wastes memory. This check reads values once and is the only thing that synchronises.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from strategies.errors import SelfCheckError
from strategies.layout import is_within

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from torch import Tensor, nn
    from torch.utils.hooks import RemovableHandle

    from strategies.layout import Layout

MAX_SHOWN = 5


def check_loss(loss: object, size: int) -> None:
    """Refuse a loss that is neither a mean nor one for each of `size` examples, or does not come from the model."""
    import torch

    if not isinstance(loss, torch.Tensor) or (loss.ndim and loss.shape != (size,)):
        raise SelfCheckError(
            f"loss_fn(model, batch) must return the mean loss, a 0-dim tensor, or each example's, of shape ({size},), "
            f"not {_describe(loss)}"
        )
    if not loss.requires_grad:
        raise SelfCheckError("the loss depends on nothing that trains: loss_fn must call the model it is given")


def check_gradients(gradients: Iterable[tuple[str, Tensor | None]], *, finite: bool) -> None:
    """Refuse parameters that train but got no gradient, or (unless a loss scaler is at work) an infinite one."""
    import torch

    found = list(gradients)
    missing = [name for name, gradient in found if gradient is None]
    if len(missing) == len(found):
        raise SelfCheckError("no parameter got a gradient: loss_fn must call the model it is given")
    if missing:
        raise SelfCheckError(
            f"{len(missing)} of {len(found)} parameters that should train got no gradient: "
            f"{_first_few(missing)}. Remove what the model does not use, or freeze it (freeze(scope=…))"
        )
    infinite = [name for name, gradient in found if gradient is not None and not torch.isfinite(gradient).all()]
    if finite and infinite:
        raise SelfCheckError(f"the first gradient is not finite in {_first_few(infinite)}")


def check_scopes(model: nn.Module, layout: Layout, scopes_to_train: Sequence[str | None]) -> None:
    """Refuse a tower that was asked to train and has no parameter that does."""
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    for scope in scopes_to_train:
        for label, prefixes in layout.groups(model, scope).items():
            if not any(is_within(name, prefixes) for name in trained):
                raise SelfCheckError(f"{label!r} was asked to train, but none of its parameters does")


class GraphWatch:
    """Finds frozen modules whose output carries a graph although their input does not."""

    def __init__(self, model: nn.Module, layout: Layout) -> None:
        self.offenders: list[str] = []
        self._handles = [self._watch(name, part) for name, part in _frozen_roots(model, layout)]

    def _watch(self, name: str, part: nn.Module) -> RemovableHandle:
        def look(_: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any], output: Any) -> None:
            if _carries_graph(output) and not _carries_graph((arguments, options)):
                self.offenders.append(name)

        return part.register_forward_hook(look, with_kwargs=True)

    def close(self) -> None:
        """Take the hooks away and refuse what they saw."""
        for handle in self._handles:
            handle.remove()
        if self.offenders:
            raise SelfCheckError(
                f"frozen, but its output carries a graph: {_first_few(self.offenders)}. Something in it "
                "switches gradients on (enable_input_require_grads?) and wastes memory"
            )


def _frozen_roots(model: nn.Module, layout: Layout) -> Iterator[tuple[str, nn.Module]]:
    """Give the towers without anything that trains, leaving out modules compiled in place (hooks recompile)."""
    for prefixes in layout.towers.values():
        for name in prefixes:
            part = model.get_submodule(name)
            if not any(p.requires_grad for p in part.parameters()) and part._compiled_call_impl is None:  # noqa: SLF001
                yield name, part


def _carries_graph(value: Any) -> bool:
    import torch

    if isinstance(value, torch.Tensor):
        return value.requires_grad
    if isinstance(value, dict):
        return any(_carries_graph(part) for part in value.values())
    return isinstance(value, list | tuple) and any(_carries_graph(part) for part in value)


def _describe(value: object) -> str:
    import torch

    return f"one of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__


def _first_few(names: list[str]) -> str:
    return ", ".join(names[:MAX_SHOWN]) + (" …" if len(names) > MAX_SHOWN else "")
