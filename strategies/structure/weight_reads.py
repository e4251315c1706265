"""Linear layers whose weight another module's code reads, found in the source of what the model's `forward` reaches.

T5 casts to `self.wo.weight.dtype`, Mamba multiplies by `self.dt_proj.weight`: a layer put in their place is passed by,
or gives the type of its packed bytes. Such reads show nowhere but in the code, so it is parsed: chains of attributes
that start at `self` or at a local name for a part of it, and layers handed to a function. Code of torch itself is left
out (`uncalled_layers` and `disable_fast_path` know it). Where a source is missing (typed at a prompt), every layer that
code with `weight` in it mentions is taken for read.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from functools import cache
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from strategies.structure.linear_layers import is_conv1d

if TYPE_CHECKING:
    from torch import nn

    Path = tuple[str, ...]  # attributes from a module down; ANY stands for each child

How = Literal["type", "shape", "value", "handed over"]
ANY = "*"
# What reads of a weight tell nothing that a quantised or adapted layer would change.
HARMLESS = frozenset({"device", "is_cuda", "is_meta", "requires_grad", "grad", "ndim", "_is_hf_initialized"})
KINDS: Mapping[str, How] = {"dtype": "type", "itemsize": "type", "shape": "shape", "size": "shape", "numel": "shape"}
LOOKERS = frozenset({"isinstance", "hasattr", "id", "type", "len", "print", "getattr", "enumerate", "zip", "list"})
GOING_THROUGH = frozenset({"enumerate", "zip", "reversed", "list", "items", "values", "children", "named_children"})
FOREIGN = ("torch.", "peft.", "bitsandbytes.", "torchao.", "transformers.modeling_utils")


class Read(NamedTuple):
    """A weight that is read: by the code of which class, and what for."""

    reader: str
    how: How


def weight_reads(model: nn.Module) -> dict[str, Read]:
    """Give linear layer → how its weight is read by code that a forward pass of `model` may reach."""
    from torch import nn

    classes = {type(module) for module in model.modules()}
    methods = _reachable(classes)
    places = {id(module): name for name, module in model.named_modules()}
    found: dict[str, Read] = {}
    for module in model.modules():
        for path, how in (read for method in methods.get(type(module), ()) for read in _reads(method)):
            for layer in _resolve(module, path):
                target = _first_owner(layer) if path[-1] == "parameters()" else layer
                if isinstance(target, nn.Linear) or is_conv1d(target):
                    found.setdefault(places[id(target)], Read(type(module).__name__, how))
    return found


def _reachable(classes: set[type]) -> dict[type, list[FunctionType]]:
    """Give class → those of its methods that `forward` may reach, going by the names that code mentions."""
    methods = {kind: _methods(kind) for kind in classes}
    names, reached = {"forward"}, dict[FunctionType, None]()
    while new := [f for own in methods.values() for name, f in own.items() if name in names and f not in reached]:
        for function in new:
            reached[function] = None
            names |= set(_names(function.__code__))
    return {kind: [f for f in own.values() if f in reached] for kind, own in methods.items()}


def _methods(kind: type) -> dict[str, FunctionType]:
    """Give the methods and properties of a module's class, those of torch and of other foreign bases left out."""
    found: dict[str, FunctionType] = {}
    for base in reversed(kind.__mro__):
        if f"{base.__module__}.".startswith(FOREIGN) or base is object:
            continue
        for name, member in vars(base).items():
            function = inspect.unwrap(getattr(member, "fget", None) or getattr(member, "__func__", member))
            if isinstance(function, FunctionType):
                found[name] = function
    return found


