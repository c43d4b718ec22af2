"""NSD from betas of whole volumes and from the z-scored file: identity of images, sessions, voxels and scaling."""

import gzip
import struct

import h5py
import numpy as np
import pytest
from scipy.io import savemat
from typer.testing import CliRunner

from embedctl.cli import app
from pipelines.preprocess.dataset import open_dataset
from pipelines.preprocess.nifti import open_nifti
from pipelines.preprocess.preprocess import preprocess
from pipelines.preprocess.request import PreprocessRequest
from pipelines.preprocess.trial_recipes import read_trial_recipe
from stores.epochs import EpochStore
from stores.errors import BadRecording, StoreMismatch, UnknownName

SHAPE = (3, 2, 4)  # x, y, z
MASK = np.random.default_rng(5).integers(-1, 2, SHAPE).astype(np.int16)
SESSIONS = (1, 2)
N = 750 * len(SESSIONS)
# 600 images three times or fewer in 1,500 trials; masterordering up to 1000 is shared, so most of these are shared:
# the ordering skips 800 of them, so that the first 200 numbers are test images and the rest is not.
_ORDER = np.random.default_rng(6).integers(801, 1401, N)
IMAGES = np.random.default_rng(7).permutation(73000)[: 8 * 1400].reshape(8, 1400) + 1


def betas(session):
    return np.random.default_rng(session).integers(-3000, 3000, (750, *SHAPE)).astype(np.int16)


def write_nifti(path, data, dtype=4, slope=1.0, inter=0.0):
    """Write a NIfTI-1 file byte by byte: header of 348, four of extension, numbers with x fastest."""
    head = bytearray(352)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, data.ndim, *data.shape, *[1] * (7 - data.ndim))
    struct.pack_into("<2h", head, 70, dtype, 16)
    struct.pack_into("<3f", head, 108, 352.0, slope, inter)
    head[344:348] = b"n+1\0"
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = bytes(head) + data.tobytes(order="F")
    path.write_bytes(gzip.compress(whole, 1) if path.suffix == ".gz" else whole)


def write_design(raw, **change):
    raw.mkdir(parents=True, exist_ok=True)
    design = {"masterordering": _ORDER[None], "subjectim": IMAGES, "sharedix": IMAGES[:1, :1000], **change}
    savemat(raw / "nsd_expdesign.mat", {name: value for name, value in design.items() if value is not None})


def write_betas(raw, suffix, subject=1):
    write_design(raw)
    folder = raw / f"nsddata_betas/ppdata/subj{subject:02d}/func1pt8mm/betas_fithrf_GLMdenoise_RR"
    folder.mkdir(parents=True)
    for session in SESSIONS:
        if suffix == "hdf5":
            with h5py.File(folder / f"betas_session{session:02d}.hdf5", "w") as file:
                file["betas"] = betas(session).transpose(0, 3, 2, 1)  # (750, z, y, x)
        else:
            write_nifti(folder / f"betas_session{session:02d}.{suffix}", np.moveaxis(betas(session), 0, -1))
    write_nifti(raw / f"nsddata/ppdata/subj{subject:02d}/func1pt8mm/roi/nsdgeneral.nii.gz", MASK)
    return folder


def zscored(fit_all=True):
    """Return all trials in percent signal change, z-scored per session by all or by the training trials."""
    parts = []
    for session in SESSIONS:
        values = betas(session)[:, MASK > 0] / 300
        fit = np.ones(750, bool) if fit_all else _ORDER[(session - 1) * 750 : session * 750] > 1000
        parts.append((values - values[fit].mean(axis=0)) / values[fit].std(axis=0))
    return np.concatenate(parts)


def write_made(raw, values=None):
    write_design(raw)
    with h5py.File(raw / "subj01_nsdgeneral.hdf5", "w") as file:
        file["voxels"] = (zscored() if values is None else values).astype(np.float32)
        file["images"] = np.zeros(3)


