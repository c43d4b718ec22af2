"""What this environment has and lacks, found out without changing it.

Each check is a function that returns `Finding` rows; a conflict is a finding with a way out.
Nothing is imported in this process that could bring it down: torch and torchvision are tried in
a process of their own.
"""

import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from stores.disk import bytes_free
from stores.versions import installed_version

__all__ = ["Finding", "caches", "conflicts", "devices", "disk", "versions"]

PACKAGES = {
    "base": ("numpy", "zarr", "numcodecs", "dask", "xarray", "pyarrow", "typer", "rich", "pillow"),
    "extract": ("torch", "torchvision", "timm", "open_clip_torch", "dreamsim", "huggingface_hub"),
    "train": ("torch", "safetensors", "scipy"),
    "brain": ("mne",),
}
CACHES = ("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "TORCH_HOME", "XDG_CACHE_HOME", "SLURM_TMPDIR")

_DEVICES = """
import torch
print("cpu", torch.get_num_threads(), "threads", sep="\\t")
for index in range(torch.cuda.device_count()):
    print("cuda", torch.cuda.get_device_name(index), torch.version.cuda, sep="\\t")
if torch.backends.mps.is_available():
    print("mps", "Apple GPU", "", sep="\\t")
"""
_TORCHVISION = "from pipelines.encoders import torchvision_import"
_SECONDS = 120


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Parameters
    ----------
    topic : str
        What was looked at.
    found : str
        What is there.
    hint : str
        The way out, where something is wrong; empty where all is well.
    """

    topic: str
    found: str
    hint: str = ""


def versions() -> list[Finding]:
    """Return Python's version and, extra by extra, those of the packages that matter."""
    found = [Finding("python", f"{platform.python_version()} on {platform.platform(terse=True)}")]
    for extra, packages in PACKAGES.items():
        for package in packages:
            version = installed_version(package)
            hint = "" if version else f'pip install "embedctl[{extra}]"'
            if package not in {finding.topic for finding in found}:
                found.append(Finding(package, version or "not installed", hint))
    return found


def devices() -> list[Finding]:
    """Return where networks can run, asked of torch in a process of its own."""
    if not installed_version("torch"):
        return []
    done = _try(_DEVICES)
    if done.returncode:
        return [Finding("torch", _last_line(done.stderr), "torch does not import: reinstall it")]
    rows = (text.split("\t") for text in done.stdout.splitlines())
    return [Finding(f"device {kind}", " ".join(filter(None, rest))) for kind, *rest in rows]


def conflicts() -> list[Finding]:
    """Return the known traps this environment is in."""
    found = []
    torch, audio = installed_version("torch"), installed_version("torchaudio")
    if torch and audio and audio.split(".")[:2] != torch.split(".")[:2] and _try("import torchaudio").returncode:
        hint = "pip uninstall torchaudio: embedctl does not use it, and transformers and dreamsim trip over it"
        found.append(Finding("torchaudio", f"{audio} does not import beside torch {torch}", hint))
    if torch and installed_version("torchvision"):
        done = _try(_TORCHVISION)
        if done.returncode:
            hint = "install torch and torchvision of the same release from the same index"
            found.append(Finding("torchvision", _last_line(done.stderr), hint))
    return found


def disk() -> list[Finding]:
    """Return the free space here, and a warning where locks and renames are known to be weak."""
    free = bytes_free(Path.cwd()) / 1e9
    kind = _file_system(Path.cwd())
    slow = kind in ("nfs", "nfs4", "lustre", "cifs", "fuse.sshfs")
    hint = "a network file system: keep the stores on a local disk while writing" if slow else ""
    return [Finding("free space here", f"{free:.1f} GB" + (f" ({kind})" if kind else ""), hint)]


def caches() -> list[Finding]:
    """Return the variables of other libraries that decide where weights are kept."""
    return [Finding(name, os.environ[name]) for name in CACHES if name in os.environ]


def _file_system(folder: Path) -> str:
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return ""
    rows = [row.split()[1:3] for row in mounts.read_text().splitlines()]
    over = [(where, kind) for where, kind in rows if folder.is_relative_to(where.replace("\\040", " "))]
    return max(over, key=lambda row: len(row[0]))[1] if over else ""


def _try(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=_SECONDS)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it ended without a word"])[-1]
