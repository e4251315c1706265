"""Layers whose weight other code reads instead of calling the layer: an adapter around them is passed over.

A model's code says so (`self.dt_proj.weight @ x`), so the functions that `forward` reaches are read, class by class.
What is asked of a weight besides its values (its type, shape or device) does no harm. Code without source, or which
reads weights in ways that a look at it does not show, is left to the check of the first step.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType, FunctionType

    from torch import nn

Path = tuple[str, ...]  # names from a module down; "*" stands for each child
Kind = Literal["uncalled", "changed", "fused", "elsewhere"]
EACH = "*"
WEIGHT = "weight"
# What may be asked of a weight without its values.
HARMLESS = frozenset(
    {
        "data_ptr", "device", "dim", "dtype", "element_size", "grad", "is_contiguous", "is_cuda", "is_floating_point",
        "is_meta", "layout", "ndim", "nelement", "numel", "quant_state", "requires_grad", "requires_grad_", "shape",
        "size", "stride", "CB", "SCB",
    }
)  # fmt: skip
HARMLESS_CALLS = frozenset({"isinstance", "hasattr", "type", "id", "print"})
CHILDREN_OF = frozenset({"values", "children", "items", "named_children"})
GUARDED_MODULE = "torch.nn.modules.transformer"  # its fast paths read weights, and `disable_fast_path` turns them off
WORST_FIRST: tuple[Kind, ...] = ("changed", "fused", "elsewhere")


class Read(NamedTuple):
    """How a layer's weight is read or changed, and by which function.

    "uncalled": it is read, and the layer is called nowhere; "changed": in place; "fused": one call takes it with other
    layers' weights, as kernels do that compute them together; "elsewhere": beside places that call the layer.
    """

    kind: Kind
    where: str


class Use(NamedTuple):
    """A use of a module below the owner of a function: "object" (called or handed on), or the kind of a read."""

    path: Path
    how: str
    where: str


def direct_reads(model: nn.Module) -> dict[str, Read]:
    """Give name → how its weight is read, for every module below a model whose weight its code reads directly."""
    owners = list(model.named_modules())
    names = {id(module): name for name, module in owners}
    reads: dict[int, Read] = {}
    for _, owner in owners:
        for use in _uses(cast("Any", type(owner)), WEIGHT):
            kind = cast("Kind", use.how)
            for part in _resolve(owner, use.path) if use.how != "object" else ():
                known = reads.get(id(part))
                if known is None or WORST_FIRST.index(kind) < WORST_FIRST.index(known.kind):
                    reads[id(part)] = Read(kind, use.where)
    called = _called(owners, {_word(names[part]) for part in reads})
    return {
        names[part]: read if part in called or read.kind == "changed" else Read("uncalled", read.where)
        for part, read in reads.items()
    }


def _word(name: str) -> str:
    """Give the last part of a name that is a word, which code that uses the module names."""
    return next((part for part in reversed(name.split(".")) if not part.isdigit()), "")


def _called(owners: list[tuple[str, nn.Module]], words: set[str]) -> set[int]:
    """Give the ids of modules that are called or handed on by functions which name one of `words`."""
    from torch import nn

    found: set[int] = set()
    for _, owner in owners:
        for use in (use for word in words for use in _uses(cast("Any", type(owner)), word) if use.how == "object"):
            for part in _resolve(owner, use.path):
                found.add(id(part))
                if isinstance(part, nn.Sequential):
                    found.update(map(id, part))
    return found


def _resolve(owner: nn.Module, path: Path) -> Iterator[nn.Module]:
    """Give the modules that a path from `owner` leads to; none where it leads to something else."""
    if not path:
        yield owner
        return
    for name, child in owner.named_children():
        if path[0] in (EACH, name):
            yield from _resolve(child, path[1:])


@cache
def _uses(kind: Any, word: str) -> tuple[Use, ...]:
    """Give the uses of modules in those functions of a class that name `word`."""
    return tuple(use for function in _reached(kind) if word in _names(function.__code__) for use in _read(function))


@cache
def _reached(kind: Any) -> tuple[FunctionType, ...]:
    """Give the functions of a class that its `forward` leads to."""
    queue: list[str] = ["forward"]
    reached: dict[str, FunctionType] = {}
    while queue:
        name = queue.pop()
        function = None if name in reached else _function(kind, name)
        if function is not None and function.__module__ != GUARDED_MODULE:
            reached[name] = function
            queue += _names(function.__code__)
    return tuple(reached.values())


def _function(kind: type, name: str) -> FunctionType | None:
    """Give a class's own function or property of that name, without its decorators; none of `nn.Module`'s."""
    from torch import nn

    found = inspect.getattr_static(kind, name, None)
    if found is None or vars(nn.Module).get(name) is found:
        return None
    found = getattr(found, "fget", getattr(found, "__func__", found))
    found = inspect.unwrap(found) if callable(found) else None
    return found if inspect.isfunction(found) else None


def _names(code: CodeType) -> frozenset[str]:
    """Give the names that a function and those within it use."""
    inner = (part for part in code.co_consts if inspect.iscode(part))
    return frozenset(code.co_names).union(*map(_names, inner))


@cache
def _read(function: FunctionType) -> tuple[Use, ...]:
    """Give the uses of modules in a function; none without its source."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return ()
    return tuple(_Reader(tree, function.__code__.co_varnames[:1], function.__qualname__).uses())


