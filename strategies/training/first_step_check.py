"""The check of the first updates: what was asked to train does, what was asked to rest carries no graph.

Training with a detached tower, a forgotten adapter or a graph through frozen layers raises nothing by itself; it only
gives a worse model or wastes memory. But a parameter may lack a gradient once for good reasons (a layer skipped at
random, an expert without tokens) or always (a part that the task does not use), so gradients are watched for `UPDATES`
updates: refused is what nobody can mean, the rest is told by name. Values are read in the first update alone, in one
synchronisation; later ones ask only whether gradients are there, and only until all have been seen.
"""

from __future__ import annotations

import warnings
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from strategies.errors import SelfCheckError
from strategies.layout import is_within
from strategies.training.gradient_watch import (
    CallWatch,
    GraphWatch,
    ReadWatch,
    adapted_layers,
    first_few,
    whole_modules,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from torch import Tensor, nn

    from strategies.layout import Layout

UPDATES = 5  # a layer that is skipped half the time is missed in all of them once in 32 trainings
DETACHED = (
    "its output does not reach the loss: it is detached, or blocks with a backward pass of their own (reversible ones) "
    "got inputs without gradients, which model.enable_input_require_grads() of transformers gives them before the plan"
)


class SelfCheck:
    """Watches a plan's first updates; `silent` are the parameters that got no gradient in any of them.

    In each update: `watching` around each forward pass, `check_loss` on its result, `judge` once gradients are there.
    """

    def __init__(self, model: nn.Module, layout: Layout, scopes_to_train: Sequence[str | None]) -> None:
        self._model, self._layout, self._scopes = model, layout, scopes_to_train
        self.done = False
        self.updates = 0
        self.silent: tuple[str, ...] = ()
        self._asked: set[str] = set()
        self._called: set[str] = set()
        self._read: set[str] = set()

    def finish(self) -> None:
        """Look no further."""
        self.done = True

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Surround a forward pass of training."""
        if self.done:
            yield
            return
        graphs = GraphWatch(self._model, self._layout) if not self.updates else None
        silent = self.silent if self.updates else [n for n, p in self._model.named_parameters() if p.requires_grad]
        calls, reads = CallWatch(self._model, silent, self._called), ReadWatch(self._model, silent, self._read)
        with ExitStack() as stack:
            for watch in (graphs, calls, reads):
                if watch is not None:
                    stack.callback(watch.close)
            yield
        if graphs is not None:
            graphs.tell()

    def check_loss(self, loss: object, size: int) -> None:
        """Refuse a loss in the first update that is neither a mean nor one for each of `size` examples, or no result.

        `SelfCheckError`, too, where it depends on nothing that trains.
        """
        if not self.done and not self.updates:
            check_loss(loss, size)

    def judge(self, gradients: Iterable[tuple[str, Tensor | None]], *, finite: bool) -> None:
        """Look at an update's gradients, by name; `finite`: refuse infinite ones (no loss scaler is at work)."""
        if self.done:
            return
        found = dict(gradients)
        if not self.updates:
            check_scopes(self._model, self._layout, self._scopes)
            check_values(found, finite=finite)
        with_gradient = {name for name, gradient in found.items() if gradient is not None}
        never = [name for name in found if name not in self._asked] + list(self.silent)
        self._asked |= found.keys()
        self.silent = tuple(name for name in never if name not in with_gradient)
        self.updates += 1
        last = self.updates >= UPDATES
        self._refuse_silent_towers(last=last)
        self._refuse_adapters_passed_by()
        self.done = last or not self.silent
        if self.silent and self.done:
            warnings.warn(self.told(), stacklevel=3)

    def lines(self) -> list[str]:
        """Give what `Tuned.describe` says once the check is over."""
        return [f"  gradients  {self.told()}"] if self.done and self.silent else []

    def told(self) -> str:
        """Say in one line which parameters got no gradient."""
        modules = whole_modules(self.silent, self._asked)
        part = f"get_submodule({modules[0]!r})" if modules else f"get_parameter({self.silent[0]!r})"
        remedy = f"to leave such a part out, call model.{part}.requires_grad_(False) before the plan is applied"
        if adapted_layers(self._model, self.silent[:1]):
            remedy = "to put the adapters elsewhere, name layers with target_modules"
        return (
            f"{len(self.silent)} of {len(self._asked)} parameters that should train got no gradient in the first "
            f"{self.updates} updates: {first_few(self.silent)}. Experts without tokens and parts that the task does "
            f"not use may; {remedy}"
        )

    def _refuse_silent_towers(self, *, last: bool) -> None:
        """Refuse a tower none of whose parameters ever got a gradient, once it was called or the time is over."""
        for label, prefixes in self._layout.towers.items():
            own = [name for name in self.silent if is_within(name, prefixes)]
            if not own or any(is_within(name, prefixes) for name in self._asked.difference(self.silent)):
                continue
            called = any(is_within(name, prefixes) for name in self._called)
            if called or last:
                why = DETACHED if called else "nothing of it is called"
                raise SelfCheckError(
                    f"{label!r} was asked to train, but its parameters got no gradient: {first_few(own)}; {why}. If "
                    f"that is meant, add freeze(scope={label!r})"
                )

    def _refuse_adapters_passed_by(self) -> None:
        """Refuse adapters around layers whose weights the model reads without ever calling the layers."""
        layers = adapted_layers(self._model, self.silent)
        passed_by = sorted(layer for layer in layers if layer in self._read and layer not in self._called)
        if passed_by:
            raise SelfCheckError(
                f"adapters that nothing calls: {first_few(passed_by)}. The model reads the weights of these layers "
                "directly; choose others with target_modules"
            )

    def state_dict(self) -> dict[str, Any]:
        """Give what it has seen, for a checkpoint."""
        seen = {"asked": sorted(self._asked), "silent": list(self.silent), "called": sorted(self._called)}
        return {"done": self.done, "updates": self.updates, **({} if self.done else seen)}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.done, self.updates = saved["done"], saved["updates"]
        self._asked, self._called = set(saved.get("asked", ())), set(saved.get("called", ()))
        self.silent = tuple(saved.get("silent", ()))


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


def check_values(gradients: Mapping[str, Tensor | None], *, finite: bool) -> None:
    """Refuse an update without any gradient, or (`finite`) with an infinite one."""
    import torch

    found = {name: gradient for name, gradient in gradients.items() if gradient is not None}
    if not found:
        raise SelfCheckError("no parameter got a gradient: loss_fn must call the model it is given")
    if not finite:
        return
    are_finite: list[bool] = torch.stack([torch.isfinite(gradient).all() for gradient in found.values()]).tolist()
    infinite = [name for name, is_finite in zip(found, are_finite, strict=True) if not is_finite]
    if infinite:
        raise SelfCheckError(f"the first gradient is not finite in {first_few(infinite)}")


def check_scopes(model: nn.Module, layout: Layout, scopes_to_train: Sequence[str | None]) -> None:
    """Refuse a tower that was asked to train and has no parameter that does."""
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    for scope in scopes_to_train:
        for label, prefixes in layout.groups(model, scope).items():
            if prefixes and not any(is_within(name, prefixes) for name in trained):
                raise SelfCheckError(f"{label!r} was asked to train, but none of its parameters does")


def _describe(value: object) -> str:
    import torch

    return f"one of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
