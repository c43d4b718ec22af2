"""What the tensors of a torch network are called in its Keras file. Pure data and one function; no torch.

The names are those of vit-keras 0.1.2, keras-cv-attention-models (the same from 1.2.3 to 1.3.9), efficientnet 1.1.1
and keras.applications: the packages the harmonised networks were built with.

A rule is a pattern for a torch module and the Keras layer it comes from; for a tensor that is no layer's weight or
bias, the pattern and the name are those of the tensor. A third entry names the axes (`harmonization_weights.AXES`)
where they do not follow from the shape. In names, {g} are the groups matched, {up} the same numbers plus one,
{letter} the numbers as letters; ``|`` separates layers whose tensors are laid one after another.
"""

import re

__all__ = ["NAMES", "keras_name"]

_BLOCK = r"stages\.(\d)\.blocks\.(\d)\."
_DOWN = r"stages\.(\d)\.downsample\."

_VIT = "Transformer/encoderblock_{g[0]}/"
_ATTENTION = _VIT + "MultiHeadDotProductAttention_1/"

_EFFICIENTNET_BLOCK = r"blocks\.(\d)\.(\d)\."
_EFFICIENTNET = "block{up[0]}{letter[1]}_"

_LEVIT = "stack{up[0]}_block{up[1]}_"
_LEVIT_DOWN = "stack{g[0]}_downsample_"  # at the end of a stack in Keras, at the start of the next stage in timm

_MAXVIT = "stack_{up[0]}_block_{up[1]}/"
_MAXVIT_ATTENTION = _BLOCK + r"attn_(block|grid)\."

_VGG16 = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))  # places of the convolutions in ``features``

