"""The registry is data, and a key changes exactly when the numbers would."""

import subprocess
import sys
from dataclasses import replace

import pytest

from pipelines.encoders import registry as cards
from pipelines.encoders.key import embedding_key, versions_that_matter
from pipelines.encoders.registry import add_cards, find, read_cards, registry
from stores.errors import EmbedctlError, NotHere, UnknownName
from stores.names import EmbeddingName

NAME = EmbeddingName("vitb16-in1k")
GIVEN = {"weights": "random:7", "exact": True, "batch_size": 32, "dtype": "float16", "versions": {"torch": "2.13"}}


def test_an_unknown_id_comes_with_the_closest_known_one():
    with pytest.raises(UnknownName, match="no encoder called 'clip-vitb23'") as problem:
        find("clip-vitb23")
    assert problem.value.hint == "did you mean 'clip-vitb32'?"


def test_listing_and_keys_import_no_torch():
    code = (
        "import sys; from pipelines.encoders.registry import registry; from pipelines.encoders.key import "
        "versions_that_matter; [versions_that_matter(s, 'none') for s in registry().values()]; "
        "sys.exit(bool({'torch', 'timm', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


INPUT = 'input = { resize = "bilinear", fit = "shortest", resize_to = 256, size = 224, norm = "imagenet" }'


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[a", "not valid TOML"),
        ('[a]\nfamily = "timm"\n', "has no 'dim'"),
        ('[a]\nfamily = "timm"\ndim = 1\ninput = {}\nlicense = "MIT"', "unknown key 'license'"),
        (f'[a]\nfamily = "timm"\ndim = 1\n{INPUT.replace("imagenet", "nonsense")}', "cannot be read"),
        ("a = 3", "'a' is no table"),
        (f'[a]\nfamily = "timm"\ndim = "512"\n{INPUT}', "dim is '512', not of the kind int"),
        (f'[a]\nfamily = "timm"\ndim = 1\nfitted_on = "THINGS"\n{INPUT}', "fitted_on is 'THINGS', not a list"),
        (f'[a]\nfamily = "timm"\ndim = 1\n{INPUT.replace("shortest", "Squash")}', "fits 'Squash' by 'bilinear'"),
        (f'[a]\nfamily = "timm"\ndim = 1\n{INPUT.replace("bilinear", "area")}', "fits 'shortest' by 'area'"),
        (f'[a]\nfamily = "timm"\ndim = 1\n{INPUT.replace("256", "100")}', "to 100 pixels and cuts 224 out of them"),
        *(
            (f'[a]\nfamily = "{family}"\ndim = 1\nmodel = {{ {model} }}\n{INPUT}', "files belong into weights")
            for family, model in [
                ("open_clip", 'name = "RN50", pretrained_image_path = "a.pt"'),  # unpickled, with the next
                ("open_clip", 'name = "RN50", weights_only = false'),
                ("open_clip", 'name = "local-dir:."'),
                ("open_clip", 'name = "RN50", text_cfg = { hf_model_name = "a/b" }'),
                ("timm", 'name = "resnet18", checkpoint_path = "a.pth"'),
                ("timm", 'name = "hf-hub:a/b"'),
                ("timm", 'name = ["resnet18"]'),
                ("torchvision", 'name = "resnet18", weights_backbone = "DEFAULT"'),
            ]
        ),
    ],
)
def test_a_card_that_cannot_be_used_is_named(tmp_path, text, what):
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(EmbedctlError, match=what):
        read_cards(tmp_path)


def test_what_is_made_of_an_encoder_fitted_to_things_counts_as_fitted_to_it(tmp_path, forget_added_cards):
    made = '[{}]\nfamily = "concat"\ndim = 1\nmodel = {{ of = ["{}:blocks.3@grey", "pixels"] }}\n'
    pairs = {"inner": "glocal-clip-rn50", "outer": "inner", "plain": "clip-rn50", "round": "round"}
    (tmp_path / "mine.toml").write_text("".join(made.format(*pair) for pair in pairs.items()))
    cards.add_cards(tmp_path)
    flags = {id_: find(id_).contaminated for id_ in pairs}
    assert flags == {"inner": True, "outer": True, "plain": False, "round": False}


