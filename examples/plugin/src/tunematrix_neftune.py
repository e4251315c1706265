"""neftune — add uniform noise to the word embeddings in training.

What: what the word embedding gives is changed by noise drawn evenly from ±alpha/√(length · width), afresh in every
training step and never in evaluation; the longer the text and the wider the embedding, the smaller each number.
Why it helps: a model tuned on few, short texts memorises their wording less; the paper reports better answers after
instruction tuning. No weights, no memory to speak of and no time are added.
What it costs: one more rate to choose (`alpha`: 5, 10 and 15 in the paper; 5 here), and a training loss that is a
little higher than without. When not to use it: the task has no text, the texts are long and many, or exact wording is
what must be learnt. The noise counts padding as length.
Paper: Jain et al., NEFTune: Noisy Embeddings Improve Instruction Finetuning, 2023, https://arxiv.org/abs/2310.05914
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final

from strategies import Context, PlanError, Strategy
from strategies.options import Names, Rate

if TYPE_CHECKING:
    from torch import Tensor, nn


@final
@dataclass(frozen=True, kw_only=True)
class Neftune(Strategy):
    """Noise on the first embedding of each tower in `scope`, or on the `modules` with these name endings."""

    name: ClassVar[str] = "neftune"
    kind: ClassVar[Literal["data"]] = "data"
    stage: ClassVar[int] = 30
    slots: ClassVar[frozenset[str]] = frozenset({"noise on embeddings"})

    alpha: Rate = 5.0
    modules: Names | None = None
    scope: str | None = None

    def transform(self, model: nn.Module, context: Context) -> None:
        """Hook the embeddings; a hook is called with the module, so one function serves all of them."""

        def add_noise(module: nn.Module, inputs: tuple[Any, ...], embedded: Tensor) -> Tensor:
            del inputs
            return noisy(embedded, self.alpha) if module.training else embedded

        for name in self.embeddings(model, context):
            model.get_submodule(name).register_forward_hook(add_noise)

    def embeddings(self, model: nn.Module, context: Context) -> list[str]:
        """Name the modules to hook: HF models register the word embedding before positions and segments."""
        from torch import nn

        found = [name for name, module in model.named_modules() if isinstance(module, nn.Embedding)]
        chosen: list[str] = []
        for roots in context.layout.groups(model, self.scope).values():
            for root in roots:
                inner = [name for name in found if not root or f"{name}.".startswith(f"{root}.")]
                if self.modules is None:
                    chosen += inner[:1]
                else:
                    chosen += [name for name in inner if any(f".{name}".endswith(f".{end}") for end in self.modules)]
        if not chosen:
            raise PlanError(
                f"neftune: no such embedding in {self.scope or 'the towers'} of {type(model).__name__}; it has: "
                f"{', '.join(found) or 'none'}. Choose with modules=['…'], or leave neftune out"
            )
        return list(dict.fromkeys(chosen))


def noisy(embedded: Tensor, alpha: float) -> Tensor:
    """Add noise to `embedded`: (batch, length, width) or (length, width)."""
    length, width = embedded.shape[-2:]
    return embedded + embedded.detach().new_empty(embedded.shape).uniform_(-1, 1) * (alpha / (length * width) ** 0.5)
