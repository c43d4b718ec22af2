"""What a message tells the reader to type exists: every command, and every option of the command in question."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
import typer

from embedctl.cli import app

ROOT = Path(__file__).parent.parent
PROGRAM = typer.main.get_command(app)
FILES = sorted(file for layer in ("embedctl", "pipelines", "stores") for file in (ROOT / layer).rglob("*.py"))

# By the beginning of its path: which commands show what a file says. The stores serve all of them, so they name no
# option but those of a command they name.
SHOWN_BY = {
    "embedctl/commands/": None,  # the command the file is called after
    "embedctl/": "any",
    "pipelines/cluster.py": ("extract", "train"),
    "pipelines/encoders/": ("extract",),
    "pipelines/extract/sources.py": ("extract", "import"),
    "pipelines/extract/": ("extract",),
    "pipelines/findings/": ("report",),
    "pipelines/imports/": ("import",),
    "pipelines/interpret/": ("interpret",),
    "pipelines/preprocess/": ("preprocess",),
    "pipelines/export/": ("predict", "export"),
    "pipelines/paper/": ("reproduce",),
    "pipelines/screen/": ("screen",),
    "pipelines/train/restore.py": ("predict", "export", "interpret"),
    "pipelines/train/": ("train",),
    "stores/plain_files.py": ("predict", "export"),
    "": (),
}
# "embedctl does not know": the program in a sentence, and no command.
VERBS = {"can", "does", "reads", "scales", "that", "wrote"}
EVERYWHERE = {"--help", "--version", "--debug"}


@cache
def options_of(command):
    found = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
    for child in getattr(command, "commands", {}).values():
        found |= options_of(child)
    return found


def texts(tree):
    """Yield line and text of every string that is no docstring; what is put into an f-string is ``{}``."""
    statements = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    pieces = {id(value) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for value in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield node.lineno, "".join(str(v.value) if isinstance(v, ast.Constant) else "{}" for v in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in statements | pieces:
            yield node.lineno, node.value


def wrong(text, shown_by):
    """Return what a text names that is not there."""
    # Each stretch from one "embedctl COMMAND" to the next belongs to that command, up to where its line ends.
    pieces = re.split(r"\bembedctl (?=[a-z])", text)
    yield from (f"{flag}: not of {shown_by or 'a command it names'}" for flag in _strange(pieces[0], shown_by))
    for piece in pieces[1:]:
        words = re.findall(r"^[a-z-]+|(?<=^models )[a-z]+|(?<=^datasets )[a-z]+", piece)
        if words[0] in VERBS:
            yield from _strange(piece, shown_by)
            continue
        command = PROGRAM.commands.get(words[0])
        if command is None:
            yield f"embedctl {words[0]}"
            continue
        for child in words[1:]:
            if child not in command.commands and child not in options_of(command):
                yield f"embedctl {words[0]} {child}"
            command = command.commands.get(child, command)
        typed, _, rest = re.match(r"([^;,`')]*)(.?)(.*)", piece, re.DOTALL).groups()
        flags = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", typed)) - options_of(command) - EVERYWHERE
        yield from (f"{flag} of embedctl {words[0]}" for flag in flags)
        yield from _strange(rest, shown_by)


def _strange(text, shown_by):
    flags = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)) - EVERYWHERE
    if shown_by == "any":
        return flags - options_of(PROGRAM)
    known = [options_of(PROGRAM.commands[name]) for name in shown_by]
    return flags - (set.intersection(*known) if known else set())


def shown_by(file):
    name = file.relative_to(ROOT).as_posix()
    commands = next(commands for start, commands in SHOWN_BY.items() if name.startswith(start))
    if commands is None:
        stem = file.stem.removesuffix("_")
        return (stem,) if stem in PROGRAM.commands else ()
    return commands


def test_a_message_names_only_commands_and_options_that_exist_for_who_reads_it():
    found = [
        (f"{file.relative_to(ROOT)}:{line}", *wrong(text, shown_by(file)))
        for file in FILES
        for line, text in texts(ast.parse(file.read_text(encoding="utf-8")))
    ]
    assert [entry for entry in found if len(entry) > 1] == []


@pytest.mark.parametrize(
    ("text", "commands"),
    [
        ("name it with --store", ("train",)),
        ("name it with --store", ()),
        ("run embedctl extrct again", ("extract",)),
        ("`embedctl models pul {}` fetches it", ("extract",)),
        ("embedctl preprocess --keap all", ()),
        ("'embedctl results' lists them; see --keap", ("train",)),
        ("embedctl extract writes one; or name it with --store", ("train",)),
    ],
)
def test_the_check_finds_what_is_wrong(text, commands):
    assert list(wrong(text, commands))


def test_the_check_lets_pass_what_is_right():
    for text in ("`embedctl models pull {} --to {}`", "embedctl extract --model {} --overwrite", "embedctl models"):
        assert not list(wrong(text, ()))
    assert not list(wrong("a way embedctl does not know; see --check", ("preprocess",)))
