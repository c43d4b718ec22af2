"""Seeded weights for the seven harmonised networks, and probe images, rebuilt alike with and without TensorFlow.

Needs numpy, h5py and Pillow only. ``inventory.txt`` lists the tensors of the Keras models in their order; each is
drawn from its own ``RandomState`` (whose stream numpy has frozen), seeded by its name. Scales are chosen so that a
mistake shows: batch norms see variances near 0.01 and layer norms near 0.001, where a wrong epsilon matters,
attention is neither flat nor one-hot, and nothing dies out or explodes on the way to the tap.
"""

import re
from pathlib import Path
from zlib import crc32

import h5py
import numpy as np
from PIL import Image

HERE = Path(__file__).parent
SEED = 2025

# Standard deviation of a tensor's entries, times 1 / sqrt(fan in) for kernels; the first pattern found in
# "network layer/tensor" counts.
SCALES = (
    (r"positional_embedding", 1.0),
    # What adds up to the input of layer norms
    (r"vit.*(pos_embedding|class_token/cls)", 0.02),
    (r"vit.*(embedding|out)/(kernel|bias)", 0.02),
    (r"vit.*Dense_1/kernel", 0.2),
    (r"convnext.*(stem_conv|downsample_conv)/(kernel|bias)", 0.02),
    (r"convnext.*gamma/weight", 0.2),
    (r"maxvit.*(stem_2_conv|pw_conv|shortcut_conv|output)/(kernel|bias)", 0.02),
    (r"maxvit.*2_dense/kernel", 0.2),
    (r"(vit|convnext|maxvit).*(Dense_1|down_dense|2_dense)/bias", 0.001),
    # What goes into batch norms
    (r"efficientnet_b0 (?!.*(se_|probs)).*kernel", 0.06),
    (r"levit_128 (?!head/).*kernel", 0.1),
    (r"maxvit.*(stem_1|expand|dw)_conv/.*kernel", 0.15),
    (r"resnet.*_3_conv/kernel", 0.3),
    (r"resnet.*_[12]_conv/kernel", 0.15),
    (r"kernel", 1.0),
    (r"moving_mean", 0.03),
    (r"", 0.1),
)
BEFORE_GELU = r"(vit|convnext|maxvit).*(Dense_0|up_dense|ffn/1_dense)/bias"


def variance(network: str, name: str) -> float:
    """About what a batch norm of the network is given."""
    if "preact" in name or "post" in name:  # the residual stream
        return 1e-3 if network.startswith("maxvit") else 1.0
    return 1e-2


def inventory(network: str) -> list[tuple[str, list[tuple[str, tuple[int, ...]]]]]:
    """Layers of a Keras model in order, each with the names and shapes of its tensors."""
    text = (HERE / "inventory.txt").read_text(encoding="utf-8")
    section = re.search(rf"^\[{network}\]\n(.*?)(?=^\[|\Z)", text, re.MULTILINE | re.DOTALL)[1]
    layers = []
    for line in section.strip().splitlines():
        layer, _, rest = line.partition(": ")
        words = rest.split()
        tensors = [
            (f"{layer}/{name}", tuple(map(int, shape.split("x"))))
            for names, shape in zip(words[::2], words[1::2], strict=True)
            for name in names.split(",")
        ]
        layers.append((layer, tensors))
    return layers


def tensor(network: str, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The numbers of one tensor in float32: around 0 for kernels and biases, around 1 for gains, variances positive."""
    draw = np.random.RandomState(crc32(f"{SEED} {network} {name}".encode()))
    # Uniform in 65,536 steps: ten times faster than normal numbers, and exact in float32.
    x = draw.randint(0, 65536, size=shape, dtype=np.uint16).astype(np.float32)
    x = (x - 32767.5) * np.float32(3**0.5 / 32768)  # variance 1
    leaf = name.rpartition("/")[2]
    if leaf == "gamma":
        return 1 + x / 5
    if leaf == "moving_variance":
        return (1 + x / 4) * np.float32(variance(network, name))
    scale = next(scale for pattern, scale in SCALES if re.search(pattern, f"{network} {name}"))
    if leaf.endswith("kernel"):
        scale /= np.prod(shape[:2] if leaf.startswith("depthwise") else shape[:-1]) ** 0.5
    # -2: the tail of GELU, where its tanh approximation shows
    return x * np.float32(scale) - np.float32(2 if re.search(BEFORE_GELU, f"{network} {name}") else 0)


def write_h5(path: Path, network: str, *, whole_model: bool = False) -> Path:
    """Write the weights as ``Model.save_weights`` does, or as ``Model.save`` does after training."""
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights") if whole_model else file
        layers = inventory(network)
        root.attrs["layer_names"] = np.array(["input_1", *(layer for layer, _ in layers)], dtype="S")
        root.create_group("input_1").attrs["weight_names"] = np.array([], dtype="S")
        for layer, found in layers:
            group = root.create_group(layer)
            group.attrs["weight_names"] = np.array([f"{name}:0" for name, _ in found], dtype="S")
            for name, shape in found:
                group[f"{name}:0"] = tensor(network, name, shape)
        if whole_model:
            file.attrs["model_config"] = "{}"
            slots = file.create_group("optimizer_weights")
            name, shape = layers[0][1][0]
            slots.attrs["weight_names"] = np.array(["iteration:0", f"Adam/m/{name}:0"], dtype="S")
            slots["iteration:0"] = np.int64(1)
            slots[f"Adam/m/{name}:0"] = np.zeros(shape, np.float32)
    return path


def write_probes(folder: Path) -> list[Path]:
    """Two generated PNG (one wider, one taller than the network's square) and the JPEG kept here."""
    paths = []
    for number, (height, width, grain) in enumerate(((180, 331, 9), (300, 200, 23))):
        draw = np.random.RandomState(SEED + number)
        coarse = draw.randint(0, 256, (height // grain + 2, width // grain + 2, 3))
        image = np.kron(coarse, np.ones((grain, grain, 1), dtype=int))[:height, :width]  # flat patches, hard edges
        image = (3 * image + draw.randint(0, 256, image.shape)) // 4
        paths.append(folder / f"probe{number}.png")
        Image.fromarray(image.astype(np.uint8)).save(paths[-1])
    jpeg = folder / "probe2.jpg"
    jpeg.write_bytes((HERE / "probe.jpg").read_bytes())
    return [*paths, jpeg]
