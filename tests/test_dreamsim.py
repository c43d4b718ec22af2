"""DreamSim in small: the same code on networks of three blocks. In full size: test_dreamsim_package."""

import json
import zipfile
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipelines.encoders import dreamsim_family
from pipelines.encoders.build import build, resolve_layers
from pipelines.encoders.dino_family import interpolate_position_embedding
from pipelines.encoders.lora import Adapter, merge
from pipelines.encoders.registry import find, registry
from stores.errors import EmbedctlError, NotHere
from stores.names import EmbeddingName
from tests.dreamsim_reference import adapter_folder, branches, fabricate, hub_position_embedding

SMALL = {"embed_dim": 48, "depth": 3, "num_heads": 3, "img_size": 32, "patch_size": 8}
DREAMSIM = [spec for spec in registry().values() if spec.aligned_by == "dreamsim"]
TYPES = {spec.id: spec.model["adapter"].removesuffix("_single_lora").removesuffix("_lora") for spec in DREAMSIM}
CLIP, DINOV2, ENSEMBLE = "dreamsim-clip-vitb32", "dreamsim-dinov2-vitb14", "dreamsim-ensemble"


@pytest.fixture(autouse=True)
def small_trunks(monkeypatch):
    """The trunks of DreamSim, all as small as the checkpoints that `checkpoint` makes."""
    trunks = {
        name: replace(trunk, options={**trunk.options, **SMALL}) for name, trunk in dreamsim_family.TRUNKS.items()
    }
    monkeypatch.setattr(dreamsim_family, "TRUNKS", trunks)
    return trunks


def small(id_):
    spec = find(id_)
    return replace(
        spec,
        preprocessing=replace(spec.preprocessing, size=32, resize_to=32),
        tap=spec.tap.replace("11", "2"),
    )


def checkpoint(folder, type_):
    fabricate(folder, type_, width=48, depth=3, patch=8, image=32, old_grid=7)
    return folder


def pixels():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def rows(spec, weights):
    return build(spec, weights=str(weights))(pixels())[EmbeddingName(spec.id)]


