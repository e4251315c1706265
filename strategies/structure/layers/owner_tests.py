"""What a test in a method's source comes to, where the module whose method it is decides that alone."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any, Final

Test = Callable[[Any], "bool | None"]  # an owner → the answer; None if it alone does not decide
NO_ANSWER: Final = (AttributeError, TypeError, NameError, LookupError, RuntimeError, ValueError)


def owner_test(node: ast.expr, name: str) -> Test:
    """Make a test of an expression in which the owner has a name; its mode, `training`, is not what decides."""
    if isinstance(node, ast.BoolOp):
        parts, decides = [owner_test(part, name) for part in node.values], isinstance(node.op, ast.Or)

        def junction(owner: Any) -> bool | None:
            answers = [part(owner) for part in parts]
            return decides if decides in answers else None if None in answers else not decides

        return junction
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        negated = owner_test(node.operand, name)
        return lambda owner: None if (answer := negated(owner)) is None else not answer
    return _evaluated(node, name) if _is_fixed(node, name) else lambda _: None


def _is_fixed(node: ast.expr, name: str) -> bool:
    inner = list(ast.walk(node))
    names = {part.id for part in inner if isinstance(part, ast.Name)}
    modes = any(isinstance(part, ast.Attribute) and part.attr == "training" for part in inner)
    calls = [part.func for part in inner if isinstance(part, ast.Call)]
    return names <= {name, "hasattr"} and not modes and all(isinstance(call, ast.Name) for call in calls)


def _evaluated(node: ast.expr, name: str) -> Test:
    code = compile(ast.Expression(node), "<test>", "eval")

    def answer(owner: Any) -> bool | None:
        try:
            return bool(eval(code, {"hasattr": hasattr}, {name: owner}))  # noqa: S307 - the model's own words
        except NO_ANSWER:
            return None

    return answer
