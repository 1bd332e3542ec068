"""Mistakes that are planted to see tests notice them: each is another program that Python can read."""

import ast
from pathlib import Path

import pytest

SOURCE = '''"""Text with 1 number."""
LIMIT: "int | 2" = 3


@decorated(4)
def f(a: "5", b=6, *, flag=False) -> "7":
    assert a < 8
    total = ä(a + b, -b * 2.5) if a is not None and flag else (a, b)
    for one in range(a, b):
        if one >= a:
            continue
        total.place[one] = g(a, a), zip(a, strict=True)
        total += 1
        h(one)
    if not total:
        raise ValueError(f"{a + 9}")
    return total
'''


@pytest.fixture
def made(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    from mutants import mutants

    (tmp_path / "f.py").write_text(SOURCE, encoding="utf-8")
    return list(mutants(tmp_path, "f.py"))


def test_each_is_another_program(made):
    source, seen = SOURCE.encode(), set()
    for mutant in made:
        start, end = mutant.span
        assert source[start:end].decode() == mutant.before
        seen.add(ast.dump(ast.parse(source[:start] + mutant.after.encode() + source[end:])))
    assert len(seen) == len(made)
    assert ast.dump(ast.parse(source)) not in seen
    kinds = {"operator", "comparison", "constant", "return", "order", "condition", "removed"}
    assert {mutant.kind for mutant in made} == kinds


def test_where_each_kind_of_mistake_is_made(made):
    lines = {kind: {m.line for m in made if m.kind == kind} for kind in ("operator", "comparison", "removed")}
    assert lines == {"operator": {8, 13, 15}, "comparison": {8, 10}, "removed": {11, 12, 13, 14, 16}}
    assert {m.after for m in made if m.kind == "constant"} == {
        *("(4)", "(2)", "(7)", "(5)", "(True)", "(5.0)", "(0)"),
    }
    assert {m.after for m in made if m.kind == "order"} == {
        *("(ä(-b * 2.5, a + b))", "((b, a))", "(range(b, a))", "((zip(a, strict=True), g(a, a)))"),
    }


def test_what_means_nothing_while_running_is_left_alone(made):
    """Annotations, decorators, assertions, sentences, and arguments that only check."""
    assert not {m.line for m in made} & {1, 5, 7}
    assert not [m for m in made if m.before in ("8", "9", "7", '"5"', "True")]
