"""The sweeps that the published tables are made of: pure, from the tables themselves."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.paper.tables import PaperCell, paper_cells
from pipelines.train.recipes import Recipe, read_recipe

__all__ = ["PREPROCESSING", "PaperSweep", "paper_sweeps"]

PREPROCESSING = {"things-eeg2": "nice", "things-meg": "alignvis", "nsd": "alignvis"}
"""The recipe of `embedctl preprocess` that does what the paper did."""

_SHAPE = {"things-eeg2": (63, 250), "things-meg": (271, 201), "nsd": (15_000, 1)}  # channels or voxels, samples
_N_ROWS = {"things-eeg2": 16_540, "things-meg": 19_848, "nsd": 8_859}  # of a complete subject
_OTHERS = 8  # subjects that are trained on across subjects, of ten


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperSweep:
    """What one call of `embedctl train` does for the tables.

    Parameters
    ----------
    tables : tuple of str
        The tables it is for.
    dataset, modality, protocol, gallery, brain_encoder : str
        As in the results.
    subjects : tuple of int
        Whom it tests.
    embeddings : tuple of str
        Aligned encoders and their bases.
    """

    tables: tuple[str, ...]
    dataset: str
    modality: str
    protocol: str
    gallery: str
    brain_encoder: str
    subjects: tuple[int, ...]
    embeddings: tuple[str, ...]

    @property
    def recipe(self) -> Recipe:
        """The training recipe, as the brain encoder has it."""
        return read_recipe("paper", self.modality, self.brain_encoder, self.protocol)

    @property
    def n_runs(self) -> int:
        """Runs: embeddings, subjects and seeds."""
        return len(self.embeddings) * len(self.subjects) * len(self.recipe.seeds)

    @property
    def rows_per_run(self) -> int:
        """Rows that a run takes through the network, if it makes all its passes."""
        rows = _N_ROWS[self.dataset] * (_OTHERS if self.protocol == "cross" else 1)
        return int(rows * (1 - self.recipe.held_out)) * self.recipe.passes

    @property
    def shape(self) -> tuple[int, int]:
        """Channels or voxels, and samples, of a row."""
        return _SHAPE[self.dataset]

    @property
    def words(self) -> str:
        """What to type for it."""
        return (
            f"embedctl train --brain {self.modality} --dataset {self.dataset} --recipe paper "
            f"--brain-encoder {self.brain_encoder} --model {','.join(self.embeddings)} "
            f"--subject {','.join(map(str, self.subjects))} --protocol {self.protocol} --gallery {self.gallery}"
        )


def paper_sweeps() -> list[PaperSweep]:
    """Return the sweeps, in the order of the tables.

    Examples
    --------
    >>> [(sweep.tables, sweep.brain_encoder, sweep.n_runs) for sweep in paper_sweeps()[:2]]
    [(('T1',), 'eegnet', 600), (('T1',), 'eegconformer', 600)]
    >>> sum(sweep.n_runs for sweep in paper_sweeps())
    3540
    """
    found: dict[tuple[str, ...], list[PaperCell]] = {}
    for cell in paper_cells():
        place = (cell.dataset, cell.modality, cell.protocol, cell.gallery, cell.brain_encoder)
        found.setdefault(place, []).append(cell)
    return [_sweep(cells) for cells in found.values()]


def _sweep(cells: Sequence[PaperCell]) -> PaperSweep:
    first = cells[0]
    return PaperSweep(
        tables=tuple(dict.fromkeys(cell.table for cell in cells)),
        dataset=first.dataset,
        modality=first.modality,
        protocol=first.protocol,
        gallery=first.gallery,
        brain_encoder=first.brain_encoder,
        subjects=tuple(sorted({subject for cell in cells for subject in cell.subjects})),
        embeddings=tuple(dict.fromkeys(cell.embedding for cell in cells)),
    )
