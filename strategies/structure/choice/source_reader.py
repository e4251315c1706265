"""What a function does with the modules below its first argument: it calls them, hands them on or reads their weights.

Its source is read, not run. Chains of names from `self` are followed, also through loops, indices and other names.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType, FunctionType

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
FIXED = {"self", "hasattr"}  # the names in a test that depends on how a module was made
BINDING = (ast.Assign, ast.NamedExpr, ast.For, ast.comprehension)
CHILDREN_OF = frozenset({"values", "children", "items", "named_children"})


class Use(NamedTuple):
    """A use of a module below the owner of a function: "object" (called or handed on), or the kind of a read.

    `tests`: what the owner says to it, and what it must be for this use, as far as the owner alone decides.
    """

    path: Path
    how: str
    where: str
    tests: tuple[tuple[CodeType, bool], ...]


@cache
def uses_of(function: FunctionType) -> tuple[Use, ...]:
    """Give the uses of modules in a function; none without its source."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return ()
    return tuple(_Reader(tree, function.__code__.co_varnames[:1], function.__qualname__).uses())


class _Binding(NamedTuple):
    """What a name stands for from a place on: paths from the owner (none: something else), and in which branches."""

    place: tuple[int, int]
    paths: frozenset[Path]
    branches: frozenset[object]
    comprehension: ast.AST | None


class _Reader:
    """What a function does with the modules below its first argument."""

    def __init__(self, tree: ast.Module, first: tuple[str, ...], where: str) -> None:
        self.nodes, self.where = list(ast.walk(tree)), where
        self.parents = {child: node for node in self.nodes for child in ast.iter_child_nodes(node)}
        self.bound: dict[str, list[_Binding]] = {
            name: [_Binding((0, 0), frozenset({()}), frozenset(), None)] for name in first
        }
        self.named: set[ast.AST] = set()  # expressions that got a name, whose uses are that name's
        for node in sorted((node for node in self.nodes if isinstance(node, BINDING)), key=_place):
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
                    called = path[:-1] if path[-1:] == ("forward",) else path
                    yield Use(called, "object", self.where, self._tests(node))
                elif not self._harmless(node, path[place + 1 :]):
                    how = self._how(node, path[place + 1 :])
                    yield Use(path[:place], how, self.where, self._tests(node))

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
        if not isinstance(target, ast.Name):
            return
        paths = frozenset((*path, *step) for path in self._paths(value))
        if paths:
            self.named.add(value)
        parent = self.parents[target]
        inside = self.parents[parent] if isinstance(parent, ast.comprehension) else None
        place = _end(parent) if isinstance(parent, ast.Assign) else _place(target)
        self.bound.setdefault(target.id, []).append(_Binding(place, paths, self._branches(target), inside))

    def _branches(self, node: ast.AST) -> frozenset[object]:
        """Give the branches and loops that a node is in."""
        found: list[object] = []
        while (parent := self.parents.get(node)) is not None:
            if isinstance(parent, ast.If | ast.IfExp | ast.Try):
                found.append((parent, isinstance(parent, ast.If | ast.Try) and node in parent.body))
            elif isinstance(parent, ast.For | ast.While | ast.ListComp | ast.GeneratorExp | ast.DictComp | ast.SetComp):
                found.append(parent)
            node = parent
        return frozenset(found)

    def _standing_for(self, name: ast.Name) -> set[Path]:
        """Give what a name may stand for at its place: its last binding, and those that this may not have replaced."""
        branches, found = self._branches(name), set[Path]()
        for binding in reversed(self.bound.get(name.id, [])):
            if binding.comprehension is not None:
                if binding.comprehension in branches:
                    return set(binding.paths)
            elif binding.place <= _place(name):
                found |= binding.paths
                if binding.branches <= branches:
                    break
        return found

    def _paths(self, node: ast.AST) -> set[Path]:
        """Give the paths that an expression may stand for; none if it is no chain of names from a known one."""
        if isinstance(node, ast.Name):
            return self._standing_for(node)
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

    def _tests(self, node: ast.AST) -> tuple[tuple[CodeType, bool], ...]:
        """Give the tests around a node that ask for attributes of `self` alone, and their answers where it runs."""
        found = []
        while (parent := self.parents.get(node)) is not None:
            if isinstance(parent, ast.If | ast.IfExp) and node is not parent.test and self._is_fixed(parent.test):
                yes = node in parent.body if isinstance(parent, ast.If) else node is parent.body
                found.append((compile(ast.Expression(parent.test), self.where, "eval"), yes))
            node = parent
        return tuple(found)

    def _is_fixed(self, test: ast.expr) -> bool:
        """Say whether a test asks for attributes of `self` alone, other than the mode it is in."""
        nodes = list(ast.walk(test))
        names = {node.id for node in nodes if isinstance(node, ast.Name)}
        modes = any(isinstance(node, ast.Attribute) and node.attr == "training" for node in nodes)
        calls = [node.func for node in nodes if isinstance(node, ast.Call)]
        return names <= FIXED and not modes and all(isinstance(call, ast.Name) for call in calls)

    def _how(self, node: ast.expr, rest: Path) -> Kind:
        """Give the kind of a read."""
        in_place = any(step.endswith("_") and not step.startswith("_") for step in rest)
        if in_place or not isinstance(getattr(node, "ctx", None), ast.Load):
            return "changed"
        return "fused" if len(self._together(node)) > 1 else "elsewhere"

    def _together(self, node: ast.AST) -> set[frozenset[Path]]:
        """Give the modules whose weights are arguments of the same call, what may be one or another together."""
        child, parent = node, self.parents.get(node)
        while parent is not None and not (isinstance(parent, ast.Call) and parent.func is not child):
            child, parent = parent, self.parents.get(parent)
        weights = [n for n in ast.walk(parent) if isinstance(n, ast.Attribute) and n.attr == WEIGHT] if parent else []
        return {frozenset(paths) for weight in weights if (paths := self._paths(weight))}


def _place(node: Any) -> tuple[int, int]:
    """Give where a node begins; a comprehension's part where its name does."""
    node = node.target if isinstance(node, ast.comprehension) else node
    return (node.lineno, node.col_offset)


def _end(node: Any) -> tuple[int, int]:
    return (node.end_lineno, node.end_col_offset)
