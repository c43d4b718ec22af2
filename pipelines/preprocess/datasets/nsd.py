"""The Natural Scenes Dataset (Allen et al. 2022, Nature Neuroscience 25): single-trial betas of the nsdgeneral voxels.

::

    raw/nsd/nsd_expdesign.mat                                  which trial showed which image
    raw/nsd/subj01_nsdgeneral.hdf5                             z-scored per session, (trial, voxel)
    raw/nsd/.../subj01/func1pt8mm/betas_.../betas_session01.hdf5 or .nii.gz   or betas of the whole volume, ...
    raw/nsd/.../subj01/func1pt8mm/roi/nsdgeneral.nii.gz                       with the voxels to take: those above 0
    raw/nsd/.../subj01/func1pt8mm/roi/prf-visualrois.nii.gz, streams.nii.gz   if they are there: regions of interest

anywhere below ``raw/nsd``. Trial ``t`` of subject ``s`` showed image ``subjectim[s, masterordering[t]]`` of the 73,000,
counted from 1; the ids here, ``nsd-00000`` to ``nsd-72999``, count from 0. ``masterordering`` up to 1000 is the shared
thousand: the test images. A session has 750 trials. Betas are stored as percent signal change times 300, in whole
numbers.
"""

import re
import zlib
from collections.abc import Callable
from math import prod
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from pipelines.hdf5 import not_plain
from pipelines.preprocess.cut_trials import CutTrials
from pipelines.preprocess.dataset import Problem
from pipelines.preprocess.datasets.nsd_rois import read_rois
from pipelines.preprocess.identity import identify
from pipelines.preprocess.impostors import read_head
from pipelines.preprocess.nifti import open_nifti
from pipelines.preprocess.trial_recipes import TrialRecipe, read_trial_recipe
from pipelines.preprocess.trials import TrialFlight, count_trials
from stores.errors import BadRecording, NotHere, UnknownName
from stores.names import subject_name

__all__ = ["NSD", "open_dataset"]

_PER_SESSION = 750
_SHARED = 1000  # the first of masterordering: shown to everyone
_IN_PERCENT = 300.0
_LARGEST = 150.0  # percent signal change, or sd, that no beta of a brain reaches
_VERSIONS = ("betas_fithrf_GLMdenoise_RR", "betas_fithrf", "betas_assumehrf")  # the best first


