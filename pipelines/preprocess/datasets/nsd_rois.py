"""Regions of NSD's volumes: which voxels are V1 or FFA, from the masks that lie beside nsdgeneral.

The numbers in the files are NSD's own (its data manual, "ROIs"); dorsal and ventral halves, and numbered patches of one
region, are taken together. A voxel is in several regions where two maps say so.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipelines.preprocess.nifti import open_nifti

__all__ = ["REGIONS", "read_rois"]

REGIONS: dict[str, dict[str, Sequence[int]]] = {
    "prf-visualrois": {"V1": (1, 2), "V2": (3, 4), "V3": (5, 6), "hV4": (7,)},
    "floc-faces": {"OFA": (1,), "FFA": (2, 3), "mTL-faces": (4,), "aTL-faces": (5,)},
    "floc-words": {"OWFA": (1,), "VWFA": (2, 3), "mfs-words": (4,), "mTL-words": (5,)},
    "floc-places": {"OPA": (1,), "PPA": (2,), "RSC": (3,)},
    "floc-bodies": {"EBA": (1,), "FBA": (2, 3), "mTL-bodies": (4,)},
    "streams": {
        "early": (1,), "midventral": (2,), "midlateral": (3,), "midparietal": (4,), "ventral": (5,), "lateral": (6,),
        "parietal": (7,),
    },
}  # fmt: skip
"""File, region, and its numbers in the file."""


def read_rois(folder: Path, mask: np.ndarray) -> tuple[dict[str, list[int]], list[str]]:
    """Return the rows of every region among the voxels of a mask, and what could not be used.

    Parameters
    ----------
    folder : Path
        Holds ``prf-visualrois.nii.gz`` and the like; those that are missing are passed over.
    mask : (x, y, z) of bool
        The stored voxels, counted as ``volume[mask]`` does.

    Raises
    ------
    BadRecording
        If a file is there and is no NIfTI.
    """
    rois: dict[str, list[int]] = {}
    odd = []
    for name, regions in REGIONS.items():
        path = next((p for end in (".nii.gz", ".nii") if (p := folder / f"{name}{end}").is_file()), None)
        if path is None:
            continue
        volume = next(iter(open_nifti(path).volumes()))
        if volume.shape != mask.shape:
            odd.append(f"{path.name} has {volume.shape}, nsdgeneral {mask.shape}: left out")
            continue
        inside = volume[mask]
        for region, numbers in regions.items():
            rows = np.flatnonzero(np.isin(inside, numbers))
            if len(rows):
                rois[region] = rows.tolist()
    return rois, odd