def run(raw, tmp_path, store="e.zarr", **options):
    return preprocess(PreprocessRequest(dataset="nsd", raw=raw, store=tmp_path / store, **options))


def subject(tmp_path, store="e.zarr"):
    return EpochStore.open(tmp_path / store)["nsd", 1]


def check(found, expected, tolerance):
    """Compare every stored repetition with the trial it must be."""
    ids = np.array([f"nsd-{number - 1:05d}" for number in IMAGES[0, _ORDER - 1]])
    for split, chosen in ((found.train, _ORDER > 1000), (found.test, _ORDER <= 1000)):
        assert split.image_ids == sorted(set(ids[chosen]))
        stored = split.take(range(len(split)))
        for row, image in enumerate(split.image_ids):
            trials = np.flatnonzero(ids == image)
            assert split.valid[row].sum() == len(trials)
            assert np.allclose(stored[row, : len(trials)], expected[trials], atol=tolerance)
            assert split.session[row, : len(trials)].tolist() == (trials // 750 + 1).tolist()


def design_of(raw, ordering):
    """Write a design whose ordering is something else; packed, 16 MB of zeros are 16 kB."""
    savemat(raw / "nsd_expdesign.mat", {"masterordering": ordering, "subjectim": np.ones((8, 3))}, do_compression=True)


@pytest.mark.parametrize("suffix", ["hdf5", "nii.gz", "nii"])
def test_clean_takes_the_voxels_above_0_and_z_scores_without_the_shared_images(tmp_path, suffix):
    write_betas(tmp_path / "raw", suffix)
    line = run(tmp_path / "raw", tmp_path).subjects[0]
    found = subject(tmp_path)
    assert (line.n_chans, line.n_times) == ((MASK > 0).sum(), 1)
    assert found.modality == "fmri" and found.units == "sd" and found.recipe["dtype"] == "float16"
    assert np.array_equal(found.arrays["voxel"], np.flatnonzero(MASK > 0))
    check(found, zscored(fit_all=False), 5e-3)
    assert not all(found.train.concepts)


def test_regions_of_interest_are_places_among_the_voxels_that_are_taken(tmp_path):
    write_betas(tmp_path / "raw", "nii.gz")
    areas = np.zeros(SHAPE, np.int16)
    first, second, third, *_ = np.argwhere(MASK > 0)
    areas[tuple(first)], areas[tuple(second)], areas[tuple(third)] = 1, 7, 2  # V1v, hV4, V1d
    areas[tuple(np.argwhere(MASK <= 0)[0])] = 3  # V2, outside of nsdgeneral
    roi = tmp_path / "raw/nsddata/ppdata/subj01/func1pt8mm/roi"
    write_nifti(roi / "prf-visualrois.nii.gz", areas)
    streams = np.where(areas == 7, 5, 0).astype(np.int16)
    write_nifti(roi / "streams.nii.gz", streams)
    run(tmp_path / "raw", tmp_path)
    assert subject(tmp_path).info["rois"] == {"V1": [0, 2], "hV4": [1], "ventral": [1]}
    write_nifti(roi / "streams.nii.gz", streams[:2])
    with pytest.raises(BadRecording, match="streams"):
        run(tmp_path / "raw", tmp_path, store="another.zarr")


def test_alignvis_takes_the_z_scored_file_as_it_is(tmp_path):
    write_made(tmp_path / "raw")
    line = run(tmp_path / "raw", tmp_path, recipe="alignvis").subjects[0]
    check(subject(tmp_path), zscored(), 1e-6)
    assert line.notes == ["sub-01: recipe alignvis takes 37 sessions, there are 2"]
    alignvis = read_trial_recipe("alignvis", "fmri")
    assert (alignvis.sessions, alignvis.scale, alignvis.dtype) == (37, "none", "float32")


def test_clean_makes_the_same_of_the_z_scored_file_as_of_the_betas(tmp_path):
    write_made(tmp_path / "made")
    write_betas(tmp_path / "betas", "hdf5")
    run(tmp_path / "made", tmp_path, "made.zarr")
    run(tmp_path / "betas", tmp_path, "betas.zarr")
    made, own = (subject(tmp_path, f"{name}.zarr") for name in ("made", "betas"))
    assert made.train.image_ids == own.train.image_ids
    assert np.allclose(made.train.mean, own.train.mean, atol=2e-3)


def test_only_the_recipes_sessions_are_taken(tmp_path):
    write_made(tmp_path / "raw")
    own = tmp_path / "own.toml"
    own.write_text('base = "alignvis"\nsessions = 1\n')
    line = run(tmp_path / "raw", tmp_path, recipe=str(own)).subjects[0]
    found = subject(tmp_path)
    assert line.counts["in sessions the recipe leaves out"] == 750
    assert len(found.test.image_ids) == len(set(_ORDER[:750][_ORDER[:750] <= 1000]))
    assert set(np.unique(found.train.session)) <= {-1, 1}


def test_a_voxel_that_is_constant_or_no_number_is_zero_in_its_session(tmp_path):
    values = zscored()
    values[:750, 2], values[750:, 3] = 0.5, np.nan
    write_made(tmp_path / "raw", values)
    line = run(tmp_path / "raw", tmp_path).subjects[0]
    assert line.counts["dead channels"] == 2 and line.counts["repetitions lost to them"] == 0
    found = subject(tmp_path)
    stored = found.train.take(range(len(found.train)))
    assert not stored[found.train.session == 1][:, 2].any() and stored[found.train.session == 2][:, 2].any()
    assert not stored[found.train.session == 2][:, 3].any()


def spoil_file(name, spoil):
    return lambda raw: [spoil(path) for path in raw.rglob(name)]


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def html(path):
    path.write_bytes(b"<html>please log in</html>")


def replace_betas(values):
    def change(path):
        with h5py.File(path, "w") as file:
            file["betas"] = values

    return change


WHOLE = (750, *SHAPE[::-1])


@pytest.mark.parametrize("suffix", ["hdf5", "nii.gz"])
@pytest.mark.parametrize(
    ("spoil", "field", "said", "fix"),
    [
        (spoil_file("betas_session01.*", halve), "file", "truncated", "download it again"),
        (spoil_file("betas_session01.*", html), "file", "web page", "refused"),
        (spoil_file("nsdgeneral.nii.gz", halve), "file", "truncated", "download it again"),
        (spoil_file("nsdgeneral.nii.gz", lambda path: path.unlink()), "file", "no file", "roi/nsdgeneral.nii.gz"),
        (spoil_file("nsdgeneral.nii.gz", lambda p: write_nifti(p, MASK * 0)), "mask", "above 0", "download it again"),
        (spoil_file("nsdgeneral.nii.gz", lambda p: write_nifti(p, MASK[:2])), "file", "the mask", "same subject"),
        (lambda raw: write_design(raw, masterordering=_ORDER[None, :750]), "masterordering", "750 trials", "again"),
        (
            lambda raw: write_design(raw, masterordering=_ORDER[None] % 700 + 1),
            "split",
            "no train trial",
            "both splits",
        ),
    ],
)
def test_every_fault_of_betas_is_named_with_its_remedy(tmp_path, suffix, spoil, field, said, fix):
    write_betas(tmp_path / "raw", suffix)
    spoil(tmp_path / "raw")
    found = open_dataset("nsd", tmp_path / "raw", "clean").preflight(1)
    problem = next(p for p in found.problems if p.field == field)
    assert said in problem.what and fix in problem.fix and problem.file
    result = CliRunner().invoke(app, ["preprocess", "-d", "nsd", "--raw", str(tmp_path / "raw"), "--check"])
    assert result.exit_code == 2 and said in result.stderr


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.full(WHOLE, 900.0, np.float32), "real numbers up to 900: betas times 300"),
        (np.zeros((749, *SHAPE[::-1]), np.int16), "750 trials need"),
    ],
)
def test_betas_in_another_unit_or_of_another_length_are_refused(tmp_path, values, said):
    write_betas(tmp_path / "raw", "hdf5")
    spoil_file("betas_session02.hdf5", replace_betas(values))(tmp_path / "raw")
    (problem,) = open_dataset("nsd", tmp_path / "raw", "clean").preflight(1).problems
    assert problem.file == "betas_session02.hdf5" and said in problem.what