NAMES: dict[str, tuple[tuple[str, ...], ...]] = {
    "vit_base_patch16_224": (
        (r"cls_token", "class_token/cls", "same"),
        (r"pos_embed", "Transformer/posembed_input/pos_embedding", "same"),
        (r"patch_embed\.proj", "embedding"),
        (r"blocks\.(\d+)\.norm1", _VIT + "LayerNorm_0"),
        (r"blocks\.(\d+)\.attn\.qkv", f"{_ATTENTION}query|{_ATTENTION}key|{_ATTENTION}value"),
        (r"blocks\.(\d+)\.attn\.proj", _ATTENTION + "out"),
        (r"blocks\.(\d+)\.norm2", _VIT + "LayerNorm_2"),
        (r"blocks\.(\d+)\.mlp\.fc1", _VIT + "Dense_0"),
        (r"blocks\.(\d+)\.mlp\.fc2", _VIT + "Dense_1"),
        (r"norm", "Transformer/encoder_norm"),
        (r"head", "head"),
    ),
    "resnet50v2": (
        (r"stem", "conv1_conv"),
        (r"layer(\d)\.(\d+)\.preact", "conv{up[0]}_block{up[1]}_preact_bn"),
        (r"layer(\d)\.(\d+)\.(conv|bn)(\d)", "conv{up[0]}_block{up[1]}_{g[3]}_{g[2]}"),
        (r"norm", "post_bn"),
        (r"fc", "predictions"),
    ),
    "vgg16": (
        *(
            (rf"features\.{place}", f"block{block}_conv{conv}")
            for block, places in enumerate(_VGG16, 1)
            for conv, place in enumerate(places, 1)
        ),
        (r"classifier\.0", "fc1", "fc1"),
        (r"classifier\.3", "fc2"),
        (r"classifier\.6", "predictions"),
    ),
    "convnext_tiny": (
        (r"stem\.0", "stem_conv"),
        (r"stem\.1", "stem_ln"),
        (_DOWN + "0", "stack{up[0]}_downsample_ln"),
        (_DOWN + "1", "stack{up[0]}_downsample_conv"),
        (_BLOCK + "gamma", "stack{up[0]}_block{up[1]}_gamma/weight", "same"),
        (_BLOCK + "conv_dw", "stack{up[0]}_block{up[1]}_dw_conv"),
        (_BLOCK + "norm", "stack{up[0]}_block{up[1]}_ln"),
        (_BLOCK + r"mlp\.fc1", "stack{up[0]}_block{up[1]}_up_dense"),
        (_BLOCK + r"mlp\.fc2", "stack{up[0]}_block{up[1]}_down_dense"),
        (r"head\.norm", "head_ln"),
        (r"head\.fc", "predictions"),
    ),
    "tf_efficientnet_b0": (
        (r"conv_stem", "stem_conv"),
        (r"bn1", "stem_bn"),
        # The first block does not expand, so timm's numbers run one behind there.
        (r"blocks\.(0)\.(0)\.bn1", _EFFICIENTNET + "bn"),
        (r"blocks\.(0)\.(0)\.conv_pw", _EFFICIENTNET + "project_conv"),
        (r"blocks\.(0)\.(0)\.bn2", _EFFICIENTNET + "project_bn"),
        (_EFFICIENTNET_BLOCK + "conv_pw", _EFFICIENTNET + "expand_conv"),
        (_EFFICIENTNET_BLOCK + "bn1", _EFFICIENTNET + "expand_bn"),
        (_EFFICIENTNET_BLOCK + "conv_dw", _EFFICIENTNET + "dwconv"),
        (_EFFICIENTNET_BLOCK + "bn2", _EFFICIENTNET + "bn"),
        (_EFFICIENTNET_BLOCK + r"se\.conv_(reduce|expand)", _EFFICIENTNET + "se_{g[2]}"),
        (_EFFICIENTNET_BLOCK + "conv_pwl", _EFFICIENTNET + "project_conv"),
        (_EFFICIENTNET_BLOCK + "bn3", _EFFICIENTNET + "project_bn"),
        (r"conv_head", "top_conv"),
        (r"bn2", "top_bn"),
        (r"classifier", "probs"),
    ),
    "levit_128": (
        (r"stem\.conv(\d)\.linear", "stem_{g[0]}_conv"),
        (r"stem\.conv(\d)\.bn", "stem_{g[0]}_bn"),
        (_BLOCK + r"attn\.attention_biases", _LEVIT + "attn_pos/positional_embedding", "transposed"),
        (_BLOCK + r"attn\.qkv\.linear", _LEVIT + "qkv"),
        (_BLOCK + r"attn\.qkv\.bn", _LEVIT + "qkv_bn"),
        (_BLOCK + r"attn\.proj\.ln\.linear", _LEVIT + "out"),
        (_BLOCK + r"attn\.proj\.ln\.bn", _LEVIT + "out_bn"),
        (_BLOCK + r"mlp\.ln(\d)\.linear", _LEVIT + "mlp_{g[2]}_dense"),
        (_BLOCK + r"mlp\.ln(\d)\.bn", _LEVIT + "mlp_{g[2]}_bn"),
        (_DOWN + r"attn_downsample\.attention_biases", _LEVIT_DOWN + "attn_pos/positional_embedding", "transposed"),
        (_DOWN + r"attn_downsample\.kv\.linear", _LEVIT_DOWN + "kv"),
        (_DOWN + r"attn_downsample\.kv\.bn", _LEVIT_DOWN + "kv_bn"),
        (_DOWN + r"attn_downsample\.q\.ln\.linear", _LEVIT_DOWN + "q"),
        (_DOWN + r"attn_downsample\.q\.ln\.bn", _LEVIT_DOWN + "q_bn"),
        (_DOWN + r"attn_downsample\.proj\.ln\.linear", _LEVIT_DOWN + "out"),
        (_DOWN + r"attn_downsample\.proj\.ln\.bn", _LEVIT_DOWN + "out_bn"),
        (_DOWN + r"mlp\.ln(\d)\.linear", _LEVIT_DOWN + "mlp_{g[1]}_dense"),
        (_DOWN + r"mlp\.ln(\d)\.bn", _LEVIT_DOWN + "mlp_{g[1]}_bn"),
        (r"head\.bn", "head_bn"),
        (r"head\.linear", "head"),
    ),
    "maxvit_tiny_tf_224": (
        (r"stem\.conv(\d)", "stem_{g[0]}_conv"),
        (r"stem\.norm(\d)", "stem_{g[0]}_bn"),
        (_BLOCK + r"conv\.shortcut\.expand", _MAXVIT + "mbconv/shortcut_conv"),
        (_BLOCK + r"conv\.pre_norm", _MAXVIT + "mbconv/preact_bn"),
        (_BLOCK + r"conv\.conv1_1x1", _MAXVIT + "mbconv/expand_conv"),
        (_BLOCK + r"conv\.norm1", _MAXVIT + "mbconv/expand_bn"),
        (_BLOCK + r"conv\.conv2_kxk", _MAXVIT + "mbconv/MB_dw_conv"),
        (_BLOCK + r"conv\.norm2", _MAXVIT + "mbconv/MB_dw_bn"),
        (_BLOCK + r"conv\.se\.fc(\d)", _MAXVIT + "mbconv/se/{g[2]}_conv"),
        (_BLOCK + r"conv\.conv3_1x1", _MAXVIT + "mbconv/MB_pw_conv"),
        (_MAXVIT_ATTENTION + "norm1", _MAXVIT + "{g[2]}_attn_preact_ln"),
        (_MAXVIT_ATTENTION + r"attn\.qkv", _MAXVIT + "{g[2]}_window_mhsa/qkv_conv", "pointwise"),
        (
            _MAXVIT_ATTENTION + r"attn\.rel_pos\.relative_position_bias_table",
            _MAXVIT + "{g[2]}_window_mhsa/pos_emb/positional_embedding",
            "relative",
        ),
        (_MAXVIT_ATTENTION + r"attn\.proj", _MAXVIT + "{g[2]}_window_mhsa/output"),
        (_MAXVIT_ATTENTION + "norm2", _MAXVIT + "{g[2]}_ffn_preact_ln"),
        (_MAXVIT_ATTENTION + r"mlp\.fc(\d)", _MAXVIT + "{g[2]}_ffn/{g[3]}_dense"),
        (r"head\.norm", "post_ln"),
        (r"head\.pre_logits\.fc", "features"),
        (r"head\.fc", "predictions"),
    ),
}


def keras_name(network: str, torch_name: str) -> tuple[str, str]:
    """Return the Keras name of a torch module or tensor, and its axes where a rule states them.

    Raises
    ------
    KeyError
        If no rule of the network covers the name.

    Examples
    --------
    >>> keras_name("tf_efficientnet_b0", "blocks.2.1.conv_dw")
    ('block3b_dwconv', '')
    >>> keras_name("levit_128", "stages.1.downsample.attn_downsample.attention_biases")
    ('stack1_downsample_attn_pos/positional_embedding', 'transposed')
    """
    for pattern, template, *axes in NAMES[network]:
        if found := re.fullmatch(pattern, torch_name):
            numbers = [int(group) if group.isdigit() else 0 for group in found.groups()]
            name = template.format(
                g=found.groups(), up=[n + 1 for n in numbers], letter=["abcdefgh"[n] for n in numbers if n < 8]
            )
            return name, axes[0] if axes else ""
    raise KeyError(torch_name)
