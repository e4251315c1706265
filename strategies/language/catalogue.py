"""Every strategy there is: those of this package, and those of others through an entry-point group.

A third-party package adds a strategy with
`[project.entry-points."tunematrix.strategies"]` and `name = "package.module:Class"`; the table below says it the same
way, one line for each strategy.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points

from strategies.errors import PlanError
from strategies.language.recipes import RECIPES
from strategies.protocol import Strategy

ENTRY_POINT_GROUP = "tunematrix.strategies"
BUILT_IN: dict[str, str] = {
    # what trains
    "full": "strategies.methods.weights.full:Full",
    "freeze": "strategies.methods.weights.freeze:Freeze",
    "linear_probe": "strategies.methods.weights.linear_probe:LinearProbe",
    "bitfit": "strategies.methods.weights.bitfit:BitFit",
    "layernorm": "strategies.methods.weights.layernorm:LayerNormTuning",
    "progressive_freezing": "strategies.methods.weights.progressive_freezing:ProgressiveFreezing",
    "lisa": "strategies.methods.weights.lisa:Lisa",
    "lora": "strategies.methods.weights.lora:Lora",
    "rslora": "strategies.methods.weights.rslora:Rslora",
    "dora": "strategies.methods.weights.dora:Dora",
    "pissa": "strategies.methods.weights.pissa:Pissa",
    "olora": "strategies.methods.weights.olora:Olora",
    "loraplus": "strategies.methods.weights.loraplus:LoraPlus",
    "lorafa": "strategies.methods.weights.lorafa:LoraFa",
    "adalora": "strategies.methods.weights.adalora:AdaLora",
    "ia3": "strategies.methods.weights.ia3:Ia3",
    "vera": "strategies.methods.weights.vera:Vera",
    "oft": "strategies.methods.weights.oft:Oft",
    "boft": "strategies.methods.weights.boft:Boft",
    "loha": "strategies.methods.weights.loha:Loha",
    "lokr": "strategies.methods.weights.lokr:Lokr",
    "hra": "strategies.methods.weights.hra:Hra",
    "fourierft": "strategies.methods.weights.fourierft:FourierFt",
    "randlora": "strategies.methods.weights.randlora:RandLora",
    "miss": "strategies.methods.weights.miss:Miss",
    "shira": "strategies.methods.weights.shira:Shira",
    "peft": "strategies.methods.weights.peft_any:Peft",
    "houlsby": "strategies.methods.weights.houlsby:Houlsby",
    "adaptformer": "strategies.methods.weights.adaptformer:AdaptFormer",
    # in which numbers
    "int8": "strategies.methods.numerics.int8:Int8",
    "nf4": "strategies.methods.numerics.nf4:Nf4",
    "fp4": "strategies.methods.numerics.fp4:Fp4",
    "amp": "strategies.methods.numerics.amp:Amp",
    "tf32": "strategies.methods.numerics.tf32:Tf32",
    "pure_bf16": "strategies.methods.numerics.pure_bf16:PureBf16",
    "fp8": "strategies.methods.numerics.fp8:Fp8",
    # what is kept for the backward pass
    "checkpointing": "strategies.methods.memory.checkpointing:Checkpointing",
    "offload_activations": "strategies.methods.memory.offloading:OffloadActivations",
    # how it is executed
    "compile": "strategies.methods.speed.compiling:Compile",
    "attention": "strategies.methods.speed.attention:Attention",
    # how gradients become updates
    "layer_decay": "strategies.methods.update.layer_decay:LayerDecay",
    "adamw8bit": "strategies.methods.update.adamw8bit:AdamW8bit",
    "paged_adamw8bit": "strategies.methods.update.paged_adamw8bit:PagedAdamW8bit",
    "lion": "strategies.methods.update.lion:Lion",
    "lion8bit": "strategies.methods.update.lion8bit:Lion8bit",
    "adafactor": "strategies.methods.update.adafactor:Adafactor",
    "galore": "strategies.methods.update.galore:GaLore",
    "apollo": "strategies.methods.update.apollo:Apollo",
    "muon": "strategies.methods.update.muon:Muon",
    "schedule_free": "strategies.methods.update.schedule_free:ScheduleFree",
    "optimizer_in_backward": "strategies.methods.update.optimizer_in_backward:OptimizerInBackward",
    "ema": "strategies.methods.update.ema:Ema",
    "schedule": "strategies.methods.update.schedule:Schedule",
    "clip": "strategies.methods.update.clip:Clip",
    # what an update is fed with, and how
    "accumulate": "strategies.methods.data.accumulate:Accumulate",
    "group_by_image": "strategies.methods.data.group_by_image:GroupByImage",
    "bucketing": "strategies.methods.data.bucketing:Bucketing",
    "auto_batch": "strategies.methods.data.auto_batch:AutoBatch",
    "cache_features": "strategies.methods.data.cache_features:CacheFeatures",
    "patch_dropout": "strategies.methods.data.patch_dropout:PatchDropout",
    "selective_backprop": "strategies.methods.data.selective_backprop:SelectiveBackprop",
}


@cache
def _load_strategies() -> dict[str, type[Strategy]]:
    """Load once; a third party cannot take a word that exists."""
    known: dict[str, type[Strategy]] = {}
    for point in [
        *(EntryPoint(name, path, ENTRY_POINT_GROUP) for name, path in BUILT_IN.items()),
        *entry_points(group=ENTRY_POINT_GROUP),
    ]:
        strategy = point.load()
        if not (isinstance(strategy, type) and issubclass(strategy, Strategy)):
            raise PlanError(
                f"entry point {point.value!r} in {ENTRY_POINT_GROUP!r} is no subclass of strategies.Strategy"
            )
        if strategy.name in known or strategy.name in RECIPES or not strategy.name.isidentifier():
            raise PlanError(f"entry point {point.value!r}: the name {strategy.name!r} is taken or no identifier")
        known[strategy.name] = strategy
    return known


def catalogue() -> dict[str, type[Strategy]]:
    """Give word → strategy class: those of this package, and of installed ones that name an entry point.

    `PlanError` for an entry point in `tunematrix.strategies` that is no `Strategy`, or whose word is taken.
    Entry points: https://packaging.python.org/en/latest/specifications/entry-points/
    """
    return dict(_load_strategies())