class NSD:
    """Betas of the Natural Scenes Dataset.

    Parameters
    ----------
    raw : Path
        Folder that holds them, at whatever depth.
    recipe : TrialRecipe
        What becomes of the betas.
    """

    def __init__(self, raw: Path, recipe: TrialRecipe) -> None:
        if not raw.is_dir():
            raise BadRecording(f"no folder {raw}", "put the betas there, or name their folder with --raw")
        self._raw, self.recipe = raw, recipe
        self._made = {int(path.name[4:6]): path for path in sorted(raw.rglob("subj0[1-8]_nsdgeneral.hdf5"))}
        self._betas: dict[int, dict[str, dict[str, dict[int, Path]]]] = {}  # by subject, resolution, version, session
        for path in sorted(raw.rglob("betas_session*")):  # .hdf5 before .nii.gz: the first found is kept
            number = re.fullmatch(r"betas_session(\d+)\.(hdf5|nii|nii\.gz)", path.name)
            subject = re.findall(r"/subj0?(\d)/", path.as_posix())
            if number and subject:
                of_subject = self._betas.setdefault(int(subject[-1]), {}).setdefault(_resolution(path), {})
                of_subject.setdefault(path.parent.name, {}).setdefault(int(number[1]), path)
        if not self._made and not self._betas:
            raise BadRecording(
                f"{raw} holds neither subj01_nsdgeneral.hdf5 nor .../subj01/.../betas_session01.hdf5",
                "see 'embedctl datasets show nsd'",
            )
        self._design = _read_design(next(iter(sorted(raw.rglob("nsd_expdesign.mat"))), raw / "nsd_expdesign.mat"))

    def subjects(self) -> list[int]:
        """Return who is there."""
        return sorted({*self._made, *self._betas})

    def preflight(self, subject: int) -> TrialFlight:
        """Return all that is wrong with a subject's betas."""
        if subject not in self.subjects():
            known = ", ".join(map(str, self.subjects()))
            raise UnknownName(f"no subject {subject} in {self._raw}", f"there: {known}; see --subject")
        flight = TrialFlight(subject, modality="fmri", packages=("embedctl", "numpy", "h5py"))
        # What is z-scored already stays so when it is z-scored again, so every recipe can take the file that is; but
        # it lacks sessions, so a recipe that scales begins with the betas where there are any.
        use_made = subject in self._made and (self.recipe.scale == "none" or subject not in self._betas)
        if subject in self._made and not use_made:
            left = self._made[subject].name
            flight.notes.append(f"{subject_name(subject)}: {left} is left: recipe {self.recipe.name} scales the betas")
        sessions = self._from_made(flight) if use_made else self._from_betas(flight)
        if sessions and not flight.problems:
            self._identify(flight, sessions)
            count_trials(flight, self.recipe, "nsd_expdesign.mat")
            if max(sessions) < self.recipe.sessions:
                flight.notes.append(
                    f"{subject_name(subject)}: recipe {self.recipe.name} takes {self.recipe.sessions} sessions, "
                    f"there are {len(sessions)}"
                )
        return flight

    def _identify(self, flight: TrialFlight, sessions: list[int]) -> None:
        """Say which trial showed which image in which session."""
        ordering, images = self._design
        trials = np.concatenate([np.arange((s - 1) * _PER_SESSION, s * _PER_SESSION) for s in sessions])
        if trials.max() >= len(ordering):
            what = f"{len(ordering):,} trials, but session {sessions[-1]} ends with trial {trials.max() + 1:,}"
            flight.problems.append(Problem("nsd_expdesign.mat", "masterordering", what, "download it again"))
            return
        shown = images[flight.subject - 1, ordering[trials] - 1]
        flight.images = [f"nsd-{number - 1:05d}" for number in shown.tolist()]
        flight.concepts = [""] * len(trials)
        flight.splits = ["test" if place <= _SHARED else "train" for place in ordering[trials].tolist()]
        flight.sessions = trials // _PER_SESSION + 1
        flight.columns = {"nsd_trial": trials.astype(np.int32), "nsd_id": (shown - 1).astype(np.int32)}

    def _from_made(self, flight: TrialFlight) -> list[int]:
        """Open the file that holds the voxels already; return its sessions."""
        path = self._made[flight.subject]

        def problem(field: str, what: str, fix: str) -> list[int]:
            flight.problems.append(Problem(path.name, field, what, fix))
            return []

        try:
            file = _open_hdf5(path)
        except BadRecording as bad:
            flight.problems.append(Problem.of(bad, path, path.name))
            return []
        key = next((key for key in ("voxels", "betas") if key in file), None)
        if key is None:
            return problem("voxels", f"not in it: it holds {', '.join(file) or 'nothing'}", "is this the right file?")
        try:
            values = _dataset(path, file, key)
        except BadRecording as bad:
            flight.problems.append(Problem.of(bad, path, path.name, key))
            return []
        if values.ndim != 2 or values.dtype.kind != "f":
            return problem(key, f"{values.dtype} {values.shape}", "expected real numbers, (trial, voxel)")
        n = len(values)
        if n == 0 or n % _PER_SESSION:
            return problem(key, f"{n:,} trials, which is no multiple of {_PER_SESSION}", "download it again")
        largest = float(np.nanmax(np.abs(values[: min(n, 50)]), initial=0.0))
        if largest > _LARGEST:
            what = f"values up to {largest:.0f}: betas that were neither z-scored nor divided by 300"
            return problem(key, what, "take the betas_session files instead, which embedctl scales itself")
        mask_path = self._mask_path(flight.subject, "func1pt8mm")
        mask = self._mask(flight, mask_path) if mask_path else None
        if mask is not None and mask.sum() == values.shape[1]:  # its voxels are those of the mask, in the mask's order
            self._regions(flight, mask_path, mask)
        flight.units, flight.row_shape = "sd", (values.shape[1],)
        flight.read = lambda rows: _rows_of(values, rows)
        flight.sources = [identify(path.name, [path])]
        return list(range(1, n // _PER_SESSION + 1))

    def _from_betas(self, flight: TrialFlight) -> list[int]:
        """Look at the headers of the betas of every session and at the mask; return the sessions."""
        resolutions = self._betas[flight.subject]
        resolution = "func1pt8mm" if "func1pt8mm" in resolutions else min(resolutions)
        versions = resolutions[resolution]
        version = next((name for name in _VERSIONS if name in versions), sorted(versions)[0])
        files = dict(sorted(versions[version].items()))
        for taken, of in ((resolution, resolutions), (version, versions)):
            if others := sorted(set(of) - {taken}):
                flight.notes.append(f"{subject_name(flight.subject)}: {taken} is taken, {', '.join(others)} is left")
        if resolution != "func1pt8mm":
            where = resolution or "no folder func1pt8mm"
            flight.notes.append(f"{subject_name(flight.subject)}: betas of {where}: other voxels than func1pt8mm has")
        if self.recipe.scale == "none":
            what = f"recipe {self.recipe.name} takes betas as they are, and these are not z-scored"
            fix = f"use --recipe clean, or find subj{flight.subject:02d}_nsdgeneral.hdf5"
            flight.problems.append(Problem(version, "scale", what, fix))
        absent = sorted(set(range(1, max(files) + 1)) - set(files))
        if absent:
            listed = ", ".join(map(str, absent[:5]))
            flight.notes.append(f"{subject_name(flight.subject)}: no betas of session {listed}: fewer repetitions")
        mask_path = self._mask_path(flight.subject, resolution)
        mask = self._mask(flight, mask_path)
        if mask is None:
            return []
        self._regions(flight, mask_path, mask)
        readers: dict[int, Callable[[], np.ndarray]] = {}
        for session, path in files.items():
            try:
                readers[session] = _session_reader(path, mask)
            except BadRecording as bad:
                flight.problems.append(Problem.of(bad, path, path.name))
        if flight.problems:
            return []
        voxels = np.flatnonzero(mask)
        flight.units, flight.row_shape = "percent signal change", (len(voxels),)
        flight.arrays = {"voxel": voxels.astype(np.int32)}
        flight.read = _Sessions(readers, list(files)).read
        flight.sources = [identify(path.relative_to(self._raw).as_posix(), [path]) for path in files.values()]
        return list(files)

    def _mask_path(self, subject: int, resolution: str) -> Path | None:
        """Return where nsdgeneral of a resolution lies."""
        found = sorted(self._raw.rglob("nsdgeneral.nii*"))
        of_subject = (path for path in found if re.search(rf"/subj0?{subject}/", path.as_posix()))
        return next((path for path in of_subject if _resolution(path) == resolution), None)

    def _mask(self, flight: TrialFlight, path: Path | None) -> np.ndarray | None:
        """Return where nsdgeneral is above 0, ``(x, y, z)`` of bool."""
        if path is None:
            fix = f"expected .../subj{flight.subject:02d}/func1pt8mm/roi/nsdgeneral.nii.gz"
            flight.problems.append(Problem("nsdgeneral.nii.gz", "file", "no file", fix))
            return None
        try:
            mask = next(open_nifti(path).volumes()) > 0
        except BadRecording as bad:
            flight.problems.append(Problem.of(bad, path, "nsdgeneral.nii.gz"))
            return None
        if not mask.any():
            what = "no voxel in it is above 0"
            flight.problems.append(Problem("nsdgeneral.nii.gz", "mask", what, "download it again"))
            return None
        return mask

    def _regions(self, flight: TrialFlight, mask_path: Path | None, mask: np.ndarray) -> None:
        """Read the regions of interest beside the mask."""
        if mask_path is None:
            return
        try:
            flight.rois = read_rois(mask_path.parent, mask)
        except BadRecording as bad:
            flight.problems.append(Problem(mask_path.parent.name, "regions", bad.what, bad.hint))

    def plan(self, flight: TrialFlight) -> CutTrials:
        """Return what becomes of the betas."""
        return CutTrials(flight, self.recipe)


def open_dataset(raw: Path, recipe: str) -> NSD:
    """Open the betas in ``raw``."""
    return NSD(raw, read_trial_recipe(recipe, "fmri"))


def _resolution(path: Path) -> str:
    """Return the folder that says how large voxels are, ``func1pt8mm`` or ``func1mm``; empty without one."""
    return next((part for part in path.parts[::-1] if re.fullmatch(r"func1\w*", part)), "")


class _Sessions:
    """The voxels of every session, in whole numbers as they are stored: below 1 GB for all of a subject."""

    def __init__(self, readers: dict[int, Callable[[], np.ndarray]], sessions: list[int]) -> None:
        self._readers, self._sessions = readers, sessions
        self._held: dict[int, np.ndarray] = {}
        self._reading = Lock()

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Return some trials in percent signal change, ``(n, n_voxels)`` float32."""
        parts = []
        which = rows // _PER_SESSION
        for place in np.unique(which).tolist():
            session = self._sessions[place]
            with self._reading:  # each session once, whoever asks first
                if session not in self._held:
                    self._held[session] = self._readers[session]()
            parts.append(self._held[session][rows[which == place] - place * _PER_SESSION])
        values = np.concatenate(parts)
        return values / np.float32(_IN_PERCENT) if values.dtype.kind in "iu" else values.astype(np.float32)


def _session_reader(path: Path, mask: np.ndarray) -> Callable[[], np.ndarray]:
    """Compare a session's header with the mask, and return what reads its voxels, ``(750, n_voxels)``."""
    if path.suffix == ".hdf5":
        file = _open_hdf5(path)
        if "betas" not in file:
            raise BadRecording(f"{path} lacks 'betas'", f"it holds {', '.join(file) or 'nothing'}")
        betas = _dataset(path, file, "betas")
        if betas.ndim != 4:
            raise BadRecording(f"{path}: betas has {betas.ndim} axes", "expected an array (trial, z, y, x)")
        shape, dtype = betas.shape[:0:-1] + betas.shape[:1], betas.dtype  # written x fastest, as MATLAB does
        middle = betas[:, betas.shape[1] // 2] if dtype.kind == "f" else np.zeros(1)
        biggest = float(np.nanmax(np.abs(middle), initial=0.0))

        def read() -> np.ndarray:
            out = np.empty((_PER_SESSION, int(mask.sum())), dtype)
            place = np.full(mask.shape, -1)
            place[mask] = np.arange(out.shape[1])
            for z in np.flatnonzero(mask.any(axis=(0, 1))).tolist():  # a chunk holds all trials of one voxel
                inside = mask[:, :, z]
                out[:, place[:, :, z][inside]] = betas[:, z].transpose(0, 2, 1)[:, inside]
            return out

    else:
        header = open_nifti(path)
        shape, dtype = (*header.shape, header.n_volumes), header.dtype
        is_scaled = (header.slope, header.inter) != (1.0, 0.0)
        if is_scaled:
            dtype = np.dtype("f4")
        first = next(header.volumes()) if dtype.kind == "f" else np.zeros(1)
        biggest = float(np.nanmax(np.abs(first * header.slope + header.inter)))

        def read() -> np.ndarray:
            out = np.empty((_PER_SESSION, int(mask.sum())), dtype)
            for trial, volume in enumerate(header.volumes()):
                out[trial] = volume[mask] * header.slope + header.inter if is_scaled else volume[mask]
            return out

    if shape != (*mask.shape, _PER_SESSION):
        raise BadRecording(
            f"{path} holds {shape}, the mask and a session of {_PER_SESSION} trials need {(*mask.shape, _PER_SESSION)}",
            "are betas and nsdgeneral of the same subject and resolution (func1pt8mm)?",
        )
    if dtype.kind == "f" and biggest > _LARGEST:
        raise BadRecording(
            f"{path} holds real numbers up to {biggest:.0f}: betas times 300?",
            "take the original file",
        )
    return read


def _open_hdf5(path: Path) -> Any:
    try:
        import h5py
    except ImportError:
        raise NotHere("this needs h5py, which is not installed", 'pip install "embedctl[brain]"') from None
    if not read_head(path).startswith(b"\x89HDF"):
        raise BadRecording(f"{path} is not an HDF5 file", "download it again")
    try:
        return h5py.File(path, "r")
    except OSError as problem:
        raise BadRecording(f"{path} is truncated or damaged: {problem}", "download it again") from None


def _dataset(path: Path, file: Any, key: str) -> Any:
    """Return a dataset whose bytes are in its file, as many as it says."""
    if not hasattr(file[key], "shape"):
        raise BadRecording(f"{path}: it is a group", "expected an array of real numbers")
    if why := not_plain(file[key], file):
        raise BadRecording(f"{path}: {why}", "download it again: published files are plain")
    return file[key]


def _rows_of(values: Any, rows: np.ndarray) -> np.ndarray:
    """Return rows of an HDF5 dataset; a range that holds few others is read whole, which is faster."""
    first, stop = int(rows[0]), int(rows[-1]) + 1
    if stop - first <= 2 * len(rows):
        return np.asarray(values[first:stop], np.float32)[rows - first]
    return np.asarray(values[rows], np.float32)


_NUMBERS = {"double", "single", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))}
_MOST_NUMBERS = 10_000_000


def _read_design(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return ``masterordering`` and ``subjectim`` of nsd_expdesign.mat, both counted from 1."""
    try:
        from scipy.io import loadmat, whosmat
        from scipy.io.matlab import MatReadError
    except ImportError:
        raise NotHere("this needs scipy, which is not installed", 'pip install "embedctl[brain]"') from None
    read_head(path)
    try:
        wanted = {"masterordering", "subjectim"}
        for name, shape, kind in whosmat(path):  # told without unpacking it
            if name in wanted and (kind not in _NUMBERS or not 0 < prod(shape) <= _MOST_NUMBERS):
                raise ValueError(f"its {name} is {kind} of {shape}, not some thousand numbers")
        design = loadmat(path, variable_names=sorted(wanted))
        ordering = np.asarray(design["masterordering"]).ravel().astype(np.int64)
        images = np.asarray(design["subjectim"]).astype(np.int64)
    except KeyError as problem:
        raise BadRecording(f"{path} lacks {problem}", "nsddata/experiments/nsd/nsd_expdesign.mat is meant") from None
    except (MatReadError, NotImplementedError, ValueError, TypeError, OSError, EOFError, zlib.error) as problem:
        raise BadRecording(f"{path} cannot be read: {str(problem).splitlines()[0]}", "download it again") from None
    if (
        images.ndim != 2
        or len(images) != 8
        or not len(ordering)
        or not 1 <= ordering.min() <= ordering.max() <= images.shape[1]
    ):
        raise BadRecording(
            f"{path}: masterordering {ordering.shape} does not number the columns of subjectim {images.shape}",
            "download it again",
        )
    return ordering, images
