"""PEFT's variants of LoRA and ways to start it, as tables: what `lora(variant=…, init=…)` may be, and why others not.

A variant is a field of PEFT's `LoraConfig` with a config of its own, `variant_options` are that config's fields. A
start is what PEFT calls `init_lora_weights`. What has a word of its own is refused with the word.
"""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from strategies.errors import PlanError, closest_first
from strategies.structure.adapters import AdaptedLayer, refuse_quantised

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

# Variant → the field of LoraConfig, and the class of its value.
VARIANTS: Final = {
    "velora": ("velora_config", "VeloraConfig"), "kasa": ("kasa_config", "KasaConfig"),
    "bdlora": ("use_bdlora", "BdLoraConfig"),
}  # fmt: skip
# Start → options it takes, under PEFT's names.
INITS: Final[Mapping[str, tuple[str, ...]]] = {
    "gaussian": (), "orthogonal": (), "mica": (), "loftq": ("loftq_iter",), "eva": ("whiten",),
    "corda": ("corda_method",), "lora_ga": ("direction", "scale", "stable_gamma"),
}  # fmt: skip
ANYWHERE: Final = ("gaussian", "orthogonal")  # starts that go with other variants, and with any base
PEFTS_OWN: Final = (*ANYWHERE, "mica")  # starts that its layers make as they are put in
FROM_DATA: Final = ("corda", "lora_ga")  # starts that change weights by what data say, so that those are saved
ON_FLOATS: Final = ("mica", *FROM_DATA)  # starts that PEFT's layers on few bits do not have
OWN_WORDS: Final = {"dora": "dora", "use_dora": "dora", "rslora": "rslora", "pissa": "pissa", "olora": "olora"}
REFUSED: Final = {
    "alora": "PEFT's own class for causal language models has to find the invocation tokens in each batch",
    "arrow": "it routes between adapters that were trained before",
    "qalora": "it is for GPTQ weights alone; over nf4 or int8 take init='loftq'",
    "monteclora": "it draws its noise ahead into a buffer that no checkpoint holds; dropout regularises, too",
}  # fmt: skip


def check_choice(strategy: Any) -> None:
    """Refuse variants, starts and options of them that are none, with what can be written; without PEFT."""
    for option, known in (("variant", VARIANTS), ("init", INITS)):
        word, more = getattr(strategy, option), getattr(strategy, f"{option}_options")
        strategy.require(word is not None or more is None, f"{option}_options needs {option}=…")
        if word is None or word in known:
            continue
        plain = word.partition("_niter_")[0]
        strategy.require(plain not in OWN_WORDS, f"{word} has a word of its own: use {OWN_WORDS.get(plain)}(…)")
        strategy.require(word not in REFUSED, f"{option}={word!r} cannot be used here: {REFUSED.get(word)}")
        strategy.require(False, f"unknown {option} {word!r}; there is: {closest_first(word, known)}")
    strange = [name for name in strategy.init_options or () if name not in INITS[strategy.init]]
    there = ", ".join(INITS.get(strategy.init, ())) or "none"
    strategy.require(not strange, f"init={strategy.init!r} has no option {strange[:1]}; it has: {there}")
    together = strategy.init in (None, *ANYWHERE) and strategy.variant != "bdlora"
    strategy.require(
        strategy.variant is None or strategy.init is None or together,
        f"variant={strategy.variant!r} does not go with init={strategy.init!r}: leave one of the two out",
    )


def variant_fields(strategy: Any) -> dict[str, Any]:
    """Give the fields of PEFT's LoraConfig for a strategy's variant and start."""
    fields: dict[str, Any] = {}
    if strategy.variant is not None:
        field, kind = VARIANTS[strategy.variant]
        fields[field] = _config(strategy.variant, kind, strategy.variant_options or {})
    if strategy.init in PEFTS_OWN:
        fields["init_lora_weights"] = strategy.init
    return fields


def check_layers(strategy: Any, config: Any, layers: list[AdaptedLayer]) -> None:
    """Refuse layers in few bits where PEFT would pass the variant by without a word."""
    del config
    if strategy.variant is not None or strategy.init in ON_FLOATS:
        refuse_quantised(strategy, layers)


def takes_convolutions(strategy: Any) -> bool:
    """Say whether PEFT has it for convolutions."""
    return strategy.variant is None and strategy.init in (None, "gaussian")


def forget_weights(tuners: Iterable[Any]) -> None:
    """Keep KaSA from cutting weights in the first pass that were not there when its layers were made."""
    for part in [part for tuner in tuners for part in tuner.modules()]:
        vars(part).get("_lora_kasa_truncation_deferred", set()).clear()


def variant_loss(strategy: Any, tuners: Iterable[Any]) -> Any:
    """Give what KaSA adds to the loss, as PEFT computes it; other variants add nothing."""
    if strategy.variant != "kasa":
        return None
    terms = [tuner._get_kasa_loss() for tuner in tuners]  # noqa: SLF001 - PEFT leaves adding it to the loop
    return sum(terms[1:], terms[0])


def changed_weights(strategy: Any, names: Iterable[str]) -> frozenset[str]:
    """Name the weights below adapters that a start from data changes: base and seed do not tell them."""
    return frozenset(name for name in names if strategy.init in FROM_DATA and name.endswith(".base_layer.weight"))


@contextmanager
def peft_refusals() -> Iterator[None]:
    """Turn what PEFT says no to into a `PlanError`."""
    try:
        yield
    except PlanError:
        raise
    except (ValueError, TypeError, NotImplementedError) as problem:
        raise PlanError(f"lora: PEFT cannot put this into these layers: {problem}".replace("\n", " ")) from problem


def _config(variant: str, kind: str, options: Mapping[str, Any]) -> Any:
    """Make a variant's config; `PlanError` where the installed PEFT has none, or other options."""
    import peft
    from peft.tuners.lora import config as configs

    made: Any = vars(configs).get(kind)
    if made is None:
        raise PlanError(f"lora: the installed PEFT {peft.__version__} has no {variant}: upgrade it")
    known = [field.name for field in dataclasses.fields(made) if field.init]
    strange = [name for name in options if name not in known]
    if strange:
        raise PlanError(
            f"lora: variant={variant!r} has no option {strange[0]!r}; it has: {closest_first(strange[0], known)}"
        )
    return made(**options)
