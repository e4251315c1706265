"""peft — any other adapter method of the installed PEFT, by its type: `peft(type='road', options={'group_size': 8})`.

What: `type` is one of beft, c3a, deft, delora, glora, gralora, hira, lily, osf, peanut, psoft, pvera, road,
supertuning, tinylora, unilora, vblora, waveft; `options` are fields of its config. Options that hold a seed are set
from the plan's seed unless given. Methods with a word of their own and those that cannot work on a plain module are
refused with the word or the reason.
Why it helps: less common methods can be compared on equal terms with those that have a word.
What it costs: what the method costs; nothing here is tuned, so the rate should be. Some methods do not start exactly
at the pretrained model (vblora, unilora, c3a), and defaults meant for wide layers are refused on small ones with
PEFT's own words. When not to use it: a method with its own word, which has checked options and a default rate.
Paper: Mangrulkar et al., PEFT, 2022, https://github.com/huggingface/peft; each method's is in PEFT's documentation.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, final

from strategies.errors import PlanError, closest_first
from strategies.options import Names, Options, Rate
from strategies.protocol import ADAPTER_PACKAGES, FROZEN_BASE, WEIGHTS, Context, Kind, Strategy
from strategies.structure.adapters import AdaptedLayer, adapt, refuse_quantised
from strategies.structure.roles import Role

if TYPE_CHECKING:
    from torch import nn

_PROMPT = "it prepends virtual tokens to a language model's inputs and lives in PEFT's own model class"
_VALUES = "its adapter is made from the weights' values, so that its shapes or start are unknown without them"

# Type → the word that offers it.
OWN_WORD = {
    "lora": "lora", "adalora": "adalora", "ia3": "ia3", "vera": "vera", "oft": "oft", "boft": "boft", "loha": "loha",
    "lokr": "lokr", "hra": "hra", "fourierft": "fourierft", "randlora": "randlora", "miss": "miss", "shira": "shira",
    "ln_tuning": "layernorm",
}  # fmt: skip
# Type → options without which it does not fit layers of some dozen channels, used in tests and as examples.
ALLOWED: dict[str, dict[str, Any]] = {
    "beft": {}, "c3a": {"block_size": 4}, "deft": {}, "delora": {}, "glora": {}, "gralora": {"r": 8}, "hira": {"r": 8},
    "lily": {}, "osf": {}, "peanut": {}, "psoft": {"r": 8}, "pvera": {}, "road": {"group_size": 4}, "supertuning": {},
    "tinylora": {}, "unilora": {}, "vblora": {"vector_length": 4, "num_vectors": 32}, "waveft": {"n_frequency": 64},
}  # fmt: skip
REFUSED = {
    "prompt_tuning": _PROMPT, "multitask_prompt_tuning": _PROMPT, "p_tuning": _PROMPT, "prefix_tuning": _PROMPT,
    "cpt": _PROMPT, "cartridge": _PROMPT,
    "adaption_prompt": "it adds prompts inside the attention of LLaMA, Mistral and GPT-2 models and knows no other",
    "xlora": "it mixes LoRA adapters that were trained before and needs a language model's config",
    "poly": "it routes by task, and its layers need task_ids in every call of the model",
    "trainable_tokens": "it trains rows of an embedding, not linear layers",
    "shadow": "it wraps the decoder blocks of a language model and adds a second model beside them",
    "adamss": _VALUES, "frod": _VALUES,
}  # fmt: skip
SEEDS = ("projection_prng_key", "projection_seed", "proj_seed", "random_seed", "random_loc_seed")
FLOAT_ONLY = ("c3a", "glora", "gralora", "peanut", "supertuning", "unilora")  # fail or train wrongly on int8, nf4
NOT_OPTIONS = ("target_modules", "modules_to_save", "exclude_modules", "layers_to_transform", "layers_pattern")


@final
@dataclass(frozen=True, kw_only=True)
class Peft(Strategy):
    """Adapters of PEFT's method `type` on the layers with the given `roles` (default: query and value)."""

    name: ClassVar[str] = "peft"
    kind: ClassVar[Kind] = "weights"
    stage: ClassVar[int] = 20
    slots: ClassVar[frozenset[str]] = frozenset({WEIGHTS})
    provides: ClassVar[frozenset[str]] = frozenset({FROZEN_BASE})
    packages: ClassVar[tuple[str, ...]] = ADAPTER_PACKAGES
    trial: ClassVar[Mapping[str, Any]] = {"type": "road", "options": {"group_size": 4}}

    type: str
    options: Options = field(default_factory=Options)  # Python 3.10 takes no dictionary here
    roles: tuple[Role, ...] | None = None
    target_modules: Names | None = None
    scope: str | None = None
    lr: Rate = 1e-3
    head_lr: Rate = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        kind = self.type.lower()
        object.__setattr__(self, "type", kind)
        self.require(kind not in OWN_WORD, f"{kind} has a word of its own: use {OWN_WORD.get(kind)}(…)")
        self.require(kind not in REFUSED, f"{kind} cannot be used here: {REFUSED.get(kind)}")
        self.require(kind in ALLOWED, f"unknown type {kind!r}; there is: {closest_first(kind, ALLOWED)}")

    def transform(self, model: nn.Module, context: Context) -> None:
        """Freeze the scope and inject adapters; what PEFT refuses becomes a `PlanError` in its words."""
        config = self._config(context.seed)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", module=r"peft\..*")
                adapt(self, model, context, config, adjust=self._check_layers)
        except PlanError:
            raise
        except (ValueError, TypeError, NotImplementedError) as problem:
            raise PlanError(
                f"peft: PEFT cannot put {self.type} into these layers: {problem}. Give other options={{…}} or roles"
            ) from problem

    def _check_layers(self, config: Any, layers: list[AdaptedLayer]) -> None:
        """Refuse quantised layers where the method cannot have them."""
        del config
        if self.type in FLOAT_ONLY:
            refuse_quantised(self, layers)

    def _config(self, seed: int) -> Any:
        """Make PEFT's config, with names checked against the installed version."""
        import peft

        kinds = {str(kind.value).lower(): kind for kind in peft.PEFT_TYPE_TO_TUNER_MAPPING}
        self.require(self.type in kinds, f"the installed PEFT {peft.__version__} has no {self.type}: upgrade it")
        config_class = peft.PEFT_TYPE_TO_CONFIG_MAPPING[kinds[self.type]]
        fields = {field.name for field in dataclasses.fields(config_class) if field.init}
        known = fields - {field.name for field in dataclasses.fields(peft.PeftConfig)} - set(NOT_OPTIONS)
        strange = [option for option in self.options if option not in known]
        if strange:
            there = closest_first(strange[0], known)
            raise PlanError(f"peft: {self.type} has no option {strange[0]!r}; it has: {there}")
        seeds = {option: seed for option in SEEDS if option in known}
        try:
            return config_class(**{**seeds, **self.options})
        except (ValueError, TypeError) as problem:
            raise PlanError(f"peft: {self.type} refuses options={dict(self.options)}: {problem}") from problem
