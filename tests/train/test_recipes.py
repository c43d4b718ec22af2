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
        ('base = "modern"\n[meg]\npases = 3', r"unknown setting 'pases' in \[meg\]"),
        ('base = "modern"\nname = "mine"', "unknown setting 'name'"),
        ('base = "modern"\neeg = 3', "eeg = 3 is no table"),
        ("base = 3", "starts from '3'"),
        ('base = "modern"\nsplit = "time"', "split = 'time' is no choice"),
        ('base = "modern"\nsplit = ["concept"]', "is no choice"),
        ('base = "modern"\nchoose_by = "val_top1"', "choose_by = 'val_top1'"),
        ('base = "modern"\nbrain_encoder = "niece"', "brain_encoder = 'niece'"),
        ('base = "modern"\nloss = "l2"', "loss = 'l2'"),
        ('base = "modern"\nloss = "braindecode:Loss"', "is no choice"),
        *((f'base = "modern"\ntrain_on = {v}', "train_on = ") for v in ('"random"', '"random-0"', '"random--1"', "2")),
        *((f'base = "modern"\nseeds = {v}', "seeds = ") for v in ("[]", "3", "[-1]", "[true]", '["a"]')),
        ('base = "modern"\nbrain = 3', "brain = 3 is no table"),
        ('base = "modern"\n[brain.niece]\nbatch = 64', r"\[brain.niece\]"),
        ('base = "modern"\n[brain.nice]\nbach = 64', r"unknown setting 'bach' in \[brain.nice\]"),
        ('base = "modern"\nunit_scale = 1', "unit_scale = 1"),
        ('base = "modern"\nlearn_temperature = "yes"', "learn_temperature = 'yes'"),
        *(
            (f'base = "modern"\n{key} = {value}', f"{key} = .* is out of range")
            for key, values in {
                "lr": ('"fast"', "0", "-1.0", "11", "nan", "inf", "true", "[1e-4]"),
                "weight_decay": ("-1e-9", "nan", "inf", '"none"'),
                "clip": ("-0.1", "nan", "inf", "false"),
                "temperature": ("0", "0.009", "-1", "nan", "inf", '"hot"'),
                "held_out": ("0", "1", "1.5", "-0.1", "nan"),
                "held_out_at_most": ("1", "0", "-3", "2.5", "true", '"all"'),
                "dim": ("-1", "0.5", '"all"'),
                "batch": ("1", "0", "-8", "64.0", "true"),
                "passes": ("0", "-1", "1.5", "true"),
            }.items()
            for value in values
        ),
        *(
            (f'base = "modern"\nwindow = {value}', "window = .* is not a first and a later last time")
            for value in (
                "[0.0]",
                "[0.5, 0.5]",
                "[0.5, 0.0]",
                "[0.0, 0.1, 0.2]",
                "[0.0, nan]",
                "[0.0, inf]",
                '"all"',
                "1",
            )
        ),
        *(
            (f'base = "modern"\nchannels = {value}', "channels = .* is not a list of different names")
            for value in ('"Oz"', "[1]", '["Oz", "Oz"]', '[""]', "17")
        ),
    ],
)
def test_a_mistake_in_a_recipe_is_named(tmp_path, text, said):
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(EmbedctlError, match=said) as problem:
        read_recipe(str(file), "eeg")
    assert problem.value.hint
    assert "\n" not in f"{problem.value}{problem.value.hint}"
    assert problem.value.exit_code == 2


def test_an_unknown_setting_comes_with_a_suggestion(tmp_path):
    (tmp_path / "mine.toml").write_text('base = "modern"\n[eeg]\nhold_out = 0.1')
    with pytest.raises(UnknownName) as problem:
        read_recipe(str(tmp_path / "mine.toml"), "meg")
    assert problem.value.hint == "did you mean 'held_out'?"


@pytest.mark.parametrize("content", [b"\xff\xfe", None], ids=["not text", "a folder"])
def test_a_recipe_that_cannot_be_read_is_two_lines(tmp_path, content):
    file = tmp_path / "mine.toml"
    file.mkdir() if content is None else file.write_bytes(content)
    with pytest.raises(EmbedctlError) as problem:
        read_recipe(str(file), "eeg")
    assert problem.value.hint and "\n" not in str(problem.value)


