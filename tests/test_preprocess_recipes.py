"""A recipe is complete, checked, and kept with the epochs."""

import json

import pytest

from pipelines.preprocess.recipes import built_in_recipes, read_recipe
from stores.errors import EmbedctlError, UnknownName


def test_nice_is_what_the_paper_used():
    nice = read_recipe("nice")
    assert len(set(nice.channels)) == 63 and (nice.channels[0], nice.channels[-1]) == ("Fp1", "O2")
    assert (nice.n_times, nice.sfreq, nice.seed, nice.units) == (250, 250.0, 20200220, "V")
    assert nice.repetitions == {"train": 2, "test": 20} and nice.times[-1] == 0.996


@pytest.mark.parametrize("name", built_in_recipes())
def test_a_recipe_survives_json(name):
    recipe = read_recipe(name).as_dict()
    assert json.loads(json.dumps(recipe)) == recipe


def test_a_file_may_change_a_few_fields_of_a_built_in_recipe(tmp_path):
    (tmp_path / "small.toml").write_text('based_on = "nice"\nchannels = ["O1", "Oz"]\n')
    small = read_recipe(str(tmp_path / "small.toml"))
    assert small.channels == ("O1", "Oz") and small.name == "small" and small.seed == 20200220


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mvnn = 'epochs'", "lacks"),
        ("based_on = 'clean'\nmnvv = 'none'", "unknown field 'mnvv'"),
        ("based_on = 'clean'\nmvnn = 'time'", "mvnn = 'time'"),
        ("based_on = 'clean'\nwindow = [0.0, 2.0]", "outside epoch"),
        ("based_on = 'clean'\nbaseline = [-1.0, 0.0]", "baseline outside"),
        ("based_on = 'clean'\nrepetitions = { training = 2 }", "repetitions"),
        ("based_on = 'clean'\nsfreq = 'fast'", "sfreq"),
        ("window = [", "not TOML"),
    ],
)
def test_a_wrong_recipe_is_named(tmp_path, text, said):
    (tmp_path / "own.toml").write_text(text)
    with pytest.raises(EmbedctlError, match=said) as caught:
        read_recipe(str(tmp_path / "own.toml"))
    assert caught.value.hint and caught.value.exit_code == 2


def test_an_unknown_recipe_gets_a_suggestion():
    with pytest.raises(UnknownName) as caught:
        read_recipe("clena")
    assert caught.value.hint == "did you mean 'clean'?"
