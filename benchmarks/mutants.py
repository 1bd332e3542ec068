"""Small mistakes that can be planted in a source file."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Mutant", "mutants"]

_PAIRS = (
    "Add Sub, Mult Div, BitOr BitAnd, LShift RShift, And Or, Lt LtE, Gt GtE, Eq NotEq, Is IsNot, In NotIn"
)
OTHER: dict[type, type] = {ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.Pow: ast.Mult}
for _a, _b in (pair.split() for pair in _PAIRS.split(", ")):
    OTHER |= {getattr(ast, _a): getattr(ast, _b), getattr(ast, _b): getattr(ast, _a)}


@dataclass
class Mutant:
    """One mistake, and what became of it: killed, timed out, survived, or not reached by any test."""

    file: str
    line: int
    kind: str
    before: str
    after: str
    span: tuple[int, int]
    lines: tuple[int, ...]
    status: str = ""
    noticed_by: str = ""
    seconds: float = 0.0


def _with(node: ast.AST, **fields: Any) -> ast.AST:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def variants(node: ast.AST) -> Iterator[tuple[str, ast.AST, ast.AST]]:
    """Kinds of mistakes at one node: the kind, the node replaced, and what takes its place."""
    match node:
        case ast.BinOp(op=op) | ast.AugAssign(op=op) | ast.BoolOp(op=op) if type(op) in OTHER:
            yield "operator", node, _with(node, op=OTHER[type(op)]())
        case ast.Compare(ops=ops):
            for at, op in enumerate(ops):
                if type(op) in OTHER:
                    yield "comparison", node, _with(node, ops=[*ops[:at], OTHER[type(op)](), *ops[at + 1 :]])
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield "operator", node, operand
        case ast.Constant(value=bool(value)):
            yield "constant", node, ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield "constant", node, ast.Constant(value + 1)
            yield "constant", node, ast.Constant(value - 1)
        case ast.Constant(value=float(value)):
            yield "constant", node, ast.Constant(2 * value or 1.0)
        case ast.Return(value=ast.expr() as value) if (
            not isinstance(value, ast.Constant) or value.value is not None
        ):
            yield "return", node, ast.Return(ast.Constant(None))
        case ast.Call(args=[first, second, *rest]) if not isinstance(first, ast.Starred | ast.GeneratorExp):
            if ast.dump(first) != ast.dump(second):
                yield "order", node, _with(node, args=[second, first, *rest])
        case ast.Tuple(elts=[first, second], ctx=ast.Load()):
            if ast.dump(first) != ast.dump(second):
                yield "order", node, _with(node, elts=[second, first])
    if isinstance(node, ast.If | ast.While | ast.IfExp):
        yield "condition", node.test, ast.UnaryOp(ast.Not(), node.test)
    stores = isinstance(node, ast.Assign) and not isinstance(node.targets[0], ast.Name | ast.Tuple)
    calls = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call | ast.Await)
    if stores or calls or isinstance(node, ast.AugAssign | ast.Raise | ast.Break | ast.Continue | ast.Delete):
        yield "removed", node, ast.Pass()


def walk(node: ast.AST, statement: ast.stmt | None = None) -> Iterator[tuple[ast.AST, ast.stmt]]:
    """Nodes that do something, with their statements; no annotations, decorators, assertions, f-strings."""
    skipped: tuple[str, ...] = ("annotation", "returns", "decorator_list", "type_comment")
    # ``strict`` and the like only check what cannot happen.
    if isinstance(node, ast.Assert | ast.JoinedStr) or (
        isinstance(node, ast.keyword) and node.arg == "strict"
    ):
        return
    statement = node if isinstance(node, ast.stmt) else statement
    if statement is not None:
        yield node, statement
    for name, value in ast.iter_fields(node):
        if name not in skipped:
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from walk(child, statement)


def mutants(root: Path, file: str) -> Iterator[Mutant]:
    """All mistakes of one source file."""
    source = (root / file).read_bytes()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for node, statement in walk(ast.parse(source)):
        for kind, old, new in variants(node):
            span = (
                starts[old.lineno - 1] + old.col_offset,
                starts[old.end_lineno - 1] + old.end_col_offset,
            )
            text = ast.unparse(ast.fix_missing_locations(new))
            text = text if isinstance(old, ast.stmt) else f"({text})"
            lines = (statement.lineno, *range(old.lineno, old.end_lineno + 1))
            yield Mutant(file, old.lineno, kind, source[slice(*span)].decode(), text, span, lines)
