"""Recipes are data, and every mistake in one is two lines."""

import pytest

from pipelines.train.recipes import read_recipe, recipe_names
from stores.errors import EmbedctlError, UnknownName


@pytest.mark.parametrize("name", recipe_names())
@pytest.mark.parametrize("modality", ["eeg", "meg", "fmri"])
def test_every_recipe_can_be_read_for_every_modality(name, modality):
    assert read_recipe(name, modality).name == name


def test_a_recipe_of_ones_own_starts_from_another(tmp_path):
    file = tmp_path / "quick.toml"
    file.write_text('base = "modern"\npasses = 2\n[meg]\nwindow = [0.0, 0.5]\n')
    quick = read_recipe(str(file), "eeg")
    assert (quick.name, quick.passes, quick.window) == ("quick", 2, (0.0, 0.996))
    assert read_recipe(str(file), "meg").window == (0.0, 0.5)
    assert quick.settings() == read_recipe("modern", "eeg").settings() | {"passes": 2}


def test_an_unknown_recipe_comes_with_a_suggestion():
    with pytest.raises(UnknownName) as problem:
        read_recipe("modem", "eeg")
    assert problem.value.hint == "did you mean 'modern'?"


def test_a_recipe_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(UnknownName, match="no recipe file"):
        read_recipe(str(tmp_path / "mine.toml"), "eeg")


@pytest.mark.parametrize(
    "text, said",
    [
        ("passes = ", "is not TOML"),
        ('base = "modem"', "starts from 'modem'"),
        ("passes = 3", "lacks"),
        ('base = "modern"\npases = 3', "unknown setting 'pases'"),
        ('base = "modern"\nsplit = "time"', "split = 'time' is no choice"),
        ('base = "modern"\nlr = "fast"', "lr = 'fast'"),
        ('base = "modern"\npasses = true', "passes = True"),
        ('base = "modern"\nlr = -1.0', "lr = -1.0"),
        ('base = "modern"\nheld_out = 1.5', "held_out = 1.5"),
        ('base = "modern"\npasses = 0', "train nothing"),
        ('base = "modern"\nbatch = 1', "train nothing"),
        ('base = "modern"\nwindow = [0.0]', "a window is"),
        ('base = "modern"\ntemperature = 0', "temperature = 0"),
    ],
)
def test_a_mistake_in_a_recipe_is_named(tmp_path, text, said):
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(EmbedctlError, match=said) as problem:
        read_recipe(str(file), "eeg")
    assert problem.value.hint
    assert problem.value.exit_code == 2
