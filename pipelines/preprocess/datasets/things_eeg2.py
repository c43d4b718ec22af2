"""THINGS-EEG2 from its raw files, as `pipelines.preprocess.things_eeg2` describes them, else from merged ones."""

from pathlib import Path

from pipelines.preprocess.datasets.things_eeg2_merged import MergedEEG2, find_merged, open_merged
from pipelines.preprocess.preflight import preflight
from pipelines.preprocess.recipes import Recipe, read_recipe
from pipelines.preprocess.recorded import Recorded
from pipelines.preprocess.recording import RecordedFlight
from pipelines.preprocess.things_eeg2 import find_image_lists, find_recordings, find_subjects

__all__ = ["ThingsEEG2", "open_dataset"]


class ThingsEEG2:
    """The raw recordings of THINGS-EEG2.

    Parameters
    ----------
    raw : Path
        Folder with ``sub-01``, ... and ``image_metadata.npy``.
    recipe : Recipe
        How to cut and whiten.
    """

    def __init__(self, raw: Path, recipe: Recipe) -> None:
        self._raw, self.recipe = raw, recipe
        self._subjects = sorted(find_subjects(raw))
        self._images, self._wrong_lists = find_image_lists(raw)

    def subjects(self) -> list[int]:
        """Return who is there."""
        return self._subjects

    def preflight(self, subject: int) -> RecordedFlight:
        """Return all that is wrong with a subject."""
        flight = preflight(self._raw, subject, self._images, self.recipe.channels)
        flight.problems[:0] = self._wrong_lists
        return flight

    def plan(self, flight: RecordedFlight) -> Recorded:
        """Return what becomes of its presentations."""
        return Recorded.of(flight, self.recipe, "standard_1020")


def open_dataset(raw: Path, recipe: str) -> ThingsEEG2 | MergedEEG2:
    """Open the raw recordings in ``raw``, or where there are none the files that others merged."""
    folders = list(find_subjects(raw).values()) if raw.is_dir() else []
    if any(map(find_merged, folders)) and not any(map(find_recordings, folders)):
        return open_merged(raw, recipe)
    return ThingsEEG2(raw, read_recipe(recipe))