@pytest.mark.parametrize(
    ("write", "field", "said"),
    [
        (lambda path: replace_betas(np.zeros((750, 3)))(path), "", ""),
        (halve, "file", "truncated or damaged"),
        (lambda path: h5py.File(path, "w").close(), "voxels", "it holds nothing"),
        (replace_betas(np.zeros((751, 3), np.float32)), "betas", "751 trials, which is no multiple of 750"),
        (replace_betas(np.zeros((750, 3), np.int16)), "betas", "int16"),
        (replace_betas(np.full((750, 3), 900.0)), "betas", "neither z-scored nor divided by 300"),
    ],
)
def test_every_fault_of_the_z_scored_file_is_named(tmp_path, write, field, said):
    write_made(tmp_path / "raw")
    write(tmp_path / "raw/subj01_nsdgeneral.hdf5")
    problems = open_dataset("nsd", tmp_path / "raw", "alignvis").preflight(1).problems
    assert [p.field for p in problems] == ([field] if field else [])
    assert not problems or said in problems[0].what


def test_betas_that_are_not_z_scored_are_not_taken_for_alignvis(tmp_path):
    write_betas(tmp_path / "raw", "hdf5")
    (problem,) = open_dataset("nsd", tmp_path / "raw", "alignvis").preflight(1).problems
    assert "these are not z-scored" in problem.what and "--recipe clean" in problem.fix


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda raw: (raw / "nsd_expdesign.mat").unlink(), "no file"),
        (lambda raw: (raw / "nsd_expdesign.mat").write_bytes(b"MATLAB 5.0 MAT-file" * 20), "cannot be read"),
        (
            lambda raw: design_of(raw, np.zeros((4000, 4000), np.uint8)),
            "is uint8 of \\(4000, 4000\\)",
        ),
        (lambda raw: design_of(raw, np.array([[{"a": 1}]], object)), "not some thousand numbers"),
        (lambda raw: write_design(raw, subjectim=None), "lacks 'subjectim'"),
        (lambda raw: write_design(raw, subjectim=IMAGES[:, :900]), "does not number the columns"),
        (lambda raw: (raw / "subj01_nsdgeneral.hdf5").unlink(), "holds neither"),
    ],
)
def test_what_concerns_all_subjects_is_said_at_once(tmp_path, spoil, said):
    write_made(tmp_path / "raw")
    spoil(tmp_path / "raw")
    with pytest.raises(BadRecording, match=said) as caught:
        open_dataset("nsd", tmp_path / "raw", "clean")
    assert caught.value.hint and caught.value.exit_code == 2


