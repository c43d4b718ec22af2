"""`stores/commits.py` is the only writer of what counts; the few others are here, each with its reason."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(file for layer in ("embedctl", "pipelines", "stores") for file in (ROOT / layer).rglob("*.py"))

# What a call to any of these does to the disk. Methods by their last name, functions with their module.
METHODS = {
    "chmod", "hardlink_to", "mkdir", "rmdir", "savefig", "symlink_to", "to_csv", "to_parquet", "to_zarr", "tofile",
    "touch", "unlink", "write_bytes", "write_table", "write_text",
}  # fmt: skip
FUNCTIONS = {
    "numpy.lib.format.open_memmap", "os.ftruncate", "os.link", "os.makedirs", "os.mkdir", "os.remove",
    "os.removedirs", "os.rename", "os.replace", "os.rmdir", "os.symlink", "os.truncate", "os.unlink", "os.utime",
    "json.dump", "np.save", "np.savetxt", "np.savez", "np.savez_compressed", "numpy.save", "pickle.dump", "torch.save",
    "pq.write_table", "safetensors.torch.save_file", "save_file", "zarr.create_array", "zarr.create_group",
    "zarr.save", "zarr.open_array", "zarr.open_group", "zarr.open",
}  # fmt: skip
MODULES = ("shutil.copy", "shutil.move", "shutil.rmtree", "shutil.unpack", "tempfile.")

MAY_WRITE = {
    "stores/commits.py": "the writer itself",
    "stores/locks.py": "locks are no data: they appear by a link, name their owner, and go when it does",
    "stores/remote.py": "objects, each put whole: the writer's other hand",
    "pipelines/simulate/images.py": "simulated stimuli: what a user would have put there, an input and no store",
    "pipelines/simulate/raw_file.py": "simulated recordings, a gigabyte filled in place: an input; renamed when whole",
    "pipelines/simulate/recordings.py": "their image_metadata.npy: an input",
    "pipelines/encoders/fetch.py": "downloads, resumed in a .part file: checked against their sha256, then renamed",
}
# Into memory, and read-only opening: named so that the list above says what touches the disk.
HARMLESS = {
    "embedctl/drawing.py": {"figure.savefig"},  # into a BytesIO
    "embedctl/quality_page.py": {"figure.savefig"},  # into a BytesIO
    "embedctl/html.py": {"small.save"},  # into a BytesIO
    "stores/tables.py": {"pq.write_table"},  # into a BytesIO
    "stores/sealed.py": {"np.save"},  # into a BytesIO
}


def called(call):
    """Return the dotted name of what is called."""
    parts, node = [], call.func
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id if isinstance(node, ast.Name) else "", *reversed(parts)]).removeprefix(".")


def mode_of(call, position):
    """Return the letters of the mode, or modes, a file is opened in."""
    words = [keyword.value for keyword in call.keywords if keyword.arg == "mode"] + call.args[position : position + 1]
    said = (node.value for word in words for node in ast.walk(word) if isinstance(node, ast.Constant))
    return set().union(*(set(text) for text in said if isinstance(text, str) and re.fullmatch(r"[rwaxbt+]{1,4}", text)))


def writes(source):
    """Return the calls that write, by line."""
    found = []
    for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        name = called(call)
        last = name.rpartition(".")[2]
        opens = last == "open" and mode_of(call, 0 if "." in name else 1) & set("wax+")
        maps = last == "memmap" and mode_of(call, 2) & set("w+")
        # `path.replace(other)` has one argument, `text.replace(a, b)` two; a picture is saved to a place.
        moves = last in ("replace", "rename") and "." in name and len(call.args) == 1 and name != "dataclasses.replace"
        saves = last == "save" and "." in name
        listed = name in FUNCTIONS or last in METHODS or name.startswith(MODULES)
        os_open = name == "os.open" and any(
            isinstance(n, ast.Attribute) and n.attr in ("O_CREAT", "O_RDWR") for n in ast.walk(call)
        )
        if opens or maps or moves or saves or listed or os_open:
            found.append((call.lineno, name))
    return found


def written(file):
    """Return what a file writes, less what is harmless."""
    harmless = HARMLESS.get(file.relative_to(ROOT).as_posix(), ())
    return [call for call in writes(file.read_text(encoding="utf-8")) if call[1] not in harmless]


def test_what_a_stage_writes_goes_through_the_only_writer():
    found = {file.relative_to(ROOT).as_posix(): written(file) for file in FILES}
    assert {name: calls for name, calls in found.items() if calls and name not in MAY_WRITE} == {}
    assert [name for name in MAY_WRITE if not found[name]] == [], "it writes nothing any more: take it off the list"


@pytest.mark.parametrize(
    "line",
    [
        "open(p, 'w')",
        "open(p, mode='ab')",
        "open(p, 'r+b')",
        "p.open('wb')",
        "p.write_text('x')",
        "p.write_bytes(b'x')",
        "np.save(p, x)",
        "np.memmap(p, 'f4', 'r+')",
        "np.memmap(p, 'f4', mode='w+')",
        "shutil.copyfile(a, b)",
        "p.replace(q)",
        "p.rename(q)",
        "os.replace(a, b)",
        "image.save(p)",
        "torch.save(x, p)",
        "p.mkdir()",
        "path.parent.mkdir(parents=True)",
        "open(p, 'ab' if x else 'wb')",
        "tempfile.mkdtemp()",
        "zarr.open_group(p)",
        "os.open(p, os.O_CREAT)",
    ],
)
def test_the_check_finds_a_write(line):
    assert writes(line)


@pytest.mark.parametrize(
    "line",
    [
        "open(p)",
        "open(p, 'rb')",
        "p.open()",
        "s.replace('a', 'b')",
        "replace(spec, x=1)",
        "np.memmap(p, 'u1', mode='r')",
    ],
)
def test_the_check_lets_reading_pass(line):
    assert not writes(line)


def test_the_documentation_names_the_exceptions():
    page = (ROOT / "docs" / "storage.md").read_text(encoding="utf-8")
    for name in MAY_WRITE:
        assert f"`{name}`" in page, name
