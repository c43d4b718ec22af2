"""Layers and poolings are what hooks placed by hand would give, whatever a library does to its tensors."""

from dataclasses import replace

import torch

from pipelines.encoders.build import Encoder, build
from pipelines.encoders.open_clip_family import _describe
from pipelines.encoders.registry import find
from pipelines.encoders.weights import Weights
from stores.names import EmbeddingName

TOWERS = {
    "vision_cfg": {"image_size": 224, "width": 64, "head_width": 32, "patch_size": 32, "layers": 3},
    "text_cfg": {"context_length": 77, "vocab_size": 100, "width": 32, "heads": 1, "layers": 1},
}


def name(text: str) -> EmbeddingName:
    return EmbeddingName.parse(text)


def tiny_clip():
    import open_clip

    torch.manual_seed(5)
    return open_clip.create_model("ViT-B-32-quickgelu", **TOWERS).eval().visual


def encoder_of(visual, taps) -> Encoder:
    return Encoder(find("clip-vitb32"), Weights("random:5", seed=5), _describe(visual), taps)


def test_a_block_of_an_open_clip_tower_is_its_intermediate_output():
    taps = [name("clip-vitb32:blocks.1.tokens"), name("clip-vitb32:blocks.2.cls"), name("clip-vitb32:ln_post.mean")]
    x = torch.rand(2, 3, 224, 224)
    visual = tiny_clip()
    with torch.no_grad():
        told = visual.forward_intermediates(
            x, indices=[1, 2], output_fmt="NLC", output_extra_tokens=True, normalize_intermediates=False
        )
    tokens, prefix = told["image_intermediates"], told["image_intermediates_prefix"]
    rows = encoder_of(visual, taps)(x)
    torch.testing.assert_close(rows[taps[0]].view(2, 50, 64), torch.cat([prefix[0], tokens[0]], 1))
    torch.testing.assert_close(rows[taps[1]], prefix[1][:, 0])
    with torch.no_grad():
        torch.testing.assert_close(rows[taps[2]], visual.ln_post(tokens[1]).mean(1))


def test_a_tower_that_runs_its_blocks_tokens_first_gives_the_same_rows():
    from open_clip.transformer import QuickGELU, Transformer

    modern, old = tiny_clip(), tiny_clip()
    tokens_first = Transformer(64, 3, 2, act_layer=QuickGELU, batch_first=False).eval()
    tokens_first.load_state_dict(old.transformer.state_dict())
    old.transformer = tokens_first
    taps = [name(f"clip-vitb32:blocks.{rest}") for rest in ("0.tokens", "1.mean", "2.cls")]
    x = torch.rand(3, 3, 224, 224)
    for ours, expected in zip(encoder_of(old, taps)(x).values(), encoder_of(modern, taps)(x).values(), strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_a_layer_that_the_next_one_overwrites_keeps_its_own_values_and_dropout_is_off():
    """AlexNet's ReLU works in place on the output of the layer before it, and there is dropout on the way."""
    taps = [name("alexnet-tv"), name("alexnet-tv:classifier.4"), name("alexnet-tv:classifier.5")]
    encoder = build(find("alexnet-tv"), weights="random:3", taps=taps)
    x = torch.rand(2, 3, 224, 224)
    before, same, after = encoder(x).values()
    assert (before < 0).any() and torch.equal(before, same) and torch.equal(before.relu(), after)
    assert torch.equal(encoder(x)[taps[0]], before)
    assert not any(parameter.requires_grad for parameter in encoder._module.parameters())


def test_several_taps_at_once_are_the_bytes_of_one_at_a_time():
    spec = find("mobilenetv3-small-tv")
    texts = [f"{spec.id}{rest}" for rest in ("", ":features.3.gap", ":features.5.flatten", ":features.12.tokens")]
    x = torch.rand(4, 3, 224, 224)
    together = build(spec, weights="random:3", taps=[name(text) for text in texts])(x)
    for text in texts:
        alone = build(spec, weights="random:3", taps=[name(text)])(x)
        assert torch.equal(alone[name(text)], together[name(text)])


def test_registers_are_no_patches():
    spec = find("dinov2-vitb14-reg")
    spec = replace(spec, model={**spec.model, "depth": 1})
    taps = [name(f"{spec.id}:norm.{pooling}") for pooling in ("cls", "mean", "cls+mean", "tokens")]
    encoder = build(spec, weights="random:0", taps=taps)
    x = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        tokens = encoder._module.forward_features(x)
    expected = [
        tokens[:, 0],
        tokens[:, 5:].mean(1),
        torch.cat([tokens[:, 0], tokens[:, 5:].mean(1)], 1),
        tokens.flatten(1),
    ]
    for rows, wanted in zip(encoder(x).values(), expected, strict=True):
        torch.testing.assert_close(rows, wanted)
    assert encoder.token_shapes == {taps[3]: (1 + 4 + 256, 768)}


def test_a_map_with_channels_last_is_averaged_over_positions():
    spec = replace(
        find("swin-b"),
        model={**find("swin-b").model, "depths": (1, 1, 1, 1), "embed_dim": 32, "num_heads": (1, 2, 4, 8)},
    )
    taps = [name("swin-b:layers.1"), name("swin-b:layers.2.tokens"), name("swin-b:layers.3.flatten")]
    encoder = build(spec, weights="random:0", taps=taps)
    seen = {}
    for index in (1, 2, 3):
        encoder._module.layers[index].register_forward_hook(
            lambda m, i, o, index=index: seen.update({index: o.clone()})
        )
    first, tokens, flat = encoder(torch.rand(2, 3, 224, 224)).values()
    assert seen[1].shape == (2, 28, 28, 64)
    torch.testing.assert_close(first, seen[1].mean((1, 2)))
    torch.testing.assert_close(tokens, seen[2].flatten(1))
    torch.testing.assert_close(flat, seen[3].permute(0, 3, 1, 2).flatten(1))
    assert encoder.token_shapes == {taps[1]: (14 * 14, 128)}