def test_a_missing_session_is_a_note_and_an_unknown_subject_an_error(tmp_path):
    write_betas(tmp_path / "raw", "hdf5")
    spoil_file("betas_session01.hdf5", lambda path: path.unlink())(tmp_path / "raw")
    dataset = open_dataset("nsd", tmp_path / "raw", "clean")
    found = dataset.preflight(1)
    assert not found.problems and found.notes == ["sub-01: no betas of session 1: fewer repetitions"]
    assert found.sessions.tolist() == [2] * 750
    with pytest.raises(UnknownName, match="no subject 4"):
        dataset.preflight(4)


def test_a_nifti_header_may_scale(tmp_path):
    data = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    write_nifti(tmp_path / "a.nii", data, slope=0.5)
    header = open_nifti(tmp_path / "a.nii")
    assert (header.shape, header.slope, header.n_volumes) == ((2, 3, 4), 0.5, 1)
    assert np.array_equal(next(header.volumes()), data)
    write_nifti(tmp_path / "c.nii", data, inter=5.0)
    assert (open_nifti(tmp_path / "c.nii").slope, open_nifti(tmp_path / "c.nii").inter) == (1.0, 5.0)
    write_nifti(tmp_path / "b.nii", data, dtype=1792)
    with pytest.raises(BadRecording, match="NIfTI type 1792"):
        open_nifti(tmp_path / "b.nii")