class _Reader:
    """What a function does with the modules below its first argument."""

    def __init__(self, tree: ast.Module, first: tuple[str, ...], where: str) -> None:
        self.nodes, self.where = list(ast.walk(tree)), where
        self.parents = {child: node for node in self.nodes for child in ast.iter_child_nodes(node)}
        self.known: dict[str, set[Path]] = {name: {()} for name in first}
        self.named: set[ast.AST] = set()  # expressions that got a name, whose uses are that name's
        for _ in range(2):  # names made of names
            for node in self.nodes:
                self._note(node)

    def uses(self) -> Iterator[Use]:
        """Give what is done with each module."""
        for node in self.nodes:
            if not isinstance(node, ast.Attribute | ast.Subscript | ast.Name) or node in self.named:
                continue
            if self._goes_on(node) or (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)):
                continue
            for path in self._paths(node):
                place = path.index(WEIGHT, 1) if WEIGHT in path[1:] else 0
                if not place:
                    yield Use(path[:-1] if path[-1:] == ("forward",) else path, "object", self.where)
                elif not self._harmless(node, path[place + 1 :]):
                    yield Use(path[:place], self._how(node, path[place + 1 :]), self.where)

    def _note(self, node: ast.AST) -> None:
        """Remember what a name stands for."""
        if isinstance(node, ast.Assign):
            for target in node.targets:
                self._bind(target, node.value)
        elif isinstance(node, ast.NamedExpr):
            self._bind(node.target, node.value)
        elif isinstance(node, ast.For | ast.comprehension):
            self._loop(node.target, node.iter)

    def _loop(self, target: ast.expr, over: ast.expr) -> None:
        """Remember what the names of a loop stand for."""
        if isinstance(over, ast.List | ast.Tuple):
            for part in over.elts:
                self._bind(target, part)
            return
        if isinstance(over, ast.Call):
            parts = target.elts if isinstance(target, ast.Tuple) else [target]
            if isinstance(over.func, ast.Name) and over.func.id == "zip":
                for part, source in zip(parts, over.args, strict=False):
                    self._loop(part, source)
                return
            if isinstance(over.func, ast.Name) and over.func.id == "enumerate" and over.args:
                self._loop(parts[-1], over.args[0])
                return
            if isinstance(over.func, ast.Attribute) and over.func.attr in CHILDREN_OF:
                target, over = parts[-1], over.func.value
        self._bind(target, over, EACH)

    def _bind(self, target: ast.expr, value: ast.expr, *step: str) -> None:
        paths = self._paths(value)
        if isinstance(target, ast.Name) and paths:
            self.known.setdefault(target.id, set()).update((*path, *step) for path in paths)
            self.named.add(value)

    def _paths(self, node: ast.AST) -> set[Path]:
        """Give the paths that an expression may stand for; none if it is no chain of names from a known one."""
        if isinstance(node, ast.Name):
            return self.known.get(node.id, set())
        if isinstance(node, ast.Attribute):
            return {(*path, node.attr) for path in self._paths(node.value)}
        if isinstance(node, ast.Subscript):
            step = str(node.slice.value) if isinstance(node.slice, ast.Constant) else EACH
            return {(*path, step) for path in self._paths(node.value)}
        return set()

    def _goes_on(self, node: ast.AST) -> bool:
        """Say whether a chain goes on, as `self.a` does in `self.a.weight`."""
        parent = self.parents.get(node)
        return isinstance(parent, ast.Attribute | ast.Subscript) and parent.value is node

    def _harmless(self, node: ast.AST, rest: Path) -> bool:
        """Say whether a weight's values do not matter there."""
        parent = self.parents.get(node)
        if isinstance(parent, ast.Call) and isinstance(parent.func, ast.Name) and parent.func.id in HARMLESS_CALLS:
            return True
        compared = isinstance(parent, ast.Compare) and all(isinstance(sign, ast.Is | ast.IsNot) for sign in parent.ops)
        return compared or not HARMLESS.isdisjoint(rest[:1])

    def _how(self, node: ast.expr, rest: Path) -> Kind:
        """Give the kind of a read."""
        in_place = any(step.endswith("_") and not step.startswith("_") for step in rest)
        if in_place or not isinstance(getattr(node, "ctx", None), ast.Load):
            return "changed"
        return "fused" if len(self._together(node)) > 1 else "elsewhere"

    def _together(self, node: ast.AST) -> set[Path]:
        """Give the modules whose weights are arguments of the same call."""
        child, parent = node, self.parents.get(node)
        while parent is not None and not (isinstance(parent, ast.Call) and parent.func is not child):
            child, parent = parent, self.parents.get(parent)
        weights = [n for n in ast.walk(parent) if isinstance(n, ast.Attribute) and n.attr == WEIGHT] if parent else []
        return {path[:-1] for weight in weights for path in self._paths(weight)}
