"""Compute what Keras makes of the probe images under the recipe's weights. Runs in an environment of its own.

::

    python3.11 -m venv tf
    tf/bin/pip install "tensorflow-cpu==2.15.*" "vit-keras==0.1.2" "keras-cv-attention-models==1.3.5" \
        "efficientnet==1.1.1" "opencv-python-headless<4.11" h5py pillow
    tf/bin/python tests/references/harmonization/make_references.py              # writes references.json
    tf/bin/python tests/references/harmonization/make_references.py --inventory  # writes inventory.txt

Everything from the file on is TensorFlow's: decoding, ``tf.image.resize``, the arithmetic of Harmonization's
``preprocess_input``, the published builders, the layer taken. JPEG is decoded with ``INTEGER_ACCURATE``, which is
what libjpeg does by default and so what Pillow and Keras' own ``load_img`` read; TensorFlow's default is a faster
approximation that moves pixels by up to 18 grey levels.
"""

import argparse
import hashlib
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import recipe

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import tensorflow as tf  # noqa: E402

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
N_KEPT = 24  # values of each vector that go into references.json, evenly spaced


def vit():
    from vit_keras import vit as vit_keras

    return vit_keras.vit_b16(224, activation="linear", pretrained=False, include_top=True, pretrained_top=False)


def convnext():
    from keras_cv_attention_models.convnext import ConvNeXtTiny

    return ConvNeXtTiny(classifier_activation=None, pretrained=None)


def efficientnet():
    import efficientnet.tfkeras

    return efficientnet.tfkeras.EfficientNetB0(weights=None)


def levit():
    from keras_cv_attention_models.levit import LeViT128

    return LeViT128(classifier_activation=None, use_distillation=False, pretrained=None)


def maxvit():
    from keras_cv_attention_models.maxvit import MaxViT_Tiny

    return MaxViT_Tiny(classifier_activation=None, pretrained=None)


# network: builder, layer of the embedding, a hidden layer and the torch name of the same one
NETWORKS = {
    "vit_base_patch16_224": (vit, "ExtractToken", "Transformer/encoderblock_5", "blocks.5"),
    "resnet50v2": (lambda: tf.keras.applications.ResNet50V2(weights=None), "avg_pool", "conv4_block6_out", "layer3"),
    "vgg16": (lambda: tf.keras.applications.VGG16(weights=None), "fc2", "block4_pool", "features.23"),
    "convnext_tiny": (convnext, "head_ln", "stack2_block3_output", "stages.1"),
    "tf_efficientnet_b0": (efficientnet, "avg_pool", "block4c_add", "blocks.3"),
    "levit_128": (levit, "global_average_pooling2d", "stack1_block4_mlp_add", "stages.0"),
    "maxvit_tiny_tf_224": (maxvit, "features_tanh", "stack_2_block_2/grid_ffn_output", "stages.1"),
}


def pixels(path: Path) -> tuple[np.ndarray, tf.Tensor]:
    """The image squashed to 224 x 224, and the input of the networks."""
    data = tf.io.read_file(str(path))
    if path.suffix == ".jpg":
        image = tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")
    else:
        image = tf.io.decode_png(data, channels=3)
    squashed = tf.cast(tf.image.resize(image, [224, 224], method="bicubic"), tf.float32)
    return squashed.numpy(), (squashed / 255.0 - MEAN) / STD


def summary(vector: np.ndarray) -> dict:
    vector = np.asarray(vector, np.float64).reshape(-1)
    kept = vector[np.linspace(0, vector.size - 1, N_KEPT).round().astype(int)]
    return {
        "dim": vector.size,
        "mean": float(f"{vector.mean():.7g}"),
        "std": float(f"{vector.std():.7g}"),
        "values": [float(f"{v:.7g}") for v in kept],
    }


def per_image(hidden: np.ndarray, network: str) -> np.ndarray:
    """The CLS token, or the mean over positions."""
    return hidden[:, 0] if network.startswith("vit") else hidden.reshape(len(hidden), -1, hidden.shape[-1]).mean(1)


def write_inventory() -> None:
    lines = []
    for network, (build, *_) in NETWORKS.items():
        lines.append(f"[{network}]")
        for layer in (layer for layer in build().layers if layer.weights):
            words: list[str] = []
            for weight in layer.weights:
                name = weight.name.removesuffix(":0").removeprefix(f"{layer.name}/")
                shape = "x".join(map(str, weight.shape))
                if words and words[-1] == shape:
                    words[-2] += f",{name}"
                else:
                    words += [name, shape]
            lines.append(f"{layer.name}: {' '.join(words)}")
        tf.keras.backend.clear_session()
    (recipe.HERE / "inventory.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def reference(network: str, inputs: tf.Tensor, folder: Path) -> dict:
    build, tap, hidden, torch_layer = NETWORKS[network]
    tf.keras.backend.clear_session()
    model = build()
    listed = [(name, shape) for _, found in recipe.inventory(network) for name, shape in found]
    assert listed == [(w.name.removesuffix(":0"), tuple(w.shape)) for layer in model.layers for w in layer.weights]
    path = recipe.write_h5(folder / "weights.h5", network)
    model.load_weights(path)
    weights = {w.name.removesuffix(":0"): w.numpy() for layer in model.layers for w in layer.weights}
    for name, shape in listed:
        np.testing.assert_array_equal(weights[name], recipe.tensor(network, name, shape))
    layer_output = model.get_layer(hidden).output
    outputs = [
        model.get_layer(tap).output,
        layer_output[0] if isinstance(layer_output, (list, tuple)) else layer_output,
    ]
    embedding, middle = tf.keras.Model(model.inputs, outputs)(inputs, training=False)
    middle = per_image(middle.numpy(), network)
    return {
        "tap": tap,
        "embedding": [summary(row) for row in embedding.numpy()],
        "hidden": torch_layer,
        "hidden_of_keras": hidden,
        "hidden_embedding": [summary(row) for row in middle],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inventory", action="store_true", help="write inventory.txt instead")
    args = parser.parse_args()
    if args.inventory:
        write_inventory()
        return
    with tempfile.TemporaryDirectory() as folder:
        squashed, inputs = zip(*map(pixels, recipe.write_probes(Path(folder))), strict=True)
        result: dict = {
            "pixels": [
                {"blake2b": hashlib.blake2b(s.tobytes(), digest_size=16).hexdigest(), "corner": s[0, 0].tolist()}
                for s in squashed
            ]
        }
        for network in NETWORKS:
            result[network] = reference(network, tf.stack(inputs), Path(folder))
    lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in result.items())
    (recipe.HERE / "references.json").write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
