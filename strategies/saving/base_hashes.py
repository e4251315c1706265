"""Hashes of the pretrained weights that a saved folder does not hold, and whether a base has the same.

Adapters on another base than theirs give wrong answers and no error. So each tensor that stays with the base is hashed
as it was given, before a plan changes it; loading hashes the base that it is given and names what differs. Tensors are
hashed where they lie in memory, without a copy; several at a time, as hashlib lets other threads run.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from strategies.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    import torch
    from torch import Tensor, nn

THREADS_FROM_BYTES: Final = 1 << 24  # below it, starting threads takes longer than they save
MAX_THREADS: Final = 8
MAX_SHOWN: Final = 3  # names of tensors that differ
NO_ROWS: Final[Mapping[str, Sequence[int]]] = MappingProxyType({})


class Hash(NamedTuple):
    """The number type of a tensor, and the SHA-256 of its bytes and of what a quantised one has besides."""

    dtype: str
    sha256: str


class Source(NamedTuple):
    """What a hash is made of: a tensor, in another number type if one is given, and scales and code books."""

    tensor: Tensor
    dtype: torch.dtype | None
    others: Sequence[Tensor]


class Checked(NamedTuple):
    """What came of comparing, as a line; `exact`: every tensor is there in its recorded number type."""

    note: str
    exact: bool


NO_HASHES: Final = Checked("not verified: the folder has no hashes of it", exact=False)


def hash_base(model: nn.Module, names: Collection[str], rows: Mapping[str, Sequence[int]] = NO_ROWS) -> dict[str, Hash]:
    """Hash the named parameters of a model; those on `meta` have no values and are left out.

    `rows`: parameter → the rows of it that are saved, so that they do not count.
    """
    there = [name for name, parameter in model.named_parameters() if name in names and not parameter.is_meta]
    found = {name: _source(model, name, rows.get(name)) for name in there}
    return {name: Hash(_dtype_name(found[name].tensor), sha256) for name, sha256 in _hash_all(found).items()}


def to_json(hashes: Mapping[str, Hash]) -> dict[str, dict[str, str]]:
    """Give hashes as the manifest has them: number type → name → SHA-256."""
    grouped: dict[str, dict[str, str]] = {}
    for name, known in hashes.items():
        grouped.setdefault(known.dtype, {})[name] = known.sha256
    return grouped


def from_json(grouped: Mapping[str, Mapping[str, str]]) -> dict[str, Hash]:
    """Read what `to_json` gave."""
    return {name: Hash(dtype, sha256) for dtype, hashes in grouped.items() for name, sha256 in hashes.items()}


def check_base(
    folder: Path, recorded: Mapping[str, Hash], model: nn.Module, rows: Mapping[str, Sequence[int]] = NO_ROWS
) -> Checked:
    """Hold a base to the hashes of a folder. A tensor of a wider type is rounded to the recorded type before.

    `rows`: as in `hash_base`.

    `PlanError` names what is missing or differs. A warning says how many cannot be compared: their type is narrower, or
    they are quantised in one of the two only.
    """
    import torch

    parameters = dict(model.named_parameters())
    if missing := [name for name in recorded if name not in parameters]:
        raise PlanError(f"{folder} was saved from another model: {_listed(missing, len(recorded))} are missing here")
    recorded = {name: recorded[name] for name in parameters if name in recorded}
    comparable: dict[str, Source] = {}
    for name, known in recorded.items():
        source, dtype = _source(model, name, rows.get(name)), getattr(torch, known.dtype)
        floating = source.tensor.is_floating_point() and dtype.is_floating_point
        if source.tensor.dtype == dtype or (floating and source.tensor.dtype.itemsize > dtype.itemsize):
            comparable[name] = source._replace(dtype=dtype)
    comparable = {name: source for name, source in comparable.items() if not source.tensor.is_meta}
    hashes = _hash_all(comparable)
    compare(folder, recorded, {name: Hash(recorded[name].dtype, sha256) for name, sha256 in hashes.items()})
    others = [name for name in recorded if name not in hashes]
    if not others:
        exact = all(parameters[name].dtype == source.dtype for name, source in comparable.items())
        return Checked(f"verified: {len(hashes)} tensors are those it was tuned on", exact=exact)
    first = others[0]
    note = (
        f"not verified: {_listed(others, len(recorded))}, {_dtype_name(parameters[first])} here and "
        f"{recorded[first].dtype} where it was tuned"
    )
    warnings.warn(f"{folder}: base {note}", stacklevel=3)
    return Checked(note, exact=False)


def compare(path: Path, recorded: Mapping[str, Hash], given: Mapping[str, Hash]) -> None:
    """Refuse a base whose hashes differ from those recorded in `path`; those of one side only are not compared."""
    if differing := [name for name, known in recorded.items() if given.get(name, known) != known]:
        raise PlanError(f"{path} was tuned on another base: {_listed(differing, len(recorded))} differ; load that base")


def _source(model: nn.Module, name: str, rows: Sequence[int] | None) -> Source:
    """Give what the hash of a parameter is made of: of its values those outside `rows`."""
    parameter = model.get_parameter(name)
    owner = model.get_submodule(name.rpartition(".")[0])
    values = parameter.detach()
    if rows is not None:
        values = values.clone()
        values[[*rows]] = 0
    return Source(values, None, [*_quantisation_state(owner, parameter)])


def _quantisation_state(owner: nn.Module, parameter: nn.Parameter) -> Iterator[Tensor]:
    """Give the tensors that bitsandbytes keeps beside a quantised weight, in 8 bits at the layer once it was called."""
    import torch

    state = vars(parameter).get("quant_state")
    for part in (state, getattr(state, "state2", None)):
        values = vars(part) if part is not None else {}
        yield from (values[key] for key in sorted(values) if isinstance(values[key], torch.Tensor))
    if parameter.dtype == torch.int8:
        scales = vars(parameter).get("SCB")
        scales = getattr(vars(owner).get("state"), "SCB", None) if scales is None else scales
        yield from () if scales is None else (scales,)


def _hash_all(sources: Mapping[str, Source]) -> dict[str, str]:
    """Hash tensors, large amounts with the threads that torch may use."""
    import torch

    threads = min(MAX_THREADS, torch.get_num_threads(), len(sources))
    if threads < 2 or sum(source.tensor.nbytes for source in sources.values()) < THREADS_FROM_BYTES:  # noqa: PLR2004
        return {name: _sha256(source) for name, source in sources.items()}
    with ThreadPoolExecutor(threads) as pool:
        return dict(zip(sources, pool.map(_sha256, sources.values()), strict=True))


def _sha256(source: Source) -> str:
    import torch

    digest = hashlib.sha256()
    tensor = source.tensor if source.dtype is None else source.tensor.to(source.dtype)
    for part in (tensor, *source.others):
        for plain in _plain(part):
            digest.update(plain.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _plain(tensor: Any) -> Iterator[Tensor]:
    """Give the tensors in one that is made of others (quantised by torchao, sharded), else itself without its class."""
    import torch
    from torch.utils._python_dispatch import is_traceable_wrapper_subclass

    if is_traceable_wrapper_subclass(tensor):
        names, _ = tensor.__tensor_flatten__()
        yield from (plain for name in names for plain in _plain(getattr(tensor, name)))
    else:
        with torch._C.DisableTorchFunctionSubclass():  # noqa: SLF001 - bitsandbytes' classes quantise when they are moved
            yield tensor.as_subclass(torch.Tensor)


def _dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _listed(names: Sequence[str], total: int) -> str:
    """Name a few tensors, and say how many of how many there are."""
    more = " …" if len(names) > MAX_SHOWN else ""
    return f"{len(names)} of {total} tensors ({', '.join(names[:MAX_SHOWN])}{more})"
