"""Every row of the registry builds, and says of its network, pixels and weights what the libraries say."""

import ast
import re
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.encoders.build import Encoder, build
from pipelines.encoders.families import FAMILIES
from pipelines.encoders.preprocessing import exact_transform
from pipelines.encoders.registry import NORMS, EncoderSpec, registry
from pipelines.encoders.torchvision_import import torchvision
from pipelines.encoders.weights import resolve_weights
from stores.names import EmbeddingName

OURS = ("alignet", "brain_like", "classical", "dino", "dreamsim", "harmonization", "open_clip", "timm", "torchvision")
QUICK = {"dinov2-vitb14-reg", "levit-128", "siglip-vitb16", "mobilenetv3-small-tv"}
# Rows whose pixels are not their library's default, and why the table says so in its notes.
OTHER_PIXELS = {
    "dinov2-vitb14",
    "dinov2-vitl14",
    "dinov2-vitg14",
    "dinov2-vitb14-reg",
    "synclr-vitb16",
    "rclip-convnext-b-base",
}
SPECS = list(registry().values())
OTHER_PIXELS |= {spec.matched_base for spec in SPECS if spec.aligned_by == "harmonization"}


def rows(family: str) -> list[EncoderSpec]:
    return [spec for spec in SPECS if spec.family == family]


def quick_or_slow(specs):
    """Networks on the meta device: a second each, so most of them are left to the slow run."""
    return [
        pytest.param(s, id=s.id, marks=[] if s.id in QUICK or s.family == "classical" else pytest.mark.slow)
        for s in specs
    ]


def named(specs):
    return [pytest.param(spec, id=spec.id) for spec in specs]


@pytest.fixture(scope="module")
def image() -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (391, 517, 3), np.uint8))


@pytest.mark.parametrize("spec", quick_or_slow([spec for spec in SPECS if spec.family in OURS]))
def test_the_row_builds_with_the_dim_it_declares_and_layers_that_exist(spec):
    weights = resolve_weights(spec, "random:0")
    network = FAMILIES[spec.family].builder()(spec, weights, "meta")
    encoder = Encoder(spec, weights, network, [EmbeddingName(spec.id)], "meta")
    assert encoder.dims == {EmbeddingName(spec.id): spec.dim}
    assert {*network.blocks, spec.tap} <= set(network.layers) and network.layers[-1] == "output"
    inside = dict(network.module.named_modules())
    assert all(network.path(layer) in inside for layer in network.layers if layer != "output")


@pytest.mark.parametrize("spec", quick_or_slow([s for s in rows("timm") if s.tap == "norm" or s.pooling == "mean"]))
def test_the_tap_of_a_timm_row_is_what_timm_returns_without_a_classifier(spec):
    taps = [EmbeddingName(spec.id), EmbeddingName(spec.id, "output")]
    shallow = replace(spec, model={**spec.model, "depth": 1})  # width, tokens and pooling are the real ones
    x = torch.rand(2, 3, spec.preprocessing.size, spec.preprocessing.size)
    ours, library = build(shallow, weights="random:0", taps=taps)(x).values()
    assert torch.equal(ours, library)


@pytest.mark.parametrize("spec", named(s for s in rows("timm") if s.id not in OTHER_PIXELS))
def test_the_pixels_of_a_timm_row_are_those_of_timm(spec, image):
    import timm

    config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(spec.model["name"]).to_dict())
    library = timm.data.create_transform(**config, is_training=False)
    assert torch.equal(exact_transform(spec.preprocessing)(image), library(image))


def published_by_open_clip(spec: EncoderSpec) -> tuple[str, dict]:
    """Find the tag of open_clip's own table that this row's weights are: by hub repository, else by URL."""
    import open_clip

    for arch, tags in open_clip.pretrained._PRETRAINED.items():
        for tag, config in tags.items():
            same_url = spec.weights[0].url and spec.weights[0].url == config.get("url")
            if arch.lower() == spec.model["name"].lower() and (
                same_url or (spec.weights[0].hub and config.get("hf_hub", "").rstrip("/") == spec.weights[0].hub)
            ):
                return tag, config
    raise AssertionError(f"open_clip has no {spec.model['name']} with the weights of {spec.id}")


FINE_TUNED = {spec.id for spec in SPECS if spec.family == "open_clip" and spec.aligned_by}  # by others, elsewhere


@pytest.mark.parametrize("spec", named(spec for spec in rows("open_clip") if spec.id not in FINE_TUNED))
def test_weights_activation_and_pixels_of_an_open_clip_row_are_those_of_open_clip(spec, image):
    import open_clip

    _, config = published_by_open_clip(spec)
    quick = bool(open_clip.get_model_config(spec.model["name"]).get("quick_gelu"))
    assert quick == bool(config.get("quick_gelu")), "the weights were trained with the other activation"
    if spec.id in OTHER_PIXELS:
        return
    library = open_clip.image_transform(
        spec.preprocessing.size,
        is_train=False,
        mean=config["mean"],
        std=config["std"],
        interpolation=config["interpolation"],
        resize_mode=config["resize_mode"],
    )
    assert torch.equal(exact_transform(spec.preprocessing)(image), library(image))


