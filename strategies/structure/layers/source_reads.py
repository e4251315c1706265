"""The source of a method, searched for weights of other layers that it reads: see `weight_reads.py`.

Found are chains of attributes that start at the method's first argument, or at a local name for a part of it, and end
in `.weight`; layers handed to a function; and `next(layer.parameters())`. Each read has the conditions it stands under.
"""

from __future__ import annotations

import ast
import inspect
import operator
import textwrap
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from types import CodeType, FunctionType
from typing import Any, Final, Literal, NamedTuple

How = Literal["type", "shape", "value", "handed over"]
Path = tuple[str, ...]  # attributes from a module down; ANY stands for each child
ANY: Final = "*"
PARAMETERS: Final = "parameters()"  # at the end of a path: the first parameter of what is there
# What reads of a weight tell nothing that a quantised layer would change.
HARMLESS: Final = frozenset({"device", "is_cuda", "is_meta", "requires_grad", "grad", "ndim", "_is_hf_initialized"})
KINDS: Final[Mapping[str, How]] = {
    "dtype": "type", "itemsize": "type", "shape": "shape", "size": "shape", "numel": "shape",
}  # fmt: skip
LOOKERS: Final = frozenset({"isinstance", "hasattr", "id", "type", "len", "print", "getattr", "enumerate", "zip"})
GOING_THROUGH: Final = frozenset(
    {"enumerate", "zip", "reversed", "list", "items", "values", "children", "named_children"}
)
COMPARISONS: Final[Mapping[type, Callable[[Any, Any], Any]]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.Is: operator.is_, ast.IsNot: operator.is_not,
}  # fmt: skip
UNKNOWN: Final = object()


class Condition(NamedTuple):
    """An `if` that a read stands under: its test, with the name of the method's first argument, and its branch."""

    test: ast.expr
    owner: str
    branch: bool

    def may_hold(self, owner: Any) -> bool:
        """Say whether this branch may be taken where `owner` is the first argument; what changes counts as unknown."""
        value = _value(self.test, self.owner, owner)
        return value is UNKNOWN or bool(value) is self.branch


class SourceRead(NamedTuple):
    """A read: the path to what is read, what for, and under which conditions."""

    path: Path
    how: How
    conditions: tuple[Condition, ...] = ()


