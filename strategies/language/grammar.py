"""The language of `--strategies`: a comma-separated list of sums of calls, `lora(r=16)+amp, qlora`.

It is Python's own expression grammar, read with `ast` and `literal_eval`: nothing is ever evaluated, names are
only words, values are only literals. This module knows no strategy; it turns text into `Call`s and says where
in the text something is wrong.
"""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import dataclass, field
from typing import Any

from strategies.errors import PlanError

EXAMPLE = "lora(r=16)+amp, qlora"
MAX_LENGTH = 10_000
MAX_PARENTHESES = 200


@dataclass(frozen=True)
class Call:
    """A word and its keyword arguments: `lora(r=16)`."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)


def parse_call(text: str) -> Call:
    """Read one call; `PlanError` with the position where it is not one."""
    source, tree = _tree(text)
    return _call(source, tree)


def parse_combinations(text: str) -> tuple[tuple[str, tuple[Call, ...]], ...]:
    """Read a comma-separated list of sums: pairs of (the entry's text, its calls as typed)."""
    source, tree = _tree(text)
    entries = tree.elts if isinstance(tree, ast.Tuple) else [tree]
    if not entries:
        raise _error(source, tree, "an empty list")
    return tuple((_text(source, entry), _terms(source, entry)) for entry in entries)


def _tree(text: str) -> tuple[str, ast.expr]:
    """Parse `text` as one expression."""
    source = " ".join(text.split())
    if not source:
        raise PlanError(f"no strategy given; write for example {EXAMPLE!r}")
    if len(source) > MAX_LENGTH or source.count("(") > MAX_PARENTHESES:
        raise PlanError(f"a strategy list of {len(source)} characters is not one; write for example {EXAMPLE!r}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what looks like a slip in Python ("1or 2") is told by our own errors
            return source, ast.parse(source, mode="eval").body
    except SyntaxError as problem:
        offset = max((problem.offset or 1) - 1, 0)
        raise PlanError(_with_caret(source, offset, f"cannot be read ({problem.msg})")) from None
    except (ValueError, RecursionError, MemoryError) as problem:
        raise PlanError(_with_caret(source, 0, f"cannot be read ({problem})")) from None


def _terms(source: str, node: ast.expr) -> tuple[Call, ...]:
    """Flatten `a+b+c`."""
    terms: list[Call] = []
    pending = [node]
    while pending:
        current = pending.pop()
        if isinstance(current, ast.BinOp) and isinstance(current.op, ast.Add):
            pending += [current.right, current.left]
        else:
            terms.append(_call(source, current))
    return tuple(terms)


def _call(source: str, node: ast.expr) -> Call:
    """Read `name` or `name(key=literal, …)`."""
    if isinstance(node, ast.Name):
        return Call(node.id)
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        raise _error(source, node, "expected a name or name(option=value)")
    if node.args:
        raise _error(source, node.args[0], f"{node.func.id} takes options by name only, as in lora(r=16)")
    arguments: dict[str, Any] = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise _error(source, keyword.value, "** is not part of this language")
        if keyword.arg in arguments:
            raise _error(source, keyword.value, f"{keyword.arg}= is repeated")
        try:
            arguments[keyword.arg] = ast.literal_eval(keyword.value)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            hint = f"a plain value is needed for {keyword.arg}= (numbers, True, None, lists; text in quotes)"
            raise _error(source, keyword.value, hint) from None
    return Call(node.func.id, arguments)


def _error(source: str, node: ast.expr, message: str) -> PlanError:
    """Point at `node` in `source`."""
    characters = len(source.encode()[: node.col_offset].decode(errors="replace"))
    return PlanError(_with_caret(source, characters, message))


def _with_caret(source: str, offset: int, message: str) -> str:
    """Draw the text, a caret under the place, and the message."""
    start = max(0, offset - 60)
    return f"{message}, at character {offset + 1} of:\n  {source[start : start + 120]}\n  {' ' * (offset - start)}^"


def _text(source: str, node: ast.expr) -> str:
    """Give the entry as typed, whitespace normalised."""
    segment = ast.get_source_segment(source, node)
    assert segment is not None
    return re.sub(r"\s*\+\s*", "+", segment)
