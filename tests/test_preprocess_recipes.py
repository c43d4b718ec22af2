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
    (tmp_path / "small.toml").write_text('base = "nice"\nchannels = ["O1", "Oz"]\n')
    small = read_recipe(str(tmp_path / "small.toml"))
    assert small.channels == ("O1", "Oz") and small.name == "small" and small.seed == 20200220


WRONG = [
    ("name", "5"),
    ("name", "''"),
    ("channels", "'Oz'"),
    ("channels", "[1, 2]"),
    ("channels", "['Oz', 'Oz']"),
    ("channels", "['']"),
    ("sfreq", "0"),
    ("sfreq", "-250"),
    ("sfreq", "nan"),
    ("sfreq", "inf"),
    ("sfreq", "1e9"),
    ("sfreq", "true"),
    ("epoch", "[-0.2]"),
    ("epoch", "[-0.2, inf]"),
    ("epoch", "[-0.2, nan]"),
    ("epoch", "[-200, 1000]"),
    ("epoch", "'all'"),
    ("window", "[0.0, 'end']"),
    ("window", "[false, true]"),
    ("baseline", "0.2"),
    ("baseline", "[nan, 0.0]"),
    ("repetitions", "{ train = 0 }"),
    ("repetitions", "{ train = true }"),
    ("repetitions", "{ test = 1.5 }"),
    ("repetitions", "20"),
    ("seed", "-1"),
    ("seed", "true"),
    ("seed", "1.0"),
    ("seed", "4294967296"),
    ("resample", "['exact']"),
    ("units", "5"),
    ("bad_channels", "{}"),
    ("mvnn", "false"),
    ("dtype", "'float64'"),
    ("compute", "'float16'"),
]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mvnn = 'epochs'", "lacks"),
        ("base = 'clean'\nmnvv = 'none'", "unknown field 'mnvv'"),
        ("base = 'clean'\nmvnn = 'space'", "mvnn = 'space'"),
        ("base = 'clean'\nwindow = [0.0, 2.0]", "outside epoch"),
        ("base = 'clean'\nbaseline = [-1.0, 0.0]", "baseline outside"),
        ("base = 'clean'\nwindow = [0.5, 0.5]", "does not end after it begins"),
        ("base = 'clean'\nwindow = [0.5, 0.1]", "does not end after it begins"),
        ("base = 'clean'\nwindow = [0.5, 0.501]", "no sample between"),
        ("base = 'clean'\nrepetitions = { training = 2 }", "repetitions"),
        ("base = 'clean'\nsfreq = 'fast'", "sfreq"),
        ("window = [", "not TOML"),
        ("base = 5", "base = 5"),
        ("base = 'claen'", "no preprocessing recipe 'claen', which recipe .*own.toml is based on"),
        ("base = 'own.toml'", "based on each other"),
        ("base = 'clean'\nmvnn = 'none'\nunits = 'V'", "dtype = 'float16' of volts"),
        ('base = "clean"\n"new\\nline" = 1', "unknown field"),
        *((f"base = 'clean'\n{key} = {value}", f"{key} = ") for key, value in WRONG),
    ],
)
def test_a_wrong_recipe_is_named_in_two_lines(tmp_path, text, said):
    (tmp_path / "own.toml").write_text(text)
    with pytest.raises(EmbedctlError, match=said) as caught:
        read_recipe(str(tmp_path / "own.toml"))
    assert caught.value.hint and caught.value.exit_code == 2
    assert "\n" not in caught.value.what + caught.value.hint and len(caught.value.what) < 300


def test_files_that_are_base_each_other_are_all_named(tmp_path):
    for one, other in (("a", "b"), ("b", "c"), ("c", "a")):
        (tmp_path / f"{one}.toml").write_text(f"base = '{other}.toml'\n")
    with pytest.raises(EmbedctlError, match=r"a\.toml' on '.*b\.toml' on '.*c\.toml' on '.*a\.toml'"):
        read_recipe(str(tmp_path / "a.toml"))


def test_a_base_is_looked_for_beside_the_file_and_a_built_in_one_first(tmp_path, monkeypatch):
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "ours.toml").write_text("base = 'nice'\nsfreq = 100\n")
    (tmp_path / "lab" / "mine.toml").write_text("base = 'ours.toml'\nseed = 5\n")
    monkeypatch.chdir(tmp_path)
    mine = read_recipe("lab/mine.toml")
    assert (mine.name, mine.sfreq, mine.seed, mine.units) == ("mine", 100.0, 5, "V")


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a = " + b"[" * 100_000, b"x = 1\x00"])
def test_what_is_no_toml_at_all_is_named(tmp_path, content):
    (tmp_path / "own.toml").write_bytes(content)
    with pytest.raises(EmbedctlError, match="is not TOML"):
        read_recipe(str(tmp_path / "own.toml"))


def test_a_folder_is_no_recipe(tmp_path):
    with pytest.raises(UnknownName):
        read_recipe(str(tmp_path))


def test_an_unknown_recipe_gets_a_suggestion():
    with pytest.raises(UnknownName) as caught:
        read_recipe("clena")
    assert caught.value.hint == "did you mean 'clean'?"
