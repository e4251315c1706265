"""What a method does with the modules below its first argument: it calls them, hands them on, asks for attributes.

Its source is read, not run. Chains of names from `self` are followed through loops, indices, `getattr` and other names,
each by where it was bound last and in which branch.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from types import CodeType
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from strategies.structure.layers.owner_tests import owner_test

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FunctionType

    from strategies.structure.layers.owner_tests import Test

Path = tuple[str, ...]  # names from a module down; EACH stands for each child
How = Literal["called", "handed on", "looked at", "stored", "together", "read", "unknown"]
EACH: Final = "*"
WEIGHT: Final = "weight"
PARAMETERS: Final = "parameters"
ASKED: Final = frozenset({WEIGHT, PARAMETERS, "forward", "__call__"})  # names that end a path
LOOKERS: Final = frozenset({"isinstance", "hasattr", "type", "id", "print", "len"})
THROUGH: Final = frozenset({"reversed", "list", "tuple", "iter"})  # the same modules, in some order
CHILDREN_OF: Final = frozenset({"values", "children", "items", "named_children"})
LOOPS: Final = (ast.For, ast.While, ast.ListComp, ast.GeneratorExp, ast.DictComp, ast.SetComp)


class Use(NamedTuple):
    """What a method does with what `path` leads to from its owner, or with what it asks of that.

    `self.fc.weight.dtype`: the path `("fc",)`, asked `("weight", "dtype")`. "together": one call takes several weights.
    "unknown": there is no source. `tests`: what the owner is asked first, and the answer that leads here.
    """

    path: Path
    asked: Path
    how: How
    where: str
    tests: tuple[tuple[Test, bool], ...] = ()

    def may_happen(self, owner: Any) -> bool:
        """Say whether an owner's attributes allow it, as they are now."""
        return all(test(owner) in {wanted, None} for test, wanted in self.tests)


def uses_of(method: FunctionType) -> tuple[Use, ...]:
    """Give the uses of modules in a method; without its source the names in it."""
    code, where = method.__code__, method.__qualname__
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(method)))
    except (OSError, TypeError, SyntaxError):
        return tuple(Use((name,), (), "unknown", where) for name in sorted(names_in(code)))
    return tuple(_Reader(tree, code.co_varnames[0], where).uses()) if code.co_argcount else ()


def names_in(code: CodeType) -> frozenset[str]:
    """Give the names that code mentions, as text too (`getattr(self, "proj")`), functions within it included."""
    words = (part for part in code.co_consts if isinstance(part, str) and part.isidentifier())
    return frozenset(code.co_names).union(words, *(names_in(p) for p in code.co_consts if isinstance(p, CodeType)))


class _Binding(NamedTuple):
    """What a name stands for from a place on: paths from the owner (none: something else), and in which branches."""

    place: tuple[int, int]
    paths: frozenset[Path]
    branches: frozenset[object]
    comprehension: ast.AST | None