@pytest.mark.parametrize("spec", named(s for s in rows("torchvision") if s.id.endswith("-tv")))
def test_weights_and_pixels_of_a_torchvision_row_are_those_of_torchvision(spec, image):
    weights = torchvision.models.get_model_weights(spec.model["name"]).IMAGENET1K_V1
    assert weights.url == spec.weights[0].url
    assert torch.equal(exact_transform(spec.preprocessing)(image), weights.transforms()(image))


# Rows without a library that could judge their pixels, as the methods' own papers and code describe them; of two
# patterns the longer one counts.
DESCRIBED = {
    "dreamsim-*clip-*": ("bicubic", "squash", 224, 224, "clip"),
    "dreamsim-dino*": ("bicubic", "squash", 224, 224, "imagenet"),
    "dreamsim-synclr*": ("bicubic", "squash", 224, 224, "imagenet"),
    "dreamsim-ensemble*": ("bicubic", "squash", 224, 224, "none"),
    "glocal-*clip-*": ("bicubic", "shortest", 224, 224, "clip"),
    "glocal-openclip-vitl14-laion2b": ("bicubic", "shortest", 224, 224, "half"),
    "glocal-[drva]*": ("bilinear", "shortest", 256, 224, "imagenet"),
    "harmonized-*": ("tf-bicubic", "squash", 224, 224, "imagenet"),
    "alignet-*": ("opencv", "squash", 224, 224, "none"),
    "robust-*": ("bilinear", "shortest", 256, 224, "imagenet"),
    "cornet-*": ("bilinear", "shortest", 256, 224, "imagenet"),
    "vonenet-*": ("bilinear", "shortest", 256, 224, "half"),
    "ecoset-*": ("bilinear", "shortest", 256, 224, "imagenet"),
    "dinov2-*": ("bicubic", "shortest", 256, 224, "imagenet"),
}


@pytest.mark.parametrize("pattern", DESCRIBED)
def test_the_pixels_of_a_method_are_those_it_describes(pattern):
    resize, fit, resize_to, size, norm = DESCRIBED[pattern]
    longest = {s.id: max((p for p in DESCRIBED if fnmatchcase(s.id, p)), key=len, default="") for s in SPECS}
    found = {spec.preprocessing for spec in SPECS if longest[spec.id] == pattern}
    (p,) = found
    assert (p.resize, p.fit, p.resize_to, p.size, (p.mean, p.std)) == (resize, fit, resize_to, size, NORMS[norm])


def test_no_two_rows_share_a_file_they_should_not():
    """The wrong-file bug of gLocal: one digest under two addresses."""
    addresses: dict[str, set[str]] = {}
    for spec in SPECS:
        for file in spec.weights:
            assert file.source and file.name, spec.id
            addresses.setdefault(file.sha256 or file.source, set()).add(file.source)
    assert all(len(sources) == 1 for sources in addresses.values())


def test_a_pin_is_a_whole_commit_or_digest_or_the_digits_that_the_file_name_carries():
    for file in (file for spec in SPECS for file in spec.weights):
        assert re.fullmatch("([0-9a-f]{40})?", file.revision), file
        assert re.fullmatch("([0-9a-f]{64})?", file.sha256) or file.sha256 in file.name, file
        named = re.search(r"-([0-9a-f]{8})\.pth?$", file.name)
        assert not named or file.sha256.startswith(named[1]), file


def test_torchscript_is_read_only_where_its_whole_digest_is_known():
    for spec in rows("open_clip"):
        if "openaipublic" in spec.weights[0].url:
            assert len(spec.weights[0].sha256) == 64 and spec.weights[0].sha256 in spec.weights[0].url


ALIGNED = [spec for spec in SPECS if spec.aligned_by]


def test_what_a_row_is_compared_with_exists_and_is_no_other_aligned_encoder():
    for spec in SPECS:
        for other in filter(None, (spec.base, spec.matched_base, spec.control)):
            assert other in registry() and other != spec.id and not registry()[other].aligned_by, spec.id
        assert bool(spec.matched_base) == bool(spec.match) == bool(spec.aligned_by), spec.id
        assert not (spec.base or spec.control) or spec.aligned_by, spec.id


def test_a_pair_differs_in_nothing_but_the_alignment():
    for spec in ALIGNED:
        base = registry()[spec.matched_base]
        assert spec.match in ("exact", "architecture"), spec.id
        for field in ("preprocessing", "tap", "pooling", "dim"):
            assert getattr(base, field) == getattr(spec, field), (spec.id, field)
        # The base has seen nothing that the aligned one has not.
        assert spec.match == "architecture" or set(base.fitted_on) <= set(spec.fitted_on), spec.id


@pytest.mark.parametrize("spec", quick_or_slow([s for s in ALIGNED if s.family in OURS]))
def test_an_aligned_encoder_has_the_layers_of_its_matched_base(spec):
    """A layer is paired with the same layer of the base: `dreamsim-...:blocks.7` with `...-base:blocks.7`."""
    ours, theirs = (
        FAMILIES[s.family].builder()(s, resolve_weights(s, "random:0"), "meta").blocks
        for s in (spec, registry()[spec.matched_base])
    )
    assert ours == theirs


