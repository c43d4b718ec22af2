"""What this environment has and lacks, found out without changing it.

Each check is a function that returns `Finding` rows; torch is asked in a process of its own.
"""

import os
import platform

from embedctl import __version__
from embedctl.findings import Finding
from embedctl.traps import attempt, last_line
from stores.layout import FORMAT
from stores.versions import installed_version

__all__ = ["caches", "devices", "for_a_bug_report", "versions"]

PACKAGES = {
    "base": ("numpy", "zarr", "numcodecs", "dask", "xarray", "pyarrow", "typer", "rich", "pillow"),
    "extract": ("torch", "torchvision", "timm", "open_clip_torch", "dreamsim", "huggingface_hub", "simplejpeg"),
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
    done = attempt(_DEVICES)
    if done.returncode:
        return [Finding("torch", last_line(done.stderr), "torch does not import: reinstall it")]
    rows = (text.split("\t") for text in done.stdout.splitlines())
    return [Finding(f"device {kind}", " ".join(filter(None, rest))) for kind, *rest in rows]


def caches() -> list[Finding]:
    """Return the variables of other libraries that decide where weights are kept."""
    return [Finding(name, os.environ[name]) for name in CACHES if name in os.environ]


def for_a_bug_report(versions: list[Finding], others: list[Finding]) -> str:
    """Return what a bug report needs, as text to paste: no folder's name is in it.

    Examples
    --------
    >>> print(for_a_bug_report([Finding("zarr", "3.1.6")], [Finding("runs: /home/me", "ext4")]).partition(", ")[2])
    store format 1
    zarr 3.1.6
    runs: ext4
    """
    known = ", ".join(f"{one.topic} {one.found}" for one in versions)
    lines = [f"embedctl {__version__}, store format {FORMAT}", known]
    return "\n".join([*lines, *(f"{one.topic.partition(':')[0]}: {one.found}" for one in others)])
