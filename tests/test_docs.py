"""The documentation is about this program: pages are fresh, examples run, and nothing is named that is not there."""

import doctest
import importlib
import importlib.util
import re
import tomllib
from pathlib import Path

import pytest
import typer

from embedctl.cli import app

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
COMMANDS = typer.main.get_command(app).commands
MODULES = sorted(
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for package in ("stores", "pipelines", "embedctl")
    for file in (ROOT / package).rglob("*.py")
    if file.name != "__main__.py"
)


def leaves(command, name="embedctl"):
    children = getattr(command, "commands", None)
    if not children:
        yield name, command
    for child, inner in (children or {}).items():
        yield from leaves(inner, f"{name} {child}")


def test_the_reference_page_is_fresh():
    spec = importlib.util.spec_from_file_location("make_cli", ROOT / "docs" / "make_cli.py")
    make_cli = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_cli)
    assert make_cli.PAGE.read_text(encoding="utf-8") == make_cli.page(), "run: just docs"


@pytest.mark.parametrize(("name", "command"), list(leaves(typer.main.get_command(app))))
def test_every_command_has_help_that_ends_in_an_example(name, command):
    example = name.replace(" list", "")
    assert command.help and f"\n  {example}" in command.help, name
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{name}: {parameter.name} is not explained"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_names_only_commands_and_options_that_exist(page):
    known = {"embedctl " + name for name in COMMANDS} | {"embedctl --help", "embedctl --version"}
    options = {flag for _, command in leaves(typer.main.get_command(app)) for p in command.params for flag in p.opts}
    for line in page.read_text(encoding="utf-8").splitlines():
        for words in re.findall(r"(?:^\s*\$? ?|`)(embedctl (?:--)?[a-z][^`#|]*)", line):
            command = " ".join(words.split()[:2])
            assert command in known, f"{page.name}: {line}"
            assert set(re.findall(r"--[a-z-]+", words)) <= options | {"--help", "--version", "--debug"}, line


def test_every_package_an_extra_names_has_its_version_in_the_constraints():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    named = [*project["dependencies"], *(package for extra in extras for package in extra)]
    pinned = re.findall(r"^([a-z0-9-]+)==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    wanted = {re.match(r"[\w.-]+", package)[0].lower().replace("_", "-") for package in named}
    assert wanted - {"embedctl"} <= set(pinned)
    assert "torchaudio" not in pinned


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_to_a_file(page):
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_run(name):
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0