def test_the_pairs_whose_only_difference_is_the_alignment_are_those_of_the_methods_that_keep_their_base():
    """Harmonization publishes no network trained alike."""
    exact = {spec.aligned_by for spec in ALIGNED if spec.match == "exact"}
    assert exact == {"alignet", "dreamsim", "glocal", "adversarial training", "realnet"}


def test_what_was_fitted_to_things_or_to_brain_data_says_so():
    for spec in (spec for spec in ALIGNED if spec.aligned_by in ("glocal", "realnet", "alignet")):
        assert spec.contaminated, spec.id
        assert not any(registry()[base].contaminated for base in (spec.matched_base, spec.base) if base), spec.id


def test_nothing_else_counts_as_fitted_to_them():
    """DreamSim and Harmonization do not touch THINGS, whatever else they were fitted to."""
    assert {spec.aligned_by for spec in SPECS if spec.contaminated} == {"glocal", "realnet", "alignet"}


# The paper: column of its tables, then the aligned encoder and what it was compared with.
TABLES = {
    "CLIP": ("dreamsim-clip-vitb32", "clip-vitb32"),
    "OpenCLIP": ("dreamsim-openclip-vitb32", "openclip-vitb32-laion400m"),
    "DINO": ("dreamsim-dino-vitb16", "dino-vitb16"),
    "DINOv2": ("dreamsim-dinov2-vitb14", "dinov2-vitb14"),
    "SynCLR": ("dreamsim-synclr-vitb16", "dreamsim-synclr-vitb16-base"),
    "Ensemble": ("dreamsim-ensemble", "dreamsim-ensemble-base"),
}
FIGURES = {
    "gLocal CLIP L/14": ("glocal-clip-vitl14", "clip-vitl14"),
    "gLocal OpenCLIP L/14": ("glocal-openclip-vitl14-laion400m", "openclip-vitl14-laion400m"),
    "gLocal DINO B/8": ("glocal-dino-vitb8", "dino-vitb8"),
    "gLocal DINO B/16": ("glocal-dino-vitb16", "dino-vitb16"),
    "gLocal CLIP RN50": ("glocal-clip-rn50", "clip-rn50"),
    "Harmonization ViT-B/16": ("harmonized-vit", "vitb16-augreg2-in21k-ft-in1k"),
    "Harmonization ResNet-50": ("harmonized-resnet50v2", "resnet50-a1"),
    "Harmonization VGG-16": ("harmonized-vgg16", "vgg16-tv"),
    "Harmonization ConvNeXt-T": ("harmonized-convnext-tiny", "convnext-tiny-in12k-ft-in1k"),
    "Harmonization LeViT-128": ("harmonized-levit", "levit-conv-128"),
}
DIMS = {"CLIP": 512, "OpenCLIP": 512, "DINO": 768, "DINOv2": 768, "SynCLR": 768, "Ensemble": 1792}
# Configured by its code and compared with nothing.
UNPAIRED = {
    "glocal-openclip-vitl14-laion2b",
    "glocal-dinov2-vitb14",
    "glocal-dinov2-vitl14",
    "openclip-vith14-laion2b",
    "dinov2-vitl14",
}


@pytest.mark.parametrize(("column", "aligned", "base"), [(c, *pair) for c, pair in (TABLES | FIGURES).items()])
def test_every_encoder_of_the_paper_is_here_beside_what_the_paper_compared_it_with(column, aligned, base):
    assert registry()[aligned].base == base and UNPAIRED <= set(registry())
    if column in DIMS:
        assert registry()[aligned].dim == registry()[base].dim == DIMS[column]


def test_a_row_says_who_may_use_it_what_it_was_fitted_to_and_where_to_read_about_it():
    for spec in SPECS:
        assert spec.licence and spec.dim > 0, spec.id
        assert spec.family == "classical" or (spec.fitted_on and spec.reference), spec.id


def test_open_clips_own_warning_about_the_activation_is_an_error_while_building(monkeypatch):
    import open_clip

    from pipelines.encoders.open_clip_family import _silent_but_strict

    monkeypatch.setattr("open_clip.factory.download_pretrained", lambda *_, **__: "nowhere.pt")
    with pytest.raises(UserWarning, match="QuickGELU mismatch"), _silent_but_strict():
        open_clip.create_model("ViT-B-32", pretrained="openai", device="meta")


def test_whoever_imports_timm_or_open_clip_declares_the_operators_of_torchvision_first():
    """Otherwise `import timm` fails where torch is a CPU build and torchvision is not, but only in a fresh process."""
    for path in (Path(__file__).parent.parent / "pipelines").rglob("*.py"):
        names = [
            alias.name if isinstance(node, ast.Import) else str(node.module)
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for alias in node.names
        ]
        late = [name for name in names if name.split(".")[0] in ("timm", "open_clip")]
        if late:
            assert "pipelines.encoders.torchvision_import" in names[: names.index(late[0])], path.name