def zipped(folder, path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in folder.rglob("*"):
            archive.write(file, file.relative_to(folder))
    return path


# The patch variants are these networks, read elsewhere.
@pytest.mark.parametrize("id_", [id_ for id_ in TYPES if not id_.endswith("-patch")])
def test_the_merged_network_is_the_base_with_its_adapter_beside(id_, tmp_path):
    checkpoint(tmp_path, TYPES[id_])
    aligned, base = small(id_), small(find(id_).matched_base)
    config = json.loads((tmp_path / adapter_folder(TYPES[id_]) / "adapter_config.json").read_text())
    adapter = load_file(tmp_path / adapter_folder(TYPES[id_]) / "adapter_model.safetensors")
    encoder = build(base, weights=str(tmp_path))
    for index, branch in enumerate(branches(TYPES[id_])):
        trunk = encoder._module.get_submodule(branch) if id_ == ENSEMBLE else encoder._module
        for i, block in enumerate(trunk.blocks):
            stem = f"base_model.model.extractor_list.{index}.model.blocks.{i}.attn.qkv.lora_"
            a, b = adapter[f"{stem}A.weight"], adapter[f"{stem}B.weight"]
            scale = config["lora_alpha"] / config["r"]
            block.attn.qkv.register_forward_hook(lambda m, x, y, a=a, b=b, s=scale: y + s * (x[0] @ a.T @ b.T))
    beside = encoder(pixels())[EmbeddingName(base.id)]
    merged = rows(aligned, tmp_path)
    torch.testing.assert_close(merged, beside, atol=1e-5, rtol=0)
    assert (merged - rows(base, tmp_path)).abs().max() > 1e-3


def test_a_zip_and_its_folder_give_the_same_network(tmp_path):
    folder = checkpoint(tmp_path / "unpacked", "clip_vitb32")
    archive = zipped(folder, tmp_path / "dreamsim.zip")
    assert torch.equal(rows(small(CLIP), folder), rows(small(CLIP), archive))


def test_an_adapter_of_early_peft_is_read_from_its_bin_file(tmp_path):
    checkpoint(tmp_path, "clip_vitb32")
    expected = rows(small(CLIP), tmp_path)
    lora = tmp_path / "clip_vitb32_single_lora"
    torch.save(load_file(lora / "adapter_model.safetensors"), lora / "adapter_model.bin")
    (lora / "adapter_model.safetensors").unlink()
    assert torch.equal(rows(small(CLIP), tmp_path), expected)


@pytest.mark.parametrize("old", [37, 7])
def test_the_position_embedding_of_dinov2_is_resampled_as_the_hub_does(old):
    grid = {37: 16, 7: 4}[old]
    learned = torch.randn(1, 1 + old * old, 24, generator=torch.Generator().manual_seed(0))
    ours = interpolate_position_embedding(learned, grid)
    torch.testing.assert_close(ours, hub_position_embedding(learned, grid), atol=1e-5, rtol=0)


def test_random_weights_are_timms_constructor_and_then_the_adapter_block_by_block(small_trunks):
    import timm

    torch.manual_seed(7)
    trunk = timm.create_model("vit_base_patch16_224.dino", pretrained=False, num_classes=0, **SMALL).eval()
    a, b = zip(*[(0.02 * torch.randn(16, 48), 0.02 * torch.randn(144, 16)) for _ in range(3)], strict=True)
    seen = []
    trunk.blocks[2].register_forward_hook(lambda m, x, y: seen.append(y[:, 0].clone()))
    with torch.no_grad():
        trunk(pixels())
        merge(trunk, Adapter(a, b, 32 / 16))
        trunk(pixels())
    torch.testing.assert_close(rows(small("dreamsim-dino-vitb16-base"), "random:7"), seen[0])
    torch.testing.assert_close(rows(small("dreamsim-dino-vitb16"), "random:7"), seen[1])
    assert (seen[0] - seen[1]).abs().max() > 1e-4


def test_a_branch_of_the_random_ensemble_is_the_random_network_on_its_own():
    norm = find("dreamsim-dino-vitb16").preprocessing
    alone = build(small("dreamsim-dino-vitb16-base"), weights="random:3")
    mean, std = torch.tensor(norm.mean).view(-1, 1, 1), torch.tensor(norm.std).view(-1, 1, 1)
    expected = alone((pixels() - mean) / std)[EmbeddingName("dreamsim-dino-vitb16-base")]
    torch.testing.assert_close(rows(small("dreamsim-ensemble-base"), "random:3")[:, :48], expected)


def test_a_hidden_layer_of_a_branch_can_be_asked_for():
    tap = EmbeddingName.parse("dreamsim-ensemble:clip_vitb16.blocks.1.mean")
    assert build(small(ENSEMBLE), weights="random:3", taps=[tap]).dims == {tap: 48}


def test_a_depth_of_the_ensemble_is_that_depth_of_every_branch():
    names = resolve_layers(small(ENSEMBLE), ["depth:0.5.mean"])
    branches = ("dino_vitb16", "clip_vitb16", "open_clip_vitb16")
    assert [str(name) for name in names] == [f"{ENSEMBLE}:{branch}.blocks.1.mean" for branch in branches]


def edit(folder, change):
    lora = folder / adapter_folder("clip_vitb32")
    tensors = load_file(lora / "adapter_model.safetensors")
    config = json.loads((lora / "adapter_config.json").read_text())
    change(tensors, config)
    save_file(tensors, lora / "adapter_model.safetensors")
    (lora / "adapter_config.json").write_text(json.dumps(config))


A0 = "base_model.model.extractor_list.0.model.blocks.0.attn.qkv.lora_A.weight"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda t, c: t.pop(A0), "lora_A of block 0 of branch 0 .clip_vitb32. is missing"),
        (lambda t, c: t.update({A0: torch.zeros(8, 48)}), r"is \(8, 48\), not \(16, 48\)"),
        (lambda t, c: t.update({A0.replace("blocks.0", "blocks.9"): torch.zeros(1)}), "block 9 .* has no place"),
        (lambda t, c: t.update({A0.replace("_list.0", "_list.1"): torch.zeros(1)}), "branch 1 has no place"),
        (lambda t, c: t.update({"base_model.model.mlp.weight": torch.zeros(1)}), "unknown tensor 'base_model.model"),
        (lambda t, c: c.update(use_rslora=True), "sets 'use_rslora'"),
        (lambda t, c: c.pop("r"), "says no 'r'"),
        (lambda t, c: c.update(r="many"), "its configuration cannot be read"),
    ],
)
def test_an_adapter_that_is_not_exactly_the_one_of_the_type_is_a_named_error(tmp_path, change, what):
    edit(checkpoint(tmp_path, "clip_vitb32"), change)
    with pytest.raises(EmbedctlError, match=what):
        build(small(CLIP), weights=str(tmp_path))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda t: t.pop("blocks.1.norm1.bias"), "1 missing"),
        (lambda t: t.pop("proj"), "2 missing .head.weight; head.bias."),
        (lambda t: t.update(extra=torch.zeros(1)), "1 left over .extra."),
        (lambda t: t.update(pos_embed=torch.zeros(1, 5, 48)), "1 misshapen"),
    ],
)
def test_a_trunk_that_is_not_exactly_the_one_of_the_type_is_a_named_error(tmp_path, change, what):
    file = checkpoint(tmp_path, "clip_vitb32") / "clip_vitb32_pretrain.pth.tar"
    saved = torch.load(file)
    change(saved["state_dict"])
    torch.save(saved, file)
    with pytest.raises(EmbedctlError, match=what):
        build(small(CLIP), weights=str(tmp_path))