class _Reader:
    """What a method does with the modules below its first argument, the owner."""

    def __init__(self, tree: ast.Module, owner: str, where: str) -> None:
        self.nodes, self.owner, self.where = list(ast.walk(tree)), owner, where
        self.parents = {child: node for node in self.nodes for child in ast.iter_child_nodes(node)}
        self.bound = {owner: [_Binding((0, 0), frozenset({()}), frozenset(), None)]}
        self.named: set[ast.AST] = set()  # expressions that got a name, whose uses are that name's
        binding = (ast.Assign, ast.AnnAssign, ast.NamedExpr, ast.For, ast.comprehension)
        for node in sorted((node for node in self.nodes if isinstance(node, binding)), key=_place):
            self._note(node)

    def uses(self) -> Iterator[Use]:
        """Give what is done with the end of each chain."""
        for node in self.nodes:
            bound_here = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
            if node not in self.named and not bound_here and not self._goes_on(node):
                tests = None
                for chain in self._paths(node):
                    end = next((place for place, name in enumerate(chain) if place and name in ASKED), len(chain))
                    tests = tuple(self._tests(node)) if tests is None else tests
                    yield Use(chain[:end], chain[end:], self._how(node, chain[end:]), self.where, tests)

    def _note(self, node: ast.AST) -> None:
        """Remember what names stand for from a node on."""
        if isinstance(node, ast.Assign):
            for target in node.targets:
                self._bind(target, [node.value])
        elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and node.value is not None:
            self._bind(node.target, [node.value])
        elif isinstance(node, ast.For | ast.comprehension):
            self._loop(node.target, node.iter)

    def _loop(self, target: ast.expr, over: ast.expr) -> None:
        """Remember what the names of a loop stand for."""
        name, parts = _called(over), target.elts if isinstance(target, ast.Tuple) else [target]
        if isinstance(over, ast.List | ast.Tuple):
            self._bind(target, over.elts)
        elif isinstance(over, ast.Call) and name == "zip":
            for part, source in zip(parts, over.args, strict=False):
                self._loop(part, source)
        elif isinstance(over, ast.Call) and over.args and name in {"enumerate", *THROUGH}:
            self._loop(parts[-1] if name == "enumerate" else target, over.args[0])
        elif isinstance(over, ast.Call) and isinstance(over.func, ast.Attribute) and name in CHILDREN_OF:
            self._bind(parts[-1], [over.func.value], EACH)
        else:
            self._bind(target, [over], EACH)

    def _bind(self, target: ast.expr, values: Sequence[ast.expr], *step: str) -> None:
        """Remember that a target is one of `values`, or (with a step) of what is in them."""
        if isinstance(target, ast.Tuple | ast.List):
            rows = [value.elts for value in values if isinstance(value, ast.Tuple | ast.List)]
            apart = len(rows) == len(values) and all(len(row) == len(target.elts) for row in rows)
            for place, part in enumerate(target.elts):
                self._bind(part, [row[place] for row in rows] if apart else values, *step, *([] if apart else [EACH]))
        elif isinstance(target, ast.Name):
            ends = {end: self._paths(end) for value in values for end in _ends(value)}
            self.named.update(end for end, paths in ends.items() if paths)
            paths = frozenset((*path, *step) for found in ends.values() for path in found)
            statement: Any = target
            while isinstance(statement, ast.Name | ast.Tuple | ast.List):
                statement = self.parents[statement]
            inside = self.parents[statement] if isinstance(statement, ast.comprehension) else None
            whole = isinstance(statement, ast.Assign | ast.AnnAssign)
            start = (statement.end_lineno, statement.end_col_offset) if whole else _place(target)
            self.bound.setdefault(target.id, []).append(_Binding(start, paths, self._branches(target), inside))

    def _branches(self, node: ast.AST) -> frozenset[object]:
        """Give the branches and loops that a node is in."""
        found: list[object] = []
        for child, parent in self._around(node):
            if isinstance(parent, ast.If | ast.IfExp | ast.Try):
                found.append((parent, isinstance(parent, ast.If | ast.Try) and child in parent.body))
            elif isinstance(parent, LOOPS):
                found.append(parent)
        return frozenset(found)

    def _around(self, node: ast.AST) -> Iterator[tuple[Any, ast.AST]]:
        """Give each node on the way out, behind the one within it."""
        while (parent := self.parents.get(node)) is not None:
            yield node, parent
            node = parent

    def _standing_for(self, name: ast.Name) -> set[Path]:
        """Give what a name may stand for at its place: its last binding, and those that this may not have replaced."""
        if name.id not in self.bound:
            return set()
        branches, found = self._branches(name), set[Path]()
        for binding in reversed(self.bound[name.id]):
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
        step: tuple[str, ...] = ()
        if isinstance(node, ast.Name):
            return self._standing_for(node)
        if isinstance(node, ast.Attribute):
            base, step = node.value, (node.attr,)
        elif isinstance(node, ast.Subscript):
            base = node.value
            if not isinstance(node.slice, ast.Slice):
                step = (str(node.slice.value) if isinstance(node.slice, ast.Constant) else EACH,)
        elif isinstance(node, ast.Call) and _called(node) == "getattr" and len(node.args) > 1:
            base, step = node.args[0], (str(node.args[1].value) if isinstance(node.args[1], ast.Constant) else EACH,)
        else:
            return set()
        return {(*path, *step) for path in self._paths(base)}

    def _goes_on(self, node: ast.AST) -> bool:
        """Say whether a chain goes on, as `self.a` does in `self.a.weight`."""
        parent = self.parents.get(node)
        if isinstance(parent, ast.Call):
            return node in parent.args[:1] and _called(parent) == "getattr"
        return isinstance(parent, ast.Attribute | ast.Subscript) and parent.value is node

    def _tests(self, node: ast.AST) -> Iterator[tuple[Test, bool]]:
        """Give the tests around a node, and their answers where it runs."""
        for child, parent in self._around(node):
            if isinstance(parent, ast.If | ast.IfExp) and child is not parent.test:
                yes = child in parent.body if isinstance(parent, ast.If) else child is parent.body
                yield owner_test(parent.test, self.owner), yes

    def _how(self, node: ast.AST, asked: Path) -> How:
        """Say what is done with the end of a chain."""
        parent = self.parents.get(node)
        parent = self.parents.get(parent) if isinstance(parent, ast.keyword) else parent
        compared = isinstance(parent, ast.Compare) and all(isinstance(sign, ast.Is | ast.IsNot) for sign in parent.ops)
        how: How = "read"
        if isinstance(getattr(node, "ctx", None), ast.Store | ast.Del):
            how = "stored"
        elif compared or (isinstance(parent, ast.Call) and parent.func is not node and _called(parent) in LOOKERS):
            how = "looked at"
        elif WEIGHT in asked:
            how = "together" if len(self._weights_beside(node)) > 1 else "read"
        elif isinstance(parent, ast.Call):
            how = "called" if parent.func is node else "handed on"
            how = "called" if "checkpoint" in _called(parent) else how  # which calls what it is given
        return how

    def _weights_beside(self, node: ast.AST) -> set[frozenset[Path]]:
        """Give the modules whose weights are arguments of the same call, what may be one or another together."""
        calls = (call for child, call in self._around(node) if isinstance(call, ast.Call) and call.func is not child)
        call = next(calls, None)
        weights = [n for n in ast.walk(call) if isinstance(n, ast.Attribute) and n.attr == WEIGHT] if call else []
        return {frozenset(paths) for weight in weights if (paths := self._paths(weight))}


def _ends(value: ast.expr) -> Iterator[ast.expr]:
    """Give the expressions that a value may be."""
    if isinstance(value, ast.IfExp):
        yield from _ends(value.body)
        yield from _ends(value.orelse)
    else:
        yield value


def _called(node: ast.AST) -> str:
    """Give the last name of what is called."""
    function = node.func if isinstance(node, ast.Call) else None
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _place(node: Any) -> tuple[int, int]:
    """Give where a node begins; a comprehension's part where its name does."""
    node = node.target if isinstance(node, ast.comprehension) else node
    return (node.lineno, node.col_offset)
