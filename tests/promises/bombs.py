"""Small files that unpack to far more than they hold, or claim terabytes: made without ever holding that."""

import io
import pickle
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr

ZEROS = 400_000_000
PIECE = bytes(4_000_000)


def zeros() -> tuple[bytes, int]:
    """Return 400 MB of zeros as a raw deflate stream, and their checksum."""
    packing, packed, crc = zlib.compressobj(1, zlib.DEFLATED, -15), [], 0
    for _ in range(ZEROS // len(PIECE)):
        packed.append(packing.compress(PIECE))
        crc = zlib.crc32(PIECE, crc)
    return b"".join([*packed, packing.flush()]), crc


def zip_of(name: str, packed: bytes, crc: int, claims: int, method: int = 8) -> bytes:
    """Return a zip with one member that claims a size."""
    facts = struct.pack("<HHHHHIII", 20, 0, method, 0, 33, crc, len(packed), claims)
    local = b"PK\3\4" + facts + struct.pack("<HH", len(name), 0) + name.encode() + packed
    central = b"PK\1\2" + struct.pack("<H", 20) + facts + struct.pack("<HHHHHII", len(name), 0, 0, 0, 0, 0, 0)
    central += name.encode()
    return local + central + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), len(local), 0)


def gzip_of(packed: bytes, crc: int, n_bytes: int) -> bytes:
    """Return one member of a gzip file."""
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + packed + struct.pack("<II", crc, n_bytes & 0xFFFFFFFF)


def gzipped(data: bytes) -> bytes:
    packing = zlib.compressobj(1, zlib.DEFLATED, -15)
    return gzip_of(packing.compress(data) + packing.flush(), zlib.crc32(data), len(data))


def npy_header(shape: tuple[int, ...]) -> bytes:
    """Return the header of a ``.npy`` file of float32."""
    sink = io.BytesIO()
    np.lib.format.write_array_header_1_0(sink, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return sink.getvalue()


def header_of(n_bytes: int) -> tuple[bytes, int, int]:
    """Return a ``.npy`` file that is one header of blanks, as a raw deflate stream, its checksum and its size."""
    packing, head = zlib.compressobj(1, zlib.DEFLATED, -15), b"\x93NUMPY\x02\0" + struct.pack("<I", n_bytes)
    packed, crc = [packing.compress(head)], zlib.crc32(head)
    blanks = b" " * len(PIECE)
    for _ in range(n_bytes // len(PIECE)):
        packed.append(packing.compress(blanks))
        crc = zlib.crc32(blanks, crc)
    return b"".join([*packed, packing.flush()]), crc, len(head) + n_bytes


def png(side: int) -> bytes:
    """Return a whole black picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packing = zlib.compressobj(1)
    rows = b"".join(packing.compress(bytes(side + 1)) for _ in range(side)) + packing.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def make(folder: Path) -> None:
    """Write every bomb into a folder."""
    (folder / "images").mkdir(parents=True)
    for side in (9_500, 14_000):
        (folder / "images" / f"{side}.png").write_bytes(png(side))
    packed, crc = zeros()
    head = npy_header((ZEROS // 4, 1))
    for name, claims in (("lies", 1_000_000), ("bomb", ZEROS)):
        (folder / f"{name}.zip").write_bytes(zip_of("a.png", packed, crc, claims))
    (folder / "claims.npz").write_bytes(zip_of("x.npy", gzipped(head)[10:-8], zlib.crc32(head), len(head)))
    (folder / "bomb.npz").write_bytes(zip_of("x.npy", packed, crc, ZEROS))
    (folder / "header.npz").write_bytes(zip_of("x.npy", *header_of(ZEROS)))
    (folder / "claims.npy").write_bytes(npy_header((10**9, 1000)) + bytes(100))
    (folder / "bomb.pt").write_bytes(zip_of("archive/data/0", packed, crc, ZEROS))
    with zipfile.ZipFile(folder / "squeezed.zip", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a.png", bytes(1_000_000))
    claim = tarfile.TarInfo("a.png")
    claim.size = 1 << 40
    (folder / "claims.tar").write_bytes(claim.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    member = tarfile.TarInfo("model/variables/variables.index")
    member.size = ZEROS
    blocks = [gzipped(member.tobuf()), gzip_of(packed, crc, ZEROS), gzipped(bytes(10240))]
    (folder / "model.tar.gz").write_bytes(b"".join(blocks))
    (folder / "sub-01-epo.fif.gz").write_bytes(gzip_of(packed, crc, ZEROS))
    nifti = bytearray(352)
    struct.pack_into("<i", nifti, 0, 348)
    struct.pack_into("<8h", nifti, 40, 3, 1000, 1000, 400, 1, 1, 1, 1)
    struct.pack_into("<2h", nifti, 70, 2, 8)
    struct.pack_into("<f", nifti, 108, 352.0)
    nifti[344:348] = b"n+1\0"
    (folder / "mask.nii.gz").write_bytes(gzipped(bytes(nifti)) + gzip_of(packed, crc, ZEROS + 352))
    with h5py.File(folder / "nsd_stimuli.hdf5", "w") as file:
        brick = file.create_dataset("imgBrick", (1, 1, 10, 3), np.uint8, chunks=(1, 1, 10, 3), compression="gzip")
        brick.id.write_direct_chunk((0, 0, 0, 0), b"\x78\x01" + packed + struct.pack(">I", 1))
    array = zarr.create_array(folder / "array", shape=(10,), chunks=(10,), dtype="uint8", compressors="auto")
    array[:] = 1
    (folder / "array" / "c" / "0").write_bytes(zarr_zeros())
    texts = pa.DictionaryArray.from_arrays(pa.array(np.zeros(65_536, np.int32)), pa.array(["x" * 31_000]))
    pq.write_table(pa.table({"image": texts}), folder / "trials.parquet", store_schema=False)
    for name in ("deep.toml", "deep.json"):
        (folder / name).write_bytes((b"a = " if name.endswith("toml") else b"") + b"[" * 100_000)
    (folder / "nested.pkl").write_bytes(b"\x80\x02" + b"]" + b"q\x00(h\x00h\x00e" * 1000 + b".")
    (folder / "long.pkl").write_bytes(pickle.PROTO + b"\x04" + pickle.BINBYTES8 + struct.pack("<Q", 1 << 40) + b"x")


def zarr_zeros() -> bytes:
    """Return 100 MB of zeros in a chunk of ten."""
    from numcodecs import Zstd

    return bytes(Zstd(level=3).encode(bytes(100_000_000)))
