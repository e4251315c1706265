"""Every strategy there is: those of this package, and those of others through an entry-point group.

A third-party package adds a strategy with
`[project.entry-points."tunematrix.strategies"]` and `name = "package.module:Class"`.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from strategies.errors import PlanError
from strategies.memory.checkpointing import Checkpointing
from strategies.numerics.amp import Amp
from strategies.numerics.int8 import Int8
from strategies.numerics.nf4 import Nf4
from strategies.protocol import Strategy
from strategies.recipes import RECIPES
from strategies.speed.compiling import Compile
from strategies.weights.freeze import Freeze
from strategies.weights.full import Full
from strategies.weights.lora import Lora

GROUP = "tunematrix.strategies"
OWN: tuple[type[Strategy], ...] = (Full, Freeze, Lora, Amp, Int8, Nf4, Checkpointing, Compile)


@cache
def _known() -> dict[str, type[Strategy]]:
    """Collect once; a third party cannot take a word that exists."""
    known = {strategy.name: strategy for strategy in OWN}
    for point in entry_points(group=GROUP):
        strategy = point.load()
        if not (isinstance(strategy, type) and issubclass(strategy, Strategy)):
            raise PlanError(f"entry point {point.value!r} in {GROUP!r} is no subclass of strategies.Strategy")
        if strategy.name in known or strategy.name in RECIPES or not strategy.name.isidentifier():
            raise PlanError(f"entry point {point.value!r}: the name {strategy.name!r} is taken or no identifier")
        known[strategy.name] = strategy
    return known


def catalogue() -> dict[str, type[Strategy]]:
    """Give word → strategy."""
    return dict(_known())
