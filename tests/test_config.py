"""Which value holds: flag > environment > ./embedctl.toml > user file > default."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedctl import config
from embedctl.settings import SETTINGS, names, numbers
from stores.errors import EmbedctlError


def written(folder, name, text):
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


@pytest.fixture
def layers(tmp_path):
    project = written(tmp_path, "embedctl.toml", '[train]\nseed = [1]\nrecipe = "paper"\njoin = "stem"\n')
    user = written(tmp_path, "user.toml", '[train]\nseed = [2]\njoin = "suffix"\n[extract]\nexact = true\n')
    return config.load(environ={"EMBEDCTL_TRAIN_SEED": "3..5"}, files=(project, user))


def test_a_flag_wins_over_everything(layers):
    assert layers.value("train.seed", flag=["9"]) == (9,)


def test_a_variable_wins_over_files(layers):
    assert layers.value("train.seed") == (3, 4, 5)
    assert layers.origin("train.seed") == "EMBEDCTL_TRAIN_SEED"


def test_the_project_wins_over_the_user(layers):
    assert layers.value("train.join") == "stem"
    assert layers.origin("train.join").endswith("embedctl.toml")


def test_the_user_wins_over_the_default(layers):
    assert layers.value("extract.exact") is True
    assert layers.origin("extract.exact").endswith("user.toml")


def test_what_nobody_spoke_of_is_the_default(layers):
    assert layers.value("extract.dtype") == "float16"
    assert layers.origin("extract.dtype") == "default"


@pytest.mark.parametrize("text", ["4..1", "0..2,7..5", "sub-09..sub-02", "..3", "2.."])
def test_a_range_that_holds_no_number_is_refused(layers, text):
    with pytest.raises(ValueError):
        numbers([text])
    with pytest.raises(EmbedctlError) as problem:
        layers.value("train.subject", flag=[text])
    assert (problem.value.exit_code, problem.value.what) == (2, f"train.subject cannot be {[text]!r} (--subject)")
    assert "from a lower to a higher one (0..4)" in problem.value.hint


@pytest.mark.parametrize("key", ["train.subject", "train.model", "train.seed", "preprocess.subject", "extract.model"])
@pytest.mark.parametrize("flag", [[""], [" , "]])
def test_a_flag_that_names_nothing_does_not_mean_everything(layers, key, flag):
    with pytest.raises(EmbedctlError, match=f"--{key.rpartition('.')[2]} names nothing"):
        layers.value(key, flag=flag)


def test_the_written_file_reads_back_as_the_defaults(tmp_path):
    file = written(tmp_path, "embedctl.toml", config.written_out())
    chosen = config.load(environ={}, files=(file,))
    for key, setting in SETTINGS.items():
        assert chosen.value(key) == setting.default, key
        assert chosen.origin(key) == str(file), key


def test_every_default_is_what_its_own_reader_makes_of_it():
    for setting in SETTINGS.values():
        if not setting.choices:
            assert setting.read(setting.default) == setting.default, setting.key


def test_every_setting_is_explained_in_the_written_file():
    text = config.written_out()
    assert len(tomllib.loads(text)) > 0
    for setting in SETTINGS.values():
        assert setting.about in text


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("[train]\nsede = 1\n", "no setting is called 'train.sede'", "did you mean 'train.seed'?"),
        ("imges = 'x'\n", "no setting is called 'imges'", "did you mean 'images'?"),
        ("[trian]\nseed = 1\n", "no setting is called 'trian.seed'", "did you mean 'train.seed'?"),
        ("[train\n", "is not TOML", "'embedctl init' writes one to start from"),
    ],
)
def test_a_file_nobody_can_follow_is_an_error_with_a_way_out(tmp_path, text, what, hint):
    file = written(tmp_path, "embedctl.toml", text)
    with pytest.raises(EmbedctlError, match=what) as problem:
        config.load(environ={}, files=(file,))
    assert str(file) in problem.value.what
    assert problem.value.hint == hint


def test_an_unknown_variable_is_an_error():
    with pytest.raises(EmbedctlError, match="EMBEDCTL_SEED") as problem:
        config.load(environ={"EMBEDCTL_TRAIN_SEDE": "1", "EMBEDCTL_SEED": "1"}, files=())
    assert "EMBEDCTL_TRAIN_SEED" in problem.value.hint


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("train.seed", "one"),
        ("train.seed", [-1]),
        ("extract.batch-size", "0"),
        ("extract.batch-size", True),
        ("extract.exact", "maybe"),
        ("extract.model", [1]),
        ("images", 3),
        ("extract.dtype", "float64"),
    ],
)
def test_a_value_of_the_wrong_kind_names_who_said_it(key, said):
    chosen = config.Config({key: (said, "embedctl.toml")})
    with pytest.raises(EmbedctlError) as problem:
        chosen.value(key)
    assert key in problem.value.what and problem.value.hint


@given(st.lists(st.integers(0, 99), min_size=1, unique=True))
def test_numbers_read_what_they_print(some):
    assert numbers(",".join(map(str, some))) == tuple(some) == numbers(some) == numbers([str(n) for n in some])


@given(st.integers(0, 50), st.integers(0, 50))
def test_a_range_has_both_ends(first, length):
    assert numbers(f"{first}..{first + length}") == tuple(range(first, first + length + 1))


def test_names_keep_their_order_and_appear_once():
    assert names(["b,a", "b", " c "]) == ("b", "a", "c")


def test_a_range_without_end_is_a_slip_and_fills_no_memory():
    with pytest.raises(EmbedctlError, match="train.seed cannot be '0..99999999999'"):
        SETTINGS["train.seed"].read("0..99999999999")
