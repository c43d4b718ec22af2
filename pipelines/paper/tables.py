"""The published numbers of Rajabi et al. (ICML 2025), cell by cell, under the names used here.

``icml2025.csv`` has tables 1 to 3 and 6 to 10 of https://arxiv.org/abs/2502.03081v2 as printed, in percent. Two means
are not those of the rows above them, and were left as they are: table 2, DINOv2, aligned, prints 10.2 where the rows
give 10.4, and table 9, SynCLR, aligned, 86.7 where they give 85.7.
"""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pipelines.encoders.registry import registry

__all__ = ["SOURCE", "PaperCell", "paper_cells"]

SOURCE = "Rajabi et al., ICML 2025 (https://arxiv.org/abs/2502.03081v2), tables 1 to 3 and 6 to 10"

ALIGNED = {
    "Ensemble": "dreamsim-ensemble",
    "SynCLR": "dreamsim-synclr-vitb16",
    "CLIP": "dreamsim-clip-vitb32",
    "OpenCLIP": "dreamsim-openclip-vitb32",
    "DINO": "dreamsim-dino-vitb16",
    "DINOv2": "dreamsim-dinov2-vitb14",
}
BRAIN_ENCODERS = {"EEGNetV4": "eegnet", "EEGConformer": "eegconformer", "NICE": "nice+linear", "ATM-S": "atm-s+linear"}


@dataclass(frozen=True, slots=True)
class _Table:
    dataset: str
    modality: str
    subjects: tuple[int, ...]
    n_way: int
    protocol: str = "within"
    gallery: str = "test"
    brain_encoder: str = "nice+linear"


_EEG, _MEG, _NSD = tuple(range(1, 11)), (1, 2, 3, 4), (1, 2, 5, 7)
_TABLES = {
    "T1": _Table("things-eeg2", "eeg", _EEG, 200),
    "T2": _Table("things-eeg2", "eeg", _EEG, 200, protocol="cross"),
    "T3": _Table("things-meg", "meg", _MEG, 200),
    "T6": _Table("things-eeg2", "eeg", _EEG, 200, protocol="cross"),
    "T7": _Table("things-meg", "meg", _MEG, 200),
    "T8": _Table("nsd", "fmri", _NSD, 982, brain_encoder="brain-mlp"),
    "T9": _Table("nsd", "fmri", _NSD, 982, brain_encoder="brain-mlp"),
    "T10": _Table("things-eeg2", "eeg", (10,), 16_740, gallery="train+test"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperCell:
    """One published number.

    Parameters
    ----------
    table, row, column, variant : str
        Where it is printed: ``T1``; a brain encoder, a subject or ``Avg``; an image encoder; ``HA`` or ``Base``.
    dataset, modality, protocol, gallery, brain_encoder, embedding : str
        What it was measured with, as in the results. The base is the one the paper used.
    n_way : int
        Images in the gallery.
    subjects : tuple of int
        Who was averaged over.
    metric : str
        ``top1`` or ``top5``.
    published : float
        Accuracy, a fraction.
    """

    table: str
    row: str
    column: str
    variant: str
    dataset: str
    modality: str
    protocol: str
    gallery: str
    brain_encoder: str
    embedding: str
    n_way: int
    subjects: tuple[int, ...]
    metric: str
    published: float


@cache
def paper_cells() -> tuple[PaperCell, ...]:
    """Return all published numbers, in the order of the tables.

    Examples
    --------
    >>> first = paper_cells()[0]
    >>> first.table, first.brain_encoder, first.embedding, first.published
    ('T1', 'eegnet', 'dreamsim-ensemble', 0.3951)
    """
    text = (Path(__file__).parent / "icml2025.csv").read_text(encoding="utf-8")
    return tuple(_cell(line) for line in csv.DictReader(text.splitlines()))


def _cell(line: dict[str, str]) -> PaperCell:
    table, row, aligned = _TABLES[line["table"]], line["row"], ALIGNED[line["image_encoder"]]
    subject = row.removeprefix("S")
    return PaperCell(
        table=line["table"],
        row=row,
        column=line["image_encoder"],
        variant=line["variant"],
        dataset=table.dataset,
        modality=table.modality,
        protocol=table.protocol,
        gallery=table.gallery,
        brain_encoder=BRAIN_ENCODERS.get(row, table.brain_encoder),
        embedding=aligned if line["variant"] == "HA" else registry()[aligned].base,
        n_way=table.n_way,
        subjects=(int(subject),) if subject.isdigit() else table.subjects,
        metric=line["metric"],
        published=round(float(line["mean_pct"]) / 100, 6),
    )
