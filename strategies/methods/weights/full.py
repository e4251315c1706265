"""full — train every weight (the baseline; the empty sum).

What: all pretrained and new weights are updated, the new head faster than the pretrained towers.
Why it helps: nothing limits what can be learned; usually the best quality with enough data.
What it costs: gradients and two optimizer moments for every weight (with the weights themselves, 4× their memory),
and a model-sized file per task. When not to use it: little memory, little data, or many tasks on one base.
Paper: Howard and Ruder, Universal Language Model Fine-tuning, 2018, https://arxiv.org/abs/1801.06146
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

from strategies.options import Rate
from strategies.protocol import WEIGHTS, Kind, Strategy


@final
@dataclass(frozen=True, kw_only=True)
class Full(Strategy):
    """Every weight trains: pretrained ones with `lr`, fusion and head with `head_lr`."""

    name: ClassVar[str] = "full"
    kind: ClassVar[Kind] = "weights"
    stage: ClassVar[int] = 20
    slots: ClassVar[frozenset[str]] = frozenset({WEIGHTS})

    trains_scope: ClassVar[bool] = True
    trial: ClassVar[Mapping[str, Any]] = {"lr": 1e-3}  # with defaults it is the empty sum

    lr: Rate = 1e-4
    head_lr: Rate = 1e-3
