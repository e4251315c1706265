"""What a mean loss divides by, so that the means of micro-batches make the mean of their batch.

A loss function that gives one number does not say what it is a mean over: examples, labels that count (other than
-100), tokens of a mask. So it is looked at, not guessed: its value for a few examples together is compared with those
for two halves of them, weighted in each way that the batch offers (`Counter`). The way that agrees is used from then
on; where none does (contrastive losses, whose examples are each other's negatives) the plan is refused. The looks are
in evaluation mode, without gradients, and draw nothing from the stream of random numbers. Another look is taken where
ways that agreed so far come apart for the first time, and in the updates `LOOKS`.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from strategies.errors import PlanError, is_out_of_memory
from strategies.execution.counting import EXAMPLES, Counter
from strategies.execution.random_state import reseed, unchanged_random

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import torch
    from torch import Tensor, nn

    from strategies.execution.feed import Feed, MicroBatch
    from strategies.protocol import Strategy

    Compute = Callable[[MicroBatch], Tensor]
    Look = Callable[[MicroBatch, bool], float]

LOOKS = (1, 2, 4, 8)  # numbers of divided updates in which a loss function is looked at anyway
MOST_LOOKS = 16
PROBE = 4  # examples in each half of a look, at most
SORTED = 64  # examples of which halves as different as possible are chosen, at most
EXACT, ROUNDED = 1e-5, 2e-2  # how far apart, relative, values of the same loss may be in 32 bits, and in fewer
TIE = 1e-6  # ways no further apart than this are not told apart
MORE_PROBES = 3
FULL_BYTES = 4  # bytes of a number in 32 bits
PRECISION = "precision"  # the slot of what sets autocast, which is off while a loss is looked at
SPREAD = 4  # times what a loss changes by when it is computed anew (it draws random numbers)
NO_MEAN = (
    "the loss of a batch is no mean of its parts' losses, over examples or labels ({1} for {0} examples, {2} and {3} "
    "for halves of them), so passing parts one by one would train on another loss: return each example's loss, shape "
    "(n,), or (sum, count) of what is averaged, or leave the division into micro-batches out"
)


class Weighting:
    """What the means of one loss function are over, as far as they have shown.

    `exact`: losses are computed in 32 bits; fewer leave more room for what a loss may be.
    """

    def __init__(self, model: nn.Module, *, exact: bool) -> None:
        self.used = EXAMPLES
        self._tolerance, self._counter = EXACT if exact else ROUNDED, Counter(shifted=_predicts_the_next(model))
        self._refuted: set[str] = set()
        self._agreed: set[str] = set()
        self._updates = self._looks = 0

    def counts(self, feed: Feed, parts: Sequence[MicroBatch], look: Look) -> list[float]:
        """Give by how much each part counts in the mean over all `parts` of `feed`; `look` gives a part's loss.

        `PlanError` where the loss of a few examples is no mean of its halves' losses in any way.
        """
        agreed = self.agreed(feed, parts, look) or self._open_ways(parts)
        self.used = EXAMPLES if EXAMPLES in agreed and _all_alike(agreed) else next(iter(agreed), EXAMPLES)
        return agreed.get(self.used) or [float(part.size) for part in parts]

    def agreed(self, feed: Feed, parts: Sequence[MicroBatch], look: Look) -> dict[str, list[float]]:
        """Give the ways that agree with the loss, the likely ones first: words → how much each part counts."""
        self._updates += 1
        ways = self._open_ways(parts)
        counting = {words: counts for words, counts in ways.items() if any(counts)}
        due = self._updates in LOOKS or not self._agreed & counting.keys() or not _all_alike(counting)
        if due and self._looks < MOST_LOOKS:
            self._look(feed, parts, look)
            ways = self._open_ways(parts)
        return {words: counts for words, counts in ways.items() if words in self._agreed}

    def likely(self, part: MicroBatch) -> dict[str, list[float]]:
        """Give the ways that nothing speaks against, the likely ones first, where there is nothing to look at."""
        return self._open_ways([part])

    def _open_ways(self, parts: Sequence[MicroBatch]) -> dict[str, list[float]]:
        return {words: counts for words, counts in self._counter(parts).items() if words not in self._refuted}

    def _look(self, feed: Feed, parts: Sequence[MicroBatch], look: Look) -> None:
        """Compare a few examples with halves of them, and keep the ways that agree best: until those say the same."""
        self._looks += 1
        errors: dict[str, float] = {}
        for number, chosen in enumerate(self._halves(feed, parts[0].size)):
            whole = feed.batch_of([place for half in chosen for place in half])
            halves = [feed.batch_of(half) for half in chosen]
            values = [look(whole, False), look(whole, True), *(look(half, False) for half in halves)]
            for words, error in self._errors(values, halves).items():
                errors[words] = max(error, errors.get(words, 0.0))
            best = min(errors.values(), default=0.0)
            if best > self._tolerance:
                raise PlanError(NO_MEAN.format(whole.size, *(f"{value:.4g}" for value in (values[0], *values[2:]))))
            self._agreed = {words for words, error in errors.items() if error <= max(TIE, SPREAD * best)}
            if number and _all_alike({words: counts for words, counts in self._open_ways(parts).items()
                                      if words in self._agreed and any(counts)}):  # fmt: skip
                break
        self._refuted |= errors.keys() - self._agreed

    def _errors(self, values: Sequence[float], halves: Sequence[MicroBatch]) -> dict[str, float]:
        """Give how far each way is from the whole's loss, relative; what the loss draws at random is no error."""
        whole, again, *parts = values
        scale = max([abs(value) for value in values if math.isfinite(value)], default=0.0)
        if not math.isfinite(whole) or not scale:
            return {}
        spread = SPREAD * abs(whole - again)
        found = {}
        for words, counts in self._open_ways(halves).items():
            if not any(counts):
                continue
            means = [count * value for count, value in zip(counts, parts, strict=True) if count]
            mean = math.fsum(means) / sum(counts)
            found[words] = max(0.0, abs(mean - whole) - spread - TIE) / scale if math.isfinite(mean) else math.inf
        return found

    def _halves(self, feed: Feed, max_size: int) -> Iterator[tuple[list[int], list[int]]]:
        """Choose examples: the first, then those that count most against those that count least, then any."""
        import torch

        places = list(range(min(len(feed), SORTED)))
        half = min(max_size, len(places) // 2, PROBE)
        yield places[:half], places[half : 2 * half]
        singles = self._open_ways([feed.batch_of([place]) for place in places])
        uneven = next((counts for counts in singles.values() if len(set(counts)) > 1), [1.0] * len(places))
        by_count = sorted((place for place in places if uneven[place]), key=lambda place: uneven[place])
        if len(by_count) >= 2 * half:
            yield by_count[-half:], by_count[:half]
        for seed in range(MORE_PROBES):
            drawn = torch.randperm(len(places), generator=torch.Generator().manual_seed(seed)).tolist()
            yield drawn[:half], drawn[half : 2 * half]


def shares(counts: Sequence[float]) -> list[float]:
    """Give the shares that add up to one; nothing where nothing counts."""
    total = sum(counts)
    return [count / total if total else 0.0 for count in counts]


def same_shares(first: Sequence[float], second: Sequence[float]) -> bool:
    """Say whether counts give the parts the same shares."""
    pairs = zip(shares(first), shares(second), strict=True)
    return all(math.isclose(a, b, rel_tol=1e-12) for a, b in pairs)


def _all_alike(ways: Mapping[str, Sequence[float]]) -> bool:
    first, *others = [*ways.values()] or [[]]
    return all(same_shares(first, other) for other in others)


@contextmanager
def still(model: nn.Module, device: torch.device, *, training: bool = False) -> Iterator[None]:
    """Look at losses within: evaluation mode, no gradients, nothing compiled, all random streams as they were."""
    import torch

    modes = [(part, part.training) for part in model.modules()]
    with torch.no_grad(), unchanged_random(device), torch.compiler.set_stance("force_eager"):
        try:
            if not training:
                model.eval()
            yield
        finally:
            if not training:
                model.train()  # what a module keeps of an evaluation (LeViT its biases) is void
            for part, mode in modes:
                part.training = mode  # not `train(mode)`, which changes all within


def looker(model: nn.Module, device: torch.device, compute: Compute) -> Look:
    """Make of `compute` what looks at a loss; `anew`: with other random numbers than those that come next.

    A model that has a loss in training mode only is left in it.
    """

    def look(part: MicroBatch, anew: bool) -> float:
        try:
            with still(model, device):
                return value(part, anew)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            with still(model, device, training=True):
                return value(part, anew)

    def value(part: MicroBatch, anew: bool) -> float:
        if anew:
            reseed(0)
        return float(compute(part).float().mean())

    return look


def is_exact(model: nn.Module, members: Iterable[Strategy]) -> bool:
    """Say whether a model under a plan computes in 32 bits once autocast is off."""
    wide = all(parameter.dtype.itemsize >= FULL_BYTES for parameter in model.parameters())
    return wide and not any(member.kind == "numerics" and PRECISION not in member.slots for member in members)


def _predicts_the_next(model: nn.Module) -> bool:
    """Say whether a model's loss likely leaves the first label of each row out, by its name: it only breaks ties."""
    causal = type(model).__name__.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration"))
    return causal and not getattr(getattr(model, "config", None), "is_encoder_decoder", False)


def without_autocast(function: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    """Let a function compute in the numbers that it is given."""
    import torch

    def exactly(*arguments: Any) -> Any:
        with torch.autocast(device.type, enabled=False):
            return function(*arguments)

    return exactly


def same_function(loss_fn: Any) -> object:
    """Give what stays the same of a loss function that is made anew for each update, as a lambda is."""
    while isinstance(loss_fn, partial):
        loss_fn = loss_fn.func
    loss_fn = getattr(loss_fn, "__func__", loss_fn)
    code = getattr(loss_fn, "__code__", None)
    if code is None:
        return type(loss_fn)
    held = [cell.cell_contents for cell in loss_fn.__closure__ or ()]
    return code, tuple(getattr(value, "__code__", type(value)) for value in held if callable(value))
