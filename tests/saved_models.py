"""A SavedModel as AligNet publishes it: numbered variables in JAX's order, in TensorFlow's files."""

import tarfile
from pathlib import Path

import google_crc32c
import numpy as np


def in_flaxs_order(port, n_blocks: int, n_heads: int) -> list[np.ndarray]:
    """Undo what the public port did to the Flax parameters, and list them as its authors found them in the file."""
    w = {name: tensor.numpy() for name, tensor in port.items()}
    listed = []

    def dense(name):
        listed.extend([w[f"{name}.bias"], w[f"{name}.weight"].T])

    def norm(name):
        listed.extend([w[f"{name}.bias"], w[f"{name}.weight"]])

    def attention(query, key, value, out):
        for part in (key, out, query, value):
            bias, weight = part
            if part is out:
                listed.extend([bias, weight.T.reshape(n_heads, -1, len(bias))])
            else:
                listed.extend([bias.reshape(n_heads, -1), weight.T.reshape(weight.shape[1], n_heads, -1)])

    def thirds(name, n):
        return zip(np.split(w[f"{name}.bias"], n), np.split(w[f"{name}.weight"], n), strict=True)

    pool = "encoder.attn_pool"
    norm(f"{pool}.norm")
    dense(f"{pool}.mlp.fc1")
    dense(f"{pool}.mlp.fc2")
    out = w[f"{pool}.proj.bias"], w[f"{pool}.proj.weight"]
    attention(*thirds(f"{pool}.q", 1), *thirds(f"{pool}.kv", 2), out)
    listed.append(w[f"{pool}.latent"])
    norm("encoder.norm")
    for index in sorted(range(n_blocks), key=str):
        block = f"encoder.blocks.{index}"
        norm(f"{block}.norm1")
        norm(f"{block}.norm2")
        dense(f"{block}.mlp.fc1")
        dense(f"{block}.mlp.fc2")
        out = w[f"{block}.attn.proj.bias"], w[f"{block}.attn.proj.weight"]
        attention(*thirds(f"{block}.attn.qkv", 3), out)
    patches = w["encoder.patch_embed.proj.weight"]
    listed.extend([w["encoder.patch_embed.proj.bias"], patches.transpose(2, 3, 1, 0), w["encoder.pos_embed"]])
    dense("triplet_head")
    norm("i1k_norm")
    dense("i1k_head")
    return listed


def write_saved_model(path: Path, arrays: list[np.ndarray], name: str = "SigLIP-B-alignet") -> Path:
    """Write a ``.tar.gz`` with the two files of variables that matter."""
    folder = path.parent / name / "variables"
    folder.mkdir(parents=True, exist_ok=True)
    names = sorted(f"variables/{number}/.ATTRIBUTES/VARIABLE_VALUE" for number in range(len(arrays)))
    entries, data = [(b"", _field(1, 1))], b""
    for key in names:
        array = arrays[int(key.split("/")[1])].astype("<f4")
        dims = b"".join(_message(2, _field(1, size)) for size in array.shape)
        raw = array.tobytes()
        entry = _field(1, 1) + _message(2, dims) + _field(4, len(data)) + _field(5, len(raw))
        entries.append((key.encode(), entry + b"\x35" + _crc(raw)))
        data += raw
    (folder / "variables.data-00000-of-00001").write_bytes(data)
    block = _block(entries)
    index = _block([(names[-1].encode(), _varint(0) + _varint(len(block) - 5))])
    handles = _varint(0) + _varint(0) + _varint(len(block)) + _varint(len(index) - 5)
    footer = handles.ljust(40, b"\0") + (0xDB4775248B80FB57).to_bytes(8, "little")
    (folder / "variables.index").write_bytes(block + index + footer)
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder.parent, name)
    return path


def _block(entries):
    body = b"".join(_varint(0) + _varint(len(k)) + _varint(len(v)) + k + v for k, v in entries)
    body += bytes(4) + (1).to_bytes(4, "little") + b"\0"  # one restart point; not compressed
    return body + _crc(body)


def _field(number, value):
    return _varint(number << 3) + _varint(value)


def _message(number, content):
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(number):
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def _crc(data):
    crc = google_crc32c.value(data)
    return (((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")
