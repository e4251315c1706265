"""What a strategy is: a frozen, keyword-only dataclass of hyper-parameters with a few hooks, all optional.

Model-level hooks (`environ`, `transform`, `place`, `wrap_forward`) work in any training loop, `Tuned` calls loop-level
ones. Every default does nothing. Strategies share code by functions: subclasses of `Strategy` are final.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import typing
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from strategies.errors import PlanError
from strategies.layout import EVERYTHING
from strategies.options import conform, describe_type, following

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor, nn

    from strategies.execution.engine import Engine
    from strategies.execution.feed import Feed
    from strategies.layout import Layout

Kind = Literal["weights", "numerics", "memory", "speed", "update", "data"]

WEIGHTS = "weights"  # the slot of what decides which weights train, and with which rate
OPTIMIZER = "optimizer"  # the slot of what replaces AdamW
SCHEDULE = "schedule"  # the slot of what shapes the rates over the steps
MICRO_BATCHES = "micro-batches"  # the slot of what divides an update into several passes
CLIPPING = "clipping"  # the slot of what limits gradients
ENGINE = "engine"  # the slot of what carries out an update
AVERAGED = "averaged weights"  # the slot of what evaluates and saves other weights than it trains
ADAPTER_PACKAGES = ("peft", "bitsandbytes")
FROZEN_BASE = "a frozen base"  # capability: no original weight matrix of the scope trains
FROZEN = "nothing that trains"  # capability: no weight of the scope trains, original or added
RANDOM_TOKENS = "random tokens"  # capability: what the scope computes differs from pass to pass
ROUNDING = "random rounding"  # capability: small updates to 16-bit weights are not lost


@dataclass(frozen=True)
class Context:
    """What a model-level hook may know: layout (towers, fusion, head), target device, facts, seed, total updates."""

    layout: Layout
    device: torch.device
    facts: Mapping[str, str | int] = field(default_factory=dict)
    seed: int = 0
    total_steps: int | None = None
    member_state: dict[Strategy, Any] = field(default_factory=dict)  # what a member keeps from hook to hook
    notes: dict[str, dict[str, str]] = field(default_factory=dict)  # a member's → a layer's name → what is said of it
    changed_weights: set[str] = field(default_factory=set)  # of the base, by more than base and seed tell: to be saved
    with_optimizer: list[Callable[..., Any]] = field(default_factory=list)  # called with the optimizer once it is made


@dataclass
class State:
    """What a loop-level hook may know and change: model, optimizer, device, and the number of the update (from 0)."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    device: torch.device
    total_steps: int | None
    member_state: dict[Strategy, Any] = field(default_factory=dict)  # the context's
    step: int = 0
    keys: Mapping[str, Sequence[Any]] = field(default_factory=dict)  # of the batch under way, by scope; see Feed


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """One technique with its hyper-parameters as fields; see the module's docstring for the rules.

    `PlanError` on construction for a value that its option's type does not allow.
    """

    name: ClassVar[str]
    kind: ClassVar[Kind]
    stage: ClassVar[int]  # 10 storage of the base, 20 weights, 30 numerics, 40 memory, 50 speed, 60 update, 70 data
    slots: ClassVar[frozenset[str]] = frozenset()
    provides: ClassVar[frozenset[str]] = frozenset()
    requires: ClassVar[frozenset[str]] = frozenset()  # each must be provided for the whole scope
    inert_on: ClassVar[frozenset[str]] = frozenset()  # refused where one of these covers the whole scope
    incompatible_with: ClassVar[frozenset[str]] = frozenset()  # refused where one of these touches the scope
    packages: ClassVar[tuple[str, ...]] = ()  # imported before the set-up clock starts
    setup_during_move: ClassVar[bool] = False  # its work happens while the model moves to the device
    needs_losses: ClassVar[bool] = False  # the loss function must give each example's loss
    needs_items: ClassVar[bool] = False  # the loader keeps the items of a batch for it: it divides them or reads keys
    trains_scope: ClassVar[bool] = False  # every weight of its scope trains at some time, so that all of it is saved
    resumable: ClassVar[bool] = True  # a checkpoint holds exactly what it needs to go on
    trial: ClassVar[Mapping[str, Any]] = {}  # options for a trial on a tiny model on CPU, where defaults do not fit
    follows: ClassVar[Mapping[str, tuple[str, int]]] = {}  # option → of which, given before, it is how many times

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self), include_extras=True)
        for option in dataclasses.fields(self):
            value, hint = getattr(self, option.name), hints[option.name]
            fits, kept = conform(value, hint)
            self.require(fits, f"{option.name}={value!r} should be {describe_type(hint)}")
            object.__setattr__(self, option.name, following(self).get(option.name) if kept is None else kept)

    def require(self, condition: bool, message: str) -> None:
        """Refuse a hyper-parameter with a `PlanError` that names the strategy."""
        if not condition:
            raise PlanError(f"{self.name}: {message}")

    # facts -------------------------------------------------------------------------------------------------
    def scope_name(self) -> str | None:
        """Name the scope it acts on: its option `scope` (`None` = all but head and fusion); without one all (`"*"`)."""
        scope: str | None = vars(self).get("scope", EVERYTHING)
        return scope

    def capabilities(self) -> frozenset[str]:
        """Say what it provides for its scope with these options (by default: `provides`)."""
        return self.provides

    def unavailable(self, device: torch.device | str) -> str | None:
        """Say why it cannot run on this machine, or `None`. `device` is `"cpu"`, `"cuda:0"` or a torch.device."""
        del device
        missing = [package for package in self.packages if importlib.util.find_spec(package) is None]
        return f"needs the package {missing[0]!r}: pip install {missing[0]}" if missing else None

    def facts(self, device: torch.device | str) -> dict[str, str | int]:
        """Give facts for the record that follow from the options and the device, such as the precision."""
        del device
        return {}

    # model level: any loop ---------------------------------------------------------------------------------
    def environ(self) -> dict[str, str]:
        """Give environment variables that must be set before torch starts."""
        return {}

    def transform(self, model: nn.Module, context: Context) -> None:
        """Change the structure, on CPU or meta; never reads weight values of a parameter on `meta`."""

    def simulate_move(self, model: nn.Module, context: Context) -> None:
        """Do to a model on `meta` what moving to the device does to a real one, with tensors made by torch as usual."""

    def place(self, model: nn.Module, context: Context) -> None:
        """Finish the change after the model has moved to its device."""

    def wrap_forward(self, forward: Callable[..., Any], context: Context) -> Callable[..., Any]:
        """Wrap what computes outputs or the loss, in training and in evaluation."""
        del context
        return forward

    # loop level --------------------------------------------------------------------------------------------
    def param_groups(self, groups: list[dict[str, Any]], model: nn.Module, context: Context) -> list[dict[str, Any]]:
        """Change the optimizer's parameter groups (`params, lr, weight_decay, name`)."""
        del model, context
        return groups

    def optimizer(self, make: Callable[..., torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
        """Replace or wrap the factory `groups -> optimizer`. An option `lr_scale` multiplies the plan's rates."""
        return make

    def engine(self, make: Callable[..., Engine]) -> Callable[..., Engine]:
        """Replace or wrap the factory `device, precision -> engine`."""
        return make

    def lr_multiplier(self, step: int, total_steps: int | None) -> float | None:
        """Give the share of the peak rates in update `step` (from 0); `None` leaves it to the usual schedule."""
        del step, total_steps
        return None

    def clipping(self, clip: Callable[[Sequence[Tensor]], object]) -> Callable[[Sequence[Tensor]], object]:
        """Replace what limits the gradients, a function of the parameters that train."""
        return clip

    def unsupported_item(self, item: Any) -> str | None:
        """Say why it cannot feed items like this one (a mapping with `id`, maybe `keys` and `length`), or `None`."""
        del item
        return None

    def loader(self, options: dict[str, Any]) -> dict[str, Any]:
        """Change the keyword arguments of the training `DataLoader`."""
        return options

    def before_step(self, state: State) -> None:
        """Run before the first forward pass of an update."""

    def select_examples(self, feed: Feed, losses: Callable[[Feed], Tensor], state: State) -> Feed:
        """Choose among the examples of an update; `losses(feed)` gives each one's loss, (n,), without gradients."""
        del losses, state
        return feed

    def run_micro_batches(self, run: Callable[[int], Tensor], size: int, state: State) -> Tensor:
        """Decide how many of the update's `size` examples pass at a time.

        `run(n)` passes all of them forward and backward, at most n at a time, and gives the mean loss, detached.
        """
        del state
        return run(size)

    def cache_bytes(self, state: State, distinct: Mapping[str, int]) -> int:
        """Give the bytes on the device that it keeps besides once all items, with `distinct` keys by scope, passed."""
        del state, distinct
        return 0

    def prepare_batch(self, batch: Any, state: State) -> Any:
        """Change a batch that is already on the device; called for each pass."""
        del state
        return batch

    def extra_loss(self, state: State) -> Tensor | None:
        """Give a term to add to the loss, or `None`."""
        del state
        return None

    def after_update(self, state: State) -> None:
        """Run after the optimizer's step, before gradients are cleared."""

    def evaluating(self, state: State) -> AbstractContextManager[object]:
        """Surround evaluation and saving (averaged weights, say); entered again within itself it changes nothing."""
        del state
        return nullcontext()

    def external_loop_settings(self, facts: Mapping[str, str | int]) -> Mapping[str, Any] | str | None:
        """Say how another loop does what its loop-level hooks do in ours: settings, or a text that names others' means.

        With settings (`strategies/integrations/huggingface_trainer.py` and `accelerate.py` have them) its forward
        and loop-level hooks are left to that loop.
        """
        del facts
        return None

    def state_dict(self, state: State) -> Any:
        """Give what it keeps from update to update, for a checkpoint: tensors, numbers, text, containers of them."""
        del state

    def load_state_dict(self, state: State, saved: Any) -> None:
        """Take back what `state_dict` gave, before the update that comes next."""

    def training_facts(self, state: State) -> dict[str, str | int]:
        """Give facts for the record that only training could find."""
        del state
        return {}


def defaults(strategy: type[Strategy]) -> dict[str, Any]:
    """Give option → default; an option that must be given has `dataclasses.MISSING`."""
    return {
        option.name: option.default if option.default_factory is dataclasses.MISSING else option.default_factory()
        for option in dataclasses.fields(strategy)
    }
