"""R3 to R5: damage to any file is found and located, nothing else is called damaged, and repair brings bytes back."""

import random
import shlex
import shutil
from pathlib import Path

import pytest

from stores.commits import digest
from tests.damage import delete, flip, truncate
from tests.promises.harness import (
    Inputs,
    content,
    damages,
    differing,
    extract,
    put_image,
    run,
    stores_of,
    times,
    train,
)

pytestmark = pytest.mark.slow

KINDS = ("embeddings.zarr", "epochs.zarr", "runs")


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
    """A workspace with more of everything: images that came later, two subjects, runs, a screen that saw the test."""
    folder = tmp_path_factory.mktemp("damage") / "whole"
    shutil.copytree(world.whole, folder, ignore=shutil.ignore_patterns("runs"))
    run(folder, train(world.inputs, folder))  # runs say where their stores lie
    run(folder, extract(world.inputs, "many"))
    recipe = str(world.inputs.folder / "recipe.toml")
    run(folder, ["screen", "--brain", "eeg", "--test", "--recipe", recipe, *stores_of(folder)])
    return folder


def files_of(store: Path) -> list[Path]:
    return [store / name for name in content(store) if (store / name).stat().st_size]


def part_of(file: Path, store: Path) -> str:
    """Say, from the path alone, what a file is part of."""
    words = file.relative_to(store).parts
    if store.name == "embeddings.zarr":
        name, _, key = words[0].rpartition("-")
        return f"{name}#{key}" if name and len(words) > 1 else ""
    if store.name == "epochs.zarr":
        is_split = len(words) > 2 and words[2] in ("train", "test")
        return "" if len(words) < 3 or words[0] == "subject" else "/".join(words[: 2 + is_split])
    return words[0] if words[0].startswith("things-eeg2") else "screens.json" if "screens" in file.name else ""


def assert_located(file: Path, store: Path, found: list) -> None:
    """See that the damage of this file, or of what its receipt spoke of, is told, what it hit, and nothing else."""
    assert found, f"{file} was not missed"
    told = [d for d in found if d.file == file or (d.problem == "has no receipt" and ".embedctl" in file.parts)]
    assert told == found and {d.part for d in found} == {part_of(file, store)}, (file, found)
    if "/values/c/" in str(file) or "/mean/c/" in str(file):
        (damage,) = found
        assert damage.rows and damage.images and len(damage.images) <= sum(stop - start for start, stop in damage.rows)


@pytest.mark.parametrize("kind", KINDS)
def test_every_flipped_bit_and_lost_or_torn_file_is_located(whole, scratch, kind, large):
    """A hundred of each (5,000 flips in all kinds together in the larger size), over all files of a store."""
    store, draw = shutil.copytree(whole / kind, scratch / kind), random.Random(kind)
    files = files_of(store)
    for way, n in ((flip, 1700 if large else 100), (delete, 100 if large else 34), (truncate, 100 if large else 34)):
        for _ in range(n):
            file = draw.choice(files)
            before = file.read_bytes()
            way(file, draw)
            assert_located(file, store, damages(store))
            file.write_bytes(before)
    assert damages(store) == []


@pytest.mark.parametrize("kind", KINDS)
def test_files_that_changed_places_are_found(whole, scratch, kind, large):
    store, draw = shutil.copytree(whole / kind, scratch / kind), random.Random(kind)
    files, n = files_of(store), 0
    while n < (100 if large else 34):
        first, second = draw.sample(files, 2)
        one, two = first.read_bytes(), second.read_bytes()
        if one != two:
            first.write_bytes(two), second.write_bytes(one)
            near = {part_of(first, store), part_of(second, store)}
            assert {damage.part for damage in damages(store)} == near, (first, second)
            first.write_bytes(one), second.write_bytes(two)
            n += 1


def test_nothing_is_called_damaged_in_fifty_clean_stores(world, scratch):
    """Stores of every state that commands leave: begun, grown, refreshed, merged, thinned out, half trained."""
    given, states = Inputs(scratch / "inputs"), set()
    for name in ("few", "changed"):
        shutil.copytree(world.inputs.folder / name, given.folder / name)
    for round_ in range(7):
        for name in ("few", "changed"):  # one image more, which no round before had
            put_image(given.folder / name / f"more/{round_}.png", 200 + round_)
        here = shutil.copytree(world.whole, scratch / f"{round_}")
        model = ("pixels", "colour-histogram")[round_ % 2]
        for words in (
            extract(given, "few", models=model),
            ["merge", "embeddings.zarr", str(world.folder / "other.zarr")],
            extract(given, "few", models="hog"),
            extract(given, "changed", "--refresh"),
            ["remove", "embeddings.zarr", model],
            ["remove", "epochs.zarr", f"things-eeg2/sub-0{1 + round_ % 2}"],
            ["remove", "runs", world.run],
            extract(given, "changed", models=f"{model},hog"),
        ):
            run(here, words)
            assert damages(here) == [], words
            states.add(digest("".join(f"{name} {digest(data)}" for name, data in content(here).items()).encode()))
        shutil.rmtree(here)
    assert len(states) == 56, "each of them another"


@pytest.mark.parametrize("kind", KINDS)
def test_repair_and_the_commands_it_prints_give_the_bytes_back_and_touch_nothing_else(whole, kind, large):
    draw, expected = random.Random(f"repair {kind}"), content(whole)
    files = [file for file in files_of(whole / kind) if file.suffix != ".parquet" or "images" not in file.name]
    files = [file for file in files if file.name != "screens.json"]
    for _ in range(100 if large else 12):
        file = draw.choice(files)
        part, before = part_of(file, whole / kind), times(whole)
        draw.choice((flip, delete, truncate))(file, draw)
        assert_pasted(whole)
        different, after = differing(content(whole), expected), times(whole)
        assert not different, (file, different)
        touched = {name for name in before if after[name] != before[name]}
        assert all(may_touch(name, kind, part) for name in touched), (file, touched)
        if "/values/c/" in str(file):  # of an embedding nothing but the chunk and its receipt
            assert len([name for name in touched if part_of(Path(name), Path(kind))]) == 2, (file, touched)


def may_touch(name: str, kind: str, part: str) -> bool:
    """Say whether repairing a part may write a file: of this part, or of what lists all parts; or a picture of it."""
    if not name.startswith(kind):
        return name.startswith("epochs-quality") and kind == "epochs.zarr"
    other = part_of(Path(name), Path(kind))
    return other == "" or other == part or other.startswith(part.rpartition("/")[0] or part)


def assert_pasted(here: Path) -> None:
    """Repair, and do what it says."""
    import contextlib
    import io

    from tests.promises.harness import PROGRAM, undated

    said = io.StringIO()
    with contextlib.chdir(here), undated(), contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        PROGRAM.main(["repair", "."])
    for line in said.getvalue().splitlines():
        if line.startswith("  next"):
            name, *words = shlex.split(line.removeprefix("  next"))
            assert name == "embedctl"
            run(here, words)
    assert damages(here) == []