def test_a_recipe_that_scales_begins_with_the_betas_of_func1pt8mm_and_says_what_is_left(tmp_path):
    raw = tmp_path / "raw"
    finer = write_betas(raw, "nii").parent.parent / "func1mm/betas_fithrf"  # sorts before func1pt8mm
    finer.mkdir(parents=True)
    (finer / "betas_session01.nii").write_bytes(b"")
    write_nifti(raw / "nsddata/ppdata/subj01/func1mm/roi/nsdgeneral.nii.gz", np.ones((4, 4, 5), np.int16))
    write_made(raw, zscored()[:750])
    found = open_dataset("nsd", raw, "clean").preflight(1)
    assert not found.problems and found.row_shape == ((MASK > 0).sum(),) and len(found.images) == N
    assert found.notes == [
        "sub-01: subj01_nsdgeneral.hdf5 is left: recipe clean scales the betas",
        "sub-01: func1pt8mm is taken, func1mm is left",
    ]


def test_the_z_scored_file_has_the_regions_of_the_mask_beside_it(tmp_path):
    roi = tmp_path / "raw/nsddata/ppdata/subj01/func1pt8mm/roi"
    write_made(tmp_path / "raw")
    write_nifti(roi / "nsdgeneral.nii.gz", MASK)
    write_nifti(roi / "streams.nii.gz", np.where(MASK > 0, 5, 0).astype(np.int16))
    found = open_dataset("nsd", tmp_path / "raw", "alignvis").preflight(1)
    assert found.rois == {"ventral": list(range((MASK > 0).sum()))}


def test_unsigned_betas_are_percent_times_300_too_and_scaled_ones_are_looked_at(tmp_path):
    write_betas(tmp_path / "raw", "hdf5")
    spoil_file("betas_session02.hdf5", replace_betas(np.full(WHOLE, 600, np.uint16)))(tmp_path / "raw")
    found = open_dataset("nsd", tmp_path / "raw", "clean").preflight(1)
    assert (found.read(np.array([750])) == 2.0).all()
    folder = write_betas(tmp_path / "other", "nii")
    data = np.moveaxis(betas(2), 0, -1)
    write_nifti(folder / "betas_session02.nii", data, slope=0.5)
    (problem,) = open_dataset("nsd", tmp_path / "other", "clean").preflight(1).problems
    assert problem.file == "betas_session02.nii" and "betas times 300" in problem.what


def test_a_group_where_numbers_should_be_and_a_damaged_archive_are_bad_recordings(tmp_path):
    write_made(tmp_path / "raw")
    with h5py.File(tmp_path / "raw/subj01_nsdgeneral.hdf5", "w") as file:
        file.create_group("voxels")
    (problem,) = open_dataset("nsd", tmp_path / "raw", "clean").preflight(1).problems
    assert (problem.field, problem.what) == ("voxels", "it is a group")
    (tmp_path / "m.nii.gz").write_bytes(b"\x1f\x8b\x08\x00\0\0\0\0\0\x03" + b"\xff" * 600)
    with pytest.raises(BadRecording, match="m.nii.gz is truncated or damaged"):
        open_nifti(tmp_path / "m.nii.gz")


def test_another_mask_is_not_taken_for_the_same_voxels(tmp_path):
    write_betas(tmp_path / "raw", "hdf5")
    run(tmp_path / "raw", tmp_path)
    write_nifti(tmp_path / "raw/nsddata/ppdata/subj01/func1pt8mm/roi/nsdgeneral.nii.gz", -MASK)
    with pytest.raises(StoreMismatch, match="what they mean changed"):
        run(tmp_path / "raw", tmp_path)