@pytest.mark.parametrize(
    "text", ["weight_decay = 0", "clip = 0", "dim = 0", "window = [0, 1]", "batch = 2", "lr = 1", "window = []"]
)
def test_what_is_at_the_edge_of_a_range_is_in_it(tmp_path, text):
    (tmp_path / "mine.toml").write_text(f'base = "modern"\n{text}')
    read_recipe(str(tmp_path / "mine.toml"), "eeg")


def test_the_same_number_written_in_two_ways_is_the_same_recipe():
    modern = read_recipe("modern", "eeg")
    first, second = modern.with_(lr=1, window=[0, 1]), modern.with_(lr=1.0, window=(0.0, 1.0))
    assert repr(first.settings()) == repr(second.settings())


def test_voxels_get_the_residual_mlp_and_the_rest_eegproject():
    assert [read_recipe("modern", kind).brain_encoder for kind in ("eeg", "meg", "fmri")] == [
        "eegproject",
        "eegproject",
        "residual-mlp",
    ]


def test_what_differs_for_a_brain_encoder_holds_for_it_alone_and_gives_way_to_what_is_said_later(tmp_path):
    (tmp_path / "mine.toml").write_text('base = "modern"\nlr = 1e-3\n[meg]\nlr = 2e-3\n[brain.nice]\nlr = 3e-3\n')
    mine = str(tmp_path / "mine.toml")
    assert read_recipe(mine, "eeg").lr == 1e-3
    assert read_recipe(mine, "meg").lr == 2e-3
    for name in ("nice", "NICE", "nice+linear"):
        recipe = read_recipe(mine, "meg", name)
        assert (recipe.lr, recipe.brain_encoder) == (3e-3, name.lower())
    # A recipe that starts from one with such a table, and says otherwise, means it for all brain encoders.
    (tmp_path / "other.toml").write_text('base = "paper"\nbatch = 32\n')
    other, paper = (read_recipe(name, "eeg", "eegnet") for name in (str(tmp_path / "other.toml"), "paper"))
    assert (other.batch, paper.batch) == (32, 512)
    assert other.lr == paper.lr == 1e-2


@pytest.mark.parametrize(
    "modality, brain_encoder, expected",
    [
        # passes, batch, learning rate, temperature: the scripts that ran, where the text says otherwise
        ("eeg", "", ("nice+linear", 50, 128, 2e-4, 0.04)),
        ("eeg", "atm-s+linear", ("atm-s+linear", 80, 128, 2e-4, 0.04)),
        ("eeg", "eegnet", ("eegnet", 200, 512, 1e-2, 0.04)),
        ("eeg", "eegconformer", ("eegconformer", 200, 128, 2e-4, 0.07)),
        ("meg", "", ("nice+linear", 50, 128, 2e-4, 0.04)),
        ("fmri", "", ("brain-mlp", 50, 128, 1e-4, 0.07)),
    ],
)
def test_the_paper_has_a_setting_per_modality_and_brain_encoder(modality, brain_encoder, expected):
    recipe = read_recipe("paper", modality, brain_encoder)
    assert (recipe.brain_encoder, recipe.passes, recipe.batch, recipe.lr, recipe.temperature) == expected
    assert (recipe.weight_decay, recipe.clip, recipe.patience, recipe.val_batch) == (0.1, 1.0, 30, 64)
    assert (recipe.lr_rule, recipe.choose_by, recipe.split, recipe.held_out) == (
        "val-loss-cosine",
        "val_loss",
        "image",
        0.1,
    )
    assert recipe.held_out_at_most >= 1654  # a tenth of the images of THINGS-EEG2
    assert (recipe.learn_temperature, recipe.unit_scale, recipe.image_head, recipe.dim) == (False, False, "none", 0)
    assert recipe.seeds == (7, 42, 191, 2025, 96723)
    assert recipe.channels == ()
    assert recipe.trial_norm == {"eeg": "norm-then-mean", "meg": "mean-then-norm", "fmri": "none"}[modality]
    assert recipe.train_on == {"eeg": "mean", "meg": "trials", "fmri": "mean"}[modality]
