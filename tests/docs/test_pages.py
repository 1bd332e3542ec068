"""The pages are followed word by word: every block of code and every command runs, and gives what is shown.

In the quick form layers are not fitted; everything else is real. The long form (``--slow``) fits them
with the preset ``tiny``.
"""

import contextlib
import doctest
import io
import re
from pathlib import Path

import pytest
from ctinv.cli import cli, main

from .blocks import ELSEWHERE, blocks, commands, sessions

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    str(page.relative_to(ROOT))
    for page in (ROOT / "README.md", *DOCS.rglob("*.md"))
    if not page.is_relative_to(DOCS / "_generated") and not page.is_relative_to(DOCS / "_build")
)
RUN = [page for page in PAGES if blocks(ROOT / page)]
# Measured or fitted at length by nature: followed in the long form only.
LONG = {"docs/compare.md", "docs/changes.md", "docs/runs.md"}
# Their commands fit and sample whole layers whatever is put in their place.
HEAVY = {"probe", "compare-models", "bench", "spectrum", "hide", "attack", "swap", "compare"}


def test_the_walk_sees_the_pages():
    assert {"README.md", "docs/start.md", "docs/howto/onnx.md", "docs/tutorials/nhwc.md"} <= set(RUN)


def follow(page, quick):
    """Run a page from its first block to its last."""
    names = {"__name__": "page"}
    for block in blocks(ROOT / page):
        where = f"{page}:{block.line}"
        if block.skip:
            continue
        if block.kind == "python":
            first = re.match(r"# (\w+\.py)\n", block.text)
            if first:
                Path(first[1]).write_text(block.text, encoding="utf-8")
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(block.text, where, "exec"), names)
        elif block.kind == "sh":
            for words in commands(block.text):
                run(words, where, quick)
        elif block.kind == "console":
            for words, shown in sessions(block.text):
                told = run(words, where, quick)
                flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
                assert doctest.OutputChecker().check_output(shown, told, flags), (
                    f"{where} shows\n{shown}not\n{told}"
                )


def in_small_slice(word):
    """A region as pages give it for 512 x 512 pixels, in the slice of 64 x 64 that they are followed with."""
    if not re.fullmatch(r"\d+:\d+:\d+:\d+", word):
        return word
    column, row, width, height = map(int, word.split(":"))
    return f"{column // 8}:{row // 8}:{max(6, width // 8)}:{max(6, height // 8)}"


def run(words, where, quick):
    """What a command printed; those of CI and, in the quick form, long ones are only parsed."""
    if words[0] in ELSEWHERE:
        return ""
    assert words[0] == "ctinv", f"{where}: {words[0]} is not known here"
    if quick and words[1] in HEAVY:
        command = cli.get_command(None, words[1])
        if not hasattr(command, "commands"):
            command.make_context(words[1], [*words[2:]])
        return ""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([in_small_slice(word) for word in words[1:]])
    assert code == 0, f"{where}: {' '.join(words)} ends with {code}: {err.getvalue()}"
    return out.getvalue()


@pytest.mark.parametrize("page", [page for page in RUN if page not in LONG])
def test_a_page_can_be_followed(page, place, stand_in):
    follow(page, quick=True)


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN)
def test_a_page_can_be_followed_with_fits(page, place, tiny):
    follow(page, quick=False)


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_exists_with_its_options(page):
    for block in blocks(ROOT / page):
        lines = commands(block.text) if block.kind == "sh" else []
        for words in (words for words in lines if words[0] == "ctinv" and len(words) > 1):
            if words[1].startswith("-"):
                continue
            command = cli.get_command(None, words[1])
            assert command is not None, words
            if hasattr(command, "commands"):
                command = command.commands[words[2]]
            options = {name for parameter in command.params for name in parameter.opts}
            given = {word.partition("=")[0] for word in words[2:] if re.match(r"--?[a-z]", word)}
            assert given <= options | {"--help", "--debug"}, f"{page}:{block.line}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("docs/")])
def test_every_block_states_its_kind(page):
    known = {"python", "sh", "console", "text", "toml", "bash", "yaml", ""}
    assert {block.kind for block in blocks(ROOT / page)} <= known


def test_blocks_are_read_as_a_reader_would(tmp_path):
    page = tmp_path / "a.md"
    parts = (
        "# A",
        "```sh\nctinv layers -m a \\\n  --json  # all\n```",
        "<!-- not run: a GPU -->\n```python\nx\n```",
        "- item",
        "      inside",
        "```{toctree}\nb\n```",
        "Text",
        "    import a\n\n    b = 1",
        "Text",
        "    ctinv zoo list",
    )
    page.write_text("\n\n".join(parts) + "\n")
    found = blocks(page)
    assert [(b.kind, b.skip) for b in found] == [("sh", ""), ("python", "a GPU"), ("python", ""), ("sh", "")]
    assert commands(found[0].text) == [["ctinv", "layers", "-m", "a", "--json"]]
    assert found[2].text == "import a\n\nb = 1\n"
    assert sessions("$ ctinv a\nb\nc\n$ d\n") == [(["ctinv", "a"], "b\nc\n"), (["d"], "")]


def test_a_wrong_page_is_noticed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for text in (
        "```python\nassert False\n```\n",
        "```sh\nctinv layers --model missing.onnx\n```\n",
        "```console\n$ ctinv zoo list\nnothing like it\n```\n",
        "```sh\nrm -r x\n```\n",
    ):
        (tmp_path / "a.md").write_text(text)
        with pytest.raises(AssertionError):
            follow(str(tmp_path / "a.md"), quick=True)