@pytest.mark.parametrize("damage", ["truncated", "page", "flipped"])
def test_a_zip_that_is_damaged_or_none_is_a_named_error(tmp_path, damage):
    archive = zipped(checkpoint(tmp_path / "unpacked", "clip_vitb32"), tmp_path / "dreamsim.zip")
    whole = archive.read_bytes()
    middle = len(whole) // 2
    archive.write_bytes(
        {
            "truncated": whole[:middle],
            "page": b"\n<!DOCTYPE html><html>Not found</html>",
            "flipped": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
        }[damage]
    )
    what = {"truncated": "zip is incomplete", "page": "web page, not a zip", "flipped": "is damaged"}[damage]
    with pytest.raises(EmbedctlError, match=what):
        build(small(CLIP), weights=str(archive))


def test_a_web_page_instead_of_a_checkpoint_is_called_one(tmp_path):
    (tmp_path / "page.pth").write_text("<html>404</html>")
    with pytest.raises(EmbedctlError, match="page.pth: it is a web page"):
        build(small(CLIP), weights=str(tmp_path / "page.pth"))


def test_a_checkpoint_of_another_type_is_a_named_error(tmp_path):
    checkpoint(tmp_path, "clip_vitb32")
    with pytest.raises(EmbedctlError, match="holds no 'open_clip_vitb32_pretrain.pth.tar'"):
        build(small("dreamsim-openclip-vitb32"), weights=str(tmp_path))


def test_a_dino_checkpoint_without_the_trunk_of_torch_hub_says_what_is_missing(tmp_path):
    checkpoint(tmp_path, "dinov2_vitb14")
    (tmp_path / "checkpoints" / "dinov2_vitb14_pretrain.pth").unlink()
    with pytest.raises(NotHere, match="'checkpoints/dinov2_vitb14_pretrain.pth'") as problem:
        build(small(DINOV2), weights=str(tmp_path))
    assert problem.value.exit_code == 6 and "models show dreamsim-dinov2-vitb14" in problem.value.hint


def test_the_trunk_of_torch_hub_wins_over_a_file_of_that_name_in_the_zip(tmp_path, monkeypatch):
    """Nobody has verified what DreamSim's zip holds under that name; its package does not read it."""
    folder = checkpoint(tmp_path / "unpacked", "dinov2_vitb14")
    expected = rows(small(DINOV2), folder)
    trunk = (folder / "checkpoints" / "dinov2_vitb14_pretrain.pth").rename(tmp_path / "dinov2_vitb14_pretrain.pth")
    archive = zipped(folder, tmp_path / "dreamsim.zip")
    from pipelines.encoders import build as builder
    from pipelines.encoders.weights import Weights

    monkeypatch.setattr(builder, "resolve_weights", lambda *_, **__: Weights("sha256:00", "", (archive, trunk)))
    assert torch.equal(rows(small(DINOV2), "published"), expected)


def test_an_aligned_encoder_and_its_base_differ_in_nothing_but_the_adapter():
    for spec in DREAMSIM:
        base = find(spec.matched_base)
        assert spec.model["branches"] == base.model["branches"] and "adapter" not in base.model, spec.id
        assert spec.match == "exact" and "NIGHTS" in spec.fitted_on and "NIGHTS" not in base.fitted_on, spec.id