def names_in(code: CodeType) -> Iterator[str]:
    """Give the names that code mentions, inner functions included."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from names_in(constant)


@cache
def source_reads(method: FunctionType) -> tuple[SourceRead, ...]:
    """Give what a method reads; without its source, every attribute that code with `weight` in it mentions."""
    code = method.__code__
    if not code.co_varnames:
        return ()
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(method)))
    except (OSError, TypeError, SyntaxError):
        names = tuple(names_in(code))
        return tuple(SourceRead((name,), "value") for name in names) if "weight" in names else ()
    return tuple(_Reader(tree, code.co_varnames[0]).reads())


class _Reader:
    """The reads of one method's syntax tree."""

    def __init__(self, tree: ast.Module, owner: str) -> None:
        self.owner = owner
        self.nodes = list(ast.walk(tree))
        self.parents = {child: node for node in self.nodes for child in ast.iter_child_nodes(node)}
        self.known: dict[str, set[Path]] = {owner: {()}}
        bindings = list(self._bindings())
        for _ in range(2):  # a name may stand for a part of what another, bound further down, stands for
            for name, value, each in bindings:
                paths = self._stands_for(value)
                self.known.setdefault(name, set()).update((*path, ANY) if each else path for path in paths)

    def reads(self) -> Iterator[SourceRead]:
        """Give each read."""
        for node in self.nodes:
            found: list[tuple[Path, How]] = []
            if isinstance(node, ast.Attribute) and node.attr == "weight" and isinstance(node.ctx, ast.Load):
                how = self._how(node)
                found = [(path, how) for path in self._paths(node.value) if how and path]
            elif isinstance(node, ast.Call):
                found = list(self._handed_over(node))
            if found:
                conditions = tuple(self._conditions(node))
                yield from (SourceRead(path, how, conditions) for path, how in found)

    def _paths(self, node: ast.AST) -> set[Path]:
        """Give what an expression may stand for, as paths from the owner; empty for what is no part of it."""
        if isinstance(node, ast.Name):
            return set(self.known.get(node.id, ()))
        if isinstance(node, ast.Attribute):
            return {(*path, node.attr) for path in self._paths(node.value)}
        if isinstance(node, ast.Subscript):
            index = node.slice.value if isinstance(node.slice, ast.Constant) else ANY
            known = isinstance(index, str) or (isinstance(index, int) and index >= 0)
            return {(*path, str(index) if known else ANY) for path in self._paths(node.value)}
        if isinstance(node, ast.Call) and _called(node) == "getattr":
            name = node.args[1].value if isinstance(node.args[1], ast.Constant) else ANY
            return {(*path, str(name)) for path in self._paths(node.args[0])}
        return self._paths(node.body) | self._paths(node.orelse) if isinstance(node, ast.IfExp) else set()

    def _bindings(self) -> Iterator[tuple[str, ast.AST, bool]]:
        """Give name, what it is bound to, and whether to each part of that in turn."""
        for node in self.nodes:
            targets: list[ast.expr] = []
            value: ast.AST | None = None
            if isinstance(node, ast.Assign):
                targets, value = node.targets, node.value
            elif isinstance(node, ast.NamedExpr | ast.AnnAssign):
                targets, value = [node.target], node.value
            elif isinstance(node, ast.For | ast.comprehension):
                targets, value = [node.target], node.iter
            for name in (part for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)):
                if value is not None:
                    yield name.id, value, isinstance(node, ast.For | ast.comprehension)

    def _stands_for(self, value: ast.AST) -> set[Path]:
        """Give the paths of a value, of the parts of a tuple, and of what `enumerate`, `zip` and slices go through."""
        if isinstance(value, ast.Tuple | ast.List):
            return {path for part in value.elts for path in self._paths(part)}
        if isinstance(value, ast.Subscript) and isinstance(value.slice, ast.Slice):
            return self._paths(value.value)
        if isinstance(value, ast.Call) and _called(value) in GOING_THROUGH:
            inner = [*value.args, *([value.func.value] if isinstance(value.func, ast.Attribute) else [])]
            return {path for part in inner for path in self._stands_for(part)}
        return self._paths(value)

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
            yield from (((*path, PARAMETERS), "type") for path in self._paths(call.func.value))
        elif name not in LOOKERS and "checkpoint" not in name:
            arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
            yield from ((path, "handed over") for argument in arguments for path in self._paths(argument) if path)

    def _conditions(self, node: ast.AST) -> Iterator[Condition]:
        """Give the conditions around a node, innermost first."""
        child, outer = node, self.parents.get(node)
        while outer is not None:
            if isinstance(outer, ast.If | ast.IfExp) and child is not outer.test:
                body = outer.body if isinstance(outer.body, list) else [outer.body]
                yield Condition(outer.test, self.owner, any(part is child for part in body))
            child, outer = outer, self.parents.get(outer)


def _called(call: ast.Call) -> str:
    """Give the last name of what is called."""
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _value(node: ast.expr, name: str, owner: Any) -> Any:
    """Give the value of an expression made of the owner's attributes and constants; `UNKNOWN` for any other."""
    evaluate = EVALUATED.get(type(node))
    return UNKNOWN if evaluate is None else evaluate(node, lambda part: _value(part, name, owner), name, owner)


def _attribute(node: ast.Attribute, value: Callable[[ast.expr], Any], *_: Any) -> Any:
    base = value(node.value)
    return UNKNOWN if base is UNKNOWN or node.attr == "training" else getattr(base, node.attr, UNKNOWN)


def _negation(node: ast.UnaryOp, value: Callable[[ast.expr], Any], *_: Any) -> Any:
    inner = value(node.operand) if isinstance(node.op, ast.Not) else UNKNOWN
    return UNKNOWN if inner is UNKNOWN else not inner


def _junction(node: ast.BoolOp, value: Callable[[ast.expr], Any], *_: Any) -> Any:
    values = [value(part) for part in node.values]
    decides = isinstance(node.op, ast.Or)  # one true part makes an `or` true, one false part an `and` false
    if any(part is not UNKNOWN and bool(part) is decides for part in values):
        return decides
    return UNKNOWN if any(part is UNKNOWN for part in values) else not decides


def _comparison(node: ast.Compare, value: Callable[[ast.expr], Any], *_: Any) -> Any:
    compare = COMPARISONS.get(type(node.ops[0])) if len(node.ops) == 1 else None
    sides = value(node.left), value(node.comparators[0])
    known = compare is not None and sides[0] is not UNKNOWN and sides[1] is not UNKNOWN
    return compare(*sides) if compare is not None and known else UNKNOWN


EVALUATED: Final[Mapping[type, Callable[..., Any]]] = {
    ast.Constant: lambda node, *_: node.value,
    ast.Name: lambda node, _, name, owner: owner if node.id == name else UNKNOWN,
    ast.Attribute: _attribute,
    ast.UnaryOp: _negation,
    ast.BoolOp: _junction,
    ast.Compare: _comparison,
}
