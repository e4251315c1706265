"""Every strategy there is: those of this package, and those of others through an entry-point group.

A third-party package adds a strategy with
`[project.entry-points."tunematrix.strategies"]` and `name = "package.module:Class"`; the table below says it the same
way, one line for each strategy.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points

from strategies.errors import PlanError
from strategies.protocol import Strategy
from strategies.recipes import RECIPES

GROUP = "tunematrix.strategies"
OWN: dict[str, str] = {
    # what trains
    "full": "strategies.weights.full:Full",
    "freeze": "strategies.weights.freeze:Freeze",
    "linear_probe": "strategies.weights.linear_probe:LinearProbe",
    "bitfit": "strategies.weights.bitfit:BitFit",
    "layernorm": "strategies.weights.layernorm:LayerNormTuning",
    "progressive_freezing": "strategies.weights.progressive_freezing:ProgressiveFreezing",
    "lisa": "strategies.weights.lisa:Lisa",
    "lora": "strategies.weights.lora:Lora",
    "rslora": "strategies.weights.rslora:Rslora",
    "dora": "strategies.weights.dora:Dora",
    "pissa": "strategies.weights.pissa:Pissa",
    "olora": "strategies.weights.olora:Olora",
    "loraplus": "strategies.weights.loraplus:LoraPlus",
    "lorafa": "strategies.weights.lorafa:LoraFa",
    "adalora": "strategies.weights.adalora:AdaLora",
    "ia3": "strategies.weights.ia3:Ia3",
    "vera": "strategies.weights.vera:Vera",
    "oft": "strategies.weights.oft:Oft",
    "boft": "strategies.weights.boft:Boft",
    "loha": "strategies.weights.loha:Loha",
    "lokr": "strategies.weights.lokr:Lokr",
    "hra": "strategies.weights.hra:Hra",
    "fourierft": "strategies.weights.fourierft:FourierFt",
    "randlora": "strategies.weights.randlora:RandLora",
    "miss": "strategies.weights.miss:Miss",
    "shira": "strategies.weights.shira:Shira",
    "peft": "strategies.weights.peft_any:Peft",
    "houlsby": "strategies.weights.houlsby:Houlsby",
    "adaptformer": "strategies.weights.adaptformer:AdaptFormer",
    # in which numbers
    "int8": "strategies.numerics.int8:Int8",
    "nf4": "strategies.numerics.nf4:Nf4",
    "fp4": "strategies.numerics.fp4:Fp4",
    "amp": "strategies.numerics.amp:Amp",
    "tf32": "strategies.numerics.tf32:Tf32",
    "pure_bf16": "strategies.numerics.pure_bf16:PureBf16",
    "fp8": "strategies.numerics.fp8:Fp8",
    # what is kept for the backward pass
    "checkpointing": "strategies.memory.checkpointing:Checkpointing",
    "offload_activations": "strategies.memory.offloading:OffloadActivations",
    # how it is executed
    "compile": "strategies.speed.compiling:Compile",
    "attention": "strategies.speed.attention:Attention",
    # how gradients become updates
    "layer_decay": "strategies.update.layer_decay:LayerDecay",
    "adamw8bit": "strategies.update.adamw8bit:AdamW8bit",
    "paged_adamw8bit": "strategies.update.paged_adamw8bit:PagedAdamW8bit",
    "lion": "strategies.update.lion:Lion",
    "lion8bit": "strategies.update.lion8bit:Lion8bit",
    "adafactor": "strategies.update.adafactor:Adafactor",
    "galore": "strategies.update.galore:GaLore",
    "apollo": "strategies.update.apollo:Apollo",
    "muon": "strategies.update.muon:Muon",
    "schedule_free": "strategies.update.schedule_free:ScheduleFree",
    "optimizer_in_backward": "strategies.update.optimizer_in_backward:OptimizerInBackward",
    "ema": "strategies.update.ema:Ema",
    "schedule": "strategies.update.schedule:Schedule",
    "clip": "strategies.update.clip:Clip",
    # what an update is fed with, and how
    "accumulate": "strategies.data.accumulate:Accumulate",
    "group_by_image": "strategies.data.group_by_image:GroupByImage",
    "bucketing": "strategies.data.bucketing:Bucketing",
    "auto_batch": "strategies.data.auto_batch:AutoBatch",
    "cache_features": "strategies.data.cache_features:CacheFeatures",
    "patch_dropout": "strategies.data.patch_dropout:PatchDropout",
    "selective_backprop": "strategies.data.selective_backprop:SelectiveBackprop",
}


@cache
def _known() -> dict[str, type[Strategy]]:
    """Load once; a third party cannot take a word that exists."""
    known: dict[str, type[Strategy]] = {}
    for point in [*(EntryPoint(name, path, GROUP) for name, path in OWN.items()), *entry_points(group=GROUP)]:
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