def test_two_addresses_that_would_be_one_file_in_the_cache_are_refused(tmp_path, forget_added_cards):
    table = '[{0}]\nfamily = "timm"\ndim = 1\n{1}\nweights = [{{ url = "https://{0}.org/model.pth" }}]\n'
    (tmp_path / "mine.toml").write_text(table.format("a", INPUT) + table.format("b", INPUT))
    with pytest.raises(EmbedctlError, match="would be kept as 'model.pth', which those of https://a.org") as problem:
        cards.add_cards(tmp_path)
    assert problem.value.hint == 'give them a name of their own: filename = "b.pth"'


MINE = """
[my-resnet]
family = "torchvision"
model = { name = "resnet18" }
tap = "avgpool"
pooling = "flatten"
dim = 512
input = { resize = "bilinear", fit = "shortest", resize_to = 256, size = 224, norm = "imagenet" }
"""


@pytest.fixture
def forget_added_cards(monkeypatch):
    monkeypatch.setattr(cards, "_added", [])
    yield
    registry.cache_clear()


def test_a_folder_of_cards_adds_encoders(tmp_path, forget_added_cards):
    (tmp_path / "mine.toml").write_text(MINE)
    add_cards(tmp_path)
    assert find("my-resnet").dim == 512 and "resnet50-tv" in registry()


def test_a_card_cannot_take_an_id_that_is_taken(tmp_path, forget_added_cards):
    (tmp_path / "mine.toml").write_text(MINE.replace("my-resnet", "resnet50-tv"))
    with pytest.raises(EmbedctlError, match="registers 'resnet50-tv', which is taken"):
        add_cards(tmp_path)
    assert find("resnet50-tv").weights


def test_a_folder_without_cards_is_refused(tmp_path):
    with pytest.raises(EmbedctlError, match="no cards in"):
        add_cards(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"weights": "random:8"},
        {"exact": False},
        {"batch_size": 16},
        {"dtype": "float32"},
        {"versions": {"torch": "2.14"}},
        {"name": EmbeddingName("vitb16-in1k", "blocks.7")},
        {"name": EmbeddingName("vitb16-in1k", "norm", "mean")},
        {"name": EmbeddingName("vitb16-in1k", view="grey")},
        {"spec": replace(find("vitb16-in1k"), preprocessing=find("resnet50-tv").preprocessing)},
        {"spec": replace(find("vitb16-in1k"), model={"name": "vit_base_patch16_224.augreg_in21k"})},
    ],
)
def test_whatever_changes_the_numbers_changes_the_key(change):
    given = {"spec": find("vitb16-in1k"), "name": NAME, **GIVEN}
    assert embedding_key(**given)[0] != embedding_key(**{**given, **change})[0]


@pytest.mark.parametrize(
    ("id_", "has_fast"), [("resnet50-tv", True), ("harmonized-vit", False), ("alignet-siglip2-b", False)]
)
def test_exact_is_in_the_key_only_where_there_is_another_way(id_, has_fast):
    fast, exact = (embedding_key(find(id_), EmbeddingName(id_), **{**GIVEN, "exact": exact}) for exact in (False, True))
    assert (fast != exact) == has_fast and exact[1]["exact"]


@pytest.mark.parametrize("change", [{"licence": "?"}, {"notes": "?"}, {"base": "x"}, {"reference": "?"}, {"dim": 1}])
def test_what_only_describes_an_encoder_is_not_in_its_key(change):
    spec = find("vitb16-in1k")
    assert embedding_key(spec, NAME, **GIVEN) == embedding_key(replace(spec, **change), NAME, **GIVEN)


def test_a_library_whose_version_nobody_knows_gives_no_key_and_so_no_row_is_taken_for_the_same(monkeypatch):
    monkeypatch.setattr("pipelines.encoders.key.installed_version", lambda package: "")
    with pytest.raises(NotHere, match="which version of torch is here cannot be told"):
        versions_that_matter(find("pixels"), "none")


def test_the_recipe_leaves_the_batch_size_out_so_that_a_resume_can_adopt_it():
    (first, recipe), (second, other) = (
        embedding_key(find("vitb16-in1k"), NAME, **{**GIVEN, "batch_size": n}) for n in (16, 32)
    )
    assert first != second and recipe == other


def test_random_weights_depend_on_every_patch_of_the_library_and_published_ones_do_not():
    spec = find("vitb16-in1k")
    assert versions_that_matter(spec, "random:0")["timm"].count(".") == 2
    assert versions_that_matter(spec, "sha256:00")["timm"].count(".") == 1


def test_every_alias_means_one_encoder():
    names = [*registry(), *(alias for spec in registry().values() for alias in spec.alias)]
    assert len(names) == len(set(names))