def _names(code: CodeType) -> Iterator[str]:
    """Give the names that code mentions, inner functions included."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


@cache
def _reads(method: FunctionType) -> tuple[tuple[Path, How], ...]:
    """Give the paths below `self` whose weight a method reads."""
    code = method.__code__
    if not code.co_varnames:
        return ()
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(method)))
    except (OSError, TypeError, SyntaxError):
        names = tuple(_names(code))
        return tuple(((name,), "value") for name in names) if "weight" in names else ()
    return tuple(_Reader(tree, code.co_varnames[0]).reads())


class _Reader:
    """The reads of one method's syntax tree."""

    def __init__(self, tree: ast.Module, owner: str) -> None:
        self.nodes = list(ast.walk(tree))
        self.parents = {child: node for node in self.nodes for child in ast.iter_child_nodes(node)}
        self.known: dict[str, set[Path]] = {owner: {()}}
        bindings = list(self._bindings())
        for _ in range(2):  # a name may stand for a part of what another, bound further down, stands for
            for name, value, each in bindings:
                self.known.setdefault(name, set()).update(
                    (*path, ANY) if each else path for path in self._stands_for(value)
                )

    def reads(self) -> Iterator[tuple[Path, How]]:
        """Give path and kind for each."""
        for node in self.nodes:
            if isinstance(node, ast.Attribute) and node.attr == "weight" and isinstance(node.ctx, ast.Load):
                how = self._how(node)
                yield from ((path, how) for path in self.paths(node.value) if how)
            elif isinstance(node, ast.Call):
                yield from self._handed_over(node)

    def paths(self, node: ast.AST) -> set[Path]:
        """Give what an expression may stand for, as paths below `self`; empty for what is no part of it."""
        if isinstance(node, ast.Name):
            return set(self.known.get(node.id, ()))
        if isinstance(node, ast.Attribute):
            return {(*path, node.attr) for path in self.paths(node.value)}
        if isinstance(node, ast.Subscript):
            index = node.slice.value if isinstance(node.slice, ast.Constant) else ANY
            child = str(index) if isinstance(index, str) or (isinstance(index, int) and index >= 0) else ANY
            return {(*path, child) for path in self.paths(node.value)}
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
            name = node.args[1].value if isinstance(node.args[1], ast.Constant) else ANY
            return {(*path, str(name)) for path in self.paths(node.args[0])}
        if isinstance(node, ast.IfExp):
            return self.paths(node.body) | self.paths(node.orelse)
        return set()

    def _bindings(self) -> Iterator[tuple[str, ast.AST, bool]]:
        """Give name, what it is bound to, and whether to each part of that in turn."""
        for node in self.nodes:
            if isinstance(node, ast.Assign):
                pairs = [(target, node.value, False) for target in node.targets]
            elif isinstance(node, ast.NamedExpr | ast.AnnAssign) and node.value is not None:
                pairs = [(node.target, node.value, False)]
            elif isinstance(node, ast.For | ast.comprehension):
                pairs = [(node.target, node.iter, True)]
            else:
                continue
            for target, value, each in pairs:
                yield from ((name.id, value, each) for name in ast.walk(target) if isinstance(name, ast.Name))

    def _stands_for(self, value: ast.AST) -> set[Path]:
        """Give the paths of a value, of the parts of a tuple, and of what `enumerate`, `zip` and slices go through."""
        if isinstance(value, ast.Tuple | ast.List):
            return {path for part in value.elts for path in self.paths(part)}
        if isinstance(value, ast.Subscript) and isinstance(value.slice, ast.Slice):
            return self.paths(value.value)
        if isinstance(value, ast.Call) and _called(value) in GOING_THROUGH:
            inner = [*value.args, *([value.func.value] if isinstance(value.func, ast.Attribute) else [])]
            return {path for part in inner for path in self._stands_for(part)}
        return self.paths(value)

    def _how(self, weight: ast.Attribute) -> How | None:
        """Say what a weight is read for; `None` where it does not matter."""
        outer = self.parents.get(weight)
        if isinstance(outer, ast.Attribute):
            return None if outer.attr in HARMLESS else KINDS.get(outer.attr, "value")
        compared_with_none = isinstance(outer, ast.Compare) and isinstance(outer.ops[0], ast.Is | ast.IsNot)
        looked_at = isinstance(outer, ast.Call) and _called(outer) in LOOKERS
        return None if compared_with_none or looked_at else "value"

    def _handed_over(self, call: ast.Call) -> Iterator[tuple[Path, How]]:
        """Give layers among a call's arguments, and `layer.parameters()`."""
        name = _called(call)
        if name == "parameters" and isinstance(call.func, ast.Attribute):
            yield from (((*path, "parameters()"), "type") for path in self.paths(call.func.value))
        elif name not in LOOKERS and "checkpoint" not in name:
            arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
            yield from ((path, "handed over") for argument in arguments for path in self.paths(argument) if path)


def _called(call: ast.Call) -> str:
    """Give the last name of what is called."""
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _resolve(module: nn.Module, path: Path) -> list[nn.Module]:
    """Give the modules at the end of a path."""
    found: list[Any] = [module]
    for step in path:
        if step == "parameters()":
            break
        parts = [vars(part)["_modules"] for part in found]
        found = [
            child
            for children in parts
            for child in (children.values() if step == ANY else [children.get(step)])
            if child is not None
        ]
    return found


def _first_owner(module: nn.Module) -> nn.Module:
    """Give the module that holds the first parameter, whose type stands for all of them in `next(parameters())`."""
    return next((part for part in module.modules() if any(True for _ in part.parameters(recurse=False))), module)
