"""Regions of interest of NSD's voxels: volumes of labels in the folder that holds ``nsdgeneral.nii.gz``.

Visual areas come from ``prf-visualrois.nii.gz``, the streams beyond them from ``streams.nii.gz``; the numbers are those
of NSD's data manual. A file that is not there is no problem: the voxels are then read without regions.
"""

from pathlib import Path

import numpy as np

from pipelines.preprocess.nifti import open_nifti
from stores.errors import BadRecording

__all__ = ["read_rois"]

_LABELS: dict[str, dict[str, tuple[int, ...]]] = {
    "prf-visualrois": {"V1": (1, 2), "V2": (3, 4), "V3": (5, 6), "hV4": (7,)},
    "streams": {
        **{"midventral": (2,), "midlateral": (3,), "midparietal": (4,)},
        **{"ventral": (5,), "lateral": (6,), "parietal": (7,)},
    },
}


def read_rois(folder: Path, mask: np.ndarray) -> dict[str, list[int]]:
    """Return which voxels belong to which region, as places among those of the mask; empty regions are left out.

    Parameters
    ----------
    folder : Path
        Holds the volumes of labels.
    mask : (x, y, z) of bool
        The voxels that are taken.

    Raises
    ------
    BadRecording
        If a volume is damaged, or of another size than the mask.
    """
    found: dict[str, list[int]] = {}
    for name, regions in _LABELS.items():
        path = next((p for p in (folder / f"{name}.nii.gz", folder / f"{name}.nii") if p.is_file()), None)
        if path is None:
            continue
        volume = next(open_nifti(path).volumes())
        if volume.shape != mask.shape:
            raise BadRecording(
                f"{path} has {volume.shape} voxels, nsdgeneral has {mask.shape}",
                "take both from func1pt8mm/roi of the same subject",
            )
        labels = volume[mask]
        found |= {region: np.flatnonzero(np.isin(labels, numbers)).tolist() for region, numbers in regions.items()}
    return {region: voxels for region, voxels in found.items() if voxels}
