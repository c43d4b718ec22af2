"""AlignVis's folders: one ``.npy`` per image and encoder, in a copy of the tree of images.

``images/training_images/00001_aardvark/aardvark_01b.jpg`` has its embeddings in
``image_embeddings/training_images/00001_aardvark/aardvark_01b_ENCODER.npy``, shape (1, feature). One folder often
holds several encoders: ``ENCODER`` (``dreamsim_clip_vitb32``, ``dreamsim_clip_vitb32_noalign``, ...) chooses.
"""

import os
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from stores.errors import EmbedctlError

__all__ = ["PerImage", "find_per_image"]

SHOWN = 5


@dataclass(frozen=True, slots=True)
class PerImage:
    """The files of one encoder.

    Parameters
    ----------
    files : dict of str to Path
        From the id of the image.
    n_others : int
        ``.npy`` files of the folder that belong to something else.
    """

    files: dict[str, Path]
    n_others: int


def find_per_image(folder: Path, image_ids: Collection[str], suffix: str = "") -> PerImage:
    """Find the file of every image.

    An image is found by the name of its file; where several images share one, by the folders above it.

    Parameters
    ----------
    folder : Path
        The folder of embeddings.
    image_ids : collection of str
        The images there are.
    suffix : str
        AlignVis's name of the encoder; needed only where there are several.

    Raises
    ------
    EmbedctlError
        If the folder holds several encoders and none is chosen, or a file belongs to no image, to several, or to one
        that has another file.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     (Path(folder) / "dog_01b_dreamsim_ensemble.npy").touch()
    ...     list(find_per_image(Path(folder), ["dogs/dog_01b.jpg", "dogs/dog_02s.jpg"]).files)
    ['dogs/dog_01b.jpg']
    """
    by_stem: dict[str, list[str]] = {}
    for image_id in image_ids:
        by_stem.setdefault(_stem(image_id.rpartition("/")[2]), []).append(image_id)
    names = sorted(_npy_files(folder), key=str.encode)
    ending = f"_{suffix}" if suffix else _only_ending(folder, names, by_stem)
    mine = [name for name in names if _stem(name).endswith(ending)]
    if not mine:
        raise EmbedctlError(
            f"no file of '{folder}' ends in '{ending}.npy'", "see how its files end, and choose --suffix"
        )
    found: dict[str, Path] = {}
    unknown = []
    for name in mine:
        fitting = _closest(_stem(name).removesuffix(ending), by_stem)
        if len(fitting) == 1 and fitting[0] in found:
            raise EmbedctlError(
                f"'{found[fitting[0]]}' and '{folder / name}' are both of the image '{fitting[0]}'", "remove one"
            )
        if len(fitting) > 1:
            raise EmbedctlError(
                f"'{folder / name}' fits several images: {', '.join(fitting[:3])}", "name its folder alike"
            )
        if fitting:
            found[fitting[0]] = folder / name
        else:
            unknown.append(name)
    if unknown:
        raise EmbedctlError(
            f"{len(unknown)} of {len(mine)} files of '{folder}' belong to no image that is known: {first(unknown)}",
            "name the folder of the images with --images",
        )
    return PerImage(found, len(names) - len(mine))


def first(names: list[str]) -> str:
    """Return the first few names as a text.

    Examples
    --------
    >>> first(["a", "b", "c", "d", "e", "f", "g"])
    "'a', 'b', 'c', 'd', 'e' and 2 more"
    """
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(f"'{name}'" for name in names[:SHOWN]) + more


def _npy_files(folder: Path) -> Iterable[str]:
    for above, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if name.endswith(".npy") and not name.startswith("."):
                yield Path(above, name).relative_to(folder).as_posix()


def _stem(name: str) -> str:
    head, dot, _ = name.rpartition(".")
    return head if dot and head.rpartition("/")[2] else name


def _only_ending(folder: Path, names: Iterable[str], by_stem: Collection[str]) -> str:
    """Return what follows the name of an image in the names of the files, if that is one thing."""
    endings: Counter[str] = Counter()
    for name in names:
        stem = _stem(name).rpartition("/")[2]
        cuts = [at for at in range(len(stem), 0, -1) if at == len(stem) or stem[at] == "_"]
        endings.update(next(([stem[at:]] for at in cuts if stem[:at] in by_stem), []))
    if len(endings) == 1:
        return next(iter(endings))
    if not endings:
        raise EmbedctlError(
            f"no file of '{folder}' is named after an image that is known",
            "files are called STEM_ENCODER.npy after the image STEM.jpg; name the images with --images",
        )
    there = ", ".join(ending.removeprefix("_") or "(none)" for ending, _ in endings.most_common(12))
    raise EmbedctlError(f"'{folder}' holds embeddings of {len(endings)} encoders", f"choose one with --suffix: {there}")


def _closest(stem: str, by_stem: dict[str, list[str]]) -> list[str]:
    """Return the images of that name; of several, those that share most of the folders above."""
    folders = stem.split("/")
    fitting = by_stem.get(folders[-1], [])
    shared = [_shared_end(folders, _stem(image_id).split("/")) for image_id in fitting]
    return [image_id for image_id, n in zip(fitting, shared, strict=True) if n == max(shared)]


def _shared_end(ours: list[str], theirs: list[str]) -> int:
    n = 0
    while n < min(len(ours), len(theirs)) and ours[-1 - n] == theirs[-1 - n]:
        n += 1
    return n
