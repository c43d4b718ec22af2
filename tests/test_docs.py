"""The documentation is about this program: pages are fresh, examples run, and nothing is named that is not there."""

import doctest
import importlib
import importlib.util
import json
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


def typed(page):
    """Return every command line of a page, in text or in a block, without what follows it there."""
    for line in page.read_text(encoding="utf-8").splitlines():
        for words in re.findall(r"(?:^\s*\$? ?|`|&& )(embedctl (?:--?)?[a-z][^`#|&]*)", line):
            yield words.split()[1:]


def understood(words):
    """Read a command line as the program would, and run nothing."""
    command, context = typer.main.get_command(app), None
    while True:
        context = command.make_context(command.name, words, parent=context)
        if not getattr(command, "commands", None):
            return
        _, command, words = command.resolve_command(context, [*context._protected_args, *context.args])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_program_understands_every_command_of_a_page(page):
    names = {name for name, _ in leaves(typer.main.get_command(app))} | {"embedctl --version", "embedctl --help"}
    for words in typed(page):
        if " ".join(["embedctl", *words]) not in names:  # named in passing, whatever it needs
            understood(words)


@pytest.mark.parametrize("line", ["show", "extract --modle pixels", "demos", "models shw resnet50-tv", "train runs"])
def test_a_command_that_does_not_exist_would_be_noticed(line):
    with pytest.raises(typer.TyperException):
        understood(line.split())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_in_a_page_is_there_and_nothing_waits_to_be_filled_in(page):
    text = page.read_text(encoding="utf-8")
    ours = "embedctl|pipelines|stores|tests|docs|benchmarks|shared|\\.ci"
    named = re.findall(rf"`((?:{ours})/[\w./-]*)[`:]", text) + re.findall(r"python (\w+/\w+\.py)", text)
    modules = re.findall(r"python -m ((?:benchmarks|tests)(?:\.\w+)+)", text)
    paths = [module.replace(".", "/") for module in modules]
    named += [f"{path}/__main__.py" if (ROOT / path).is_dir() else f"{path}.py" for path in paths]
    named += re.findall(r"pytest [^`\n]*?(tests/[\w./-]+)", text)
    for path in named:
        assert (ROOT / path).exists(), f"{page.name}: {path}"
    for line in text.splitlines():
        assert not re.search(r"\(output\)|\bTODO\b|\bTBD\b|\bFIXME\b|lorem ipsum|<output>", line), (
            f"{page.name}: {line}"
        )


def test_the_constraints_are_names_and_versions_alone():
    """No host to install from and no hash, so that the file works with any index."""
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            assert re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*(; python_version (<|>=) .3[.][0-9]+.)?", line), line
        assert not re.search(r"://|sha256|[0-9a-f]{32}", line), line


def test_every_package_an_extra_names_has_its_version_in_the_constraints():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    named = [*project["dependencies"], *(package for extra in extras for package in extra)]
    pinned = re.findall(r"^([a-z0-9-]+)==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    wanted = {re.match(r"[\w.-]+", package)[0].lower().replace("_", "-") for package in named}
    assert wanted - {"embedctl"} <= set(pinned)
    assert "torchaudio" not in pinned


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_the_tables_of_encoders_in_a_page_build_as_wide_as_they_say(page, tmp_path):
    from pipelines.encoders.build import build
    from pipelines.encoders.registry import read_cards

    tables = re.findall(r"```toml\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "cards.toml").write_text("\n".join(tables), encoding="utf-8")
    specs = read_cards(tmp_path)
    assert specs
    for spec in specs.values():
        assert list(build(spec, weights="random:0", device="meta").dims.values()) == [spec.dim]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_to_a_file(page):
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/*.ipynb")), ids=lambda page: page.name)
def test_a_notebook_shows_what_came_out_and_nothing_of_a_computer(page):
    cells = [cell for cell in json.loads(page.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in cells)
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert len(outputs) >= 5 and not any(output["output_type"] == "error" for output in outputs)
    for output in outputs:
        for kind, text in output.get("data", {"text": output.get("text", "")}).items():
            assert kind == "image/png" or not re.search(r"[\s>'\"]/(home|root|tmp|Users|work)/", str(text))


def test_the_pictures_of_the_readme_are_small():
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert pictures and all((ROOT / picture).stat().st_size < 150_000 for picture in pictures)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_run(name):
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


def test_the_citation_names_every_author_of_the_paper():
    cited = (ROOT / "CITATION.cff").read_text(encoding="utf-8").partition("preferred-citation")[2]
    named = re.findall(r"family-names: (\w+)", cited)
    assert named == ["Rajabi", "Ribeiro", "Vasco", "Taleb", "Björkman", "Kragic"] and "others" not in cited
