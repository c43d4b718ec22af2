"""On a read-only disk what writes is refused before PyTorch is loaded or numbers are read."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from embedctl.quality_page import draw_pages
from pipelines.preprocess.request import PreprocessReport, SubjectReport
from pipelines.progress import SILENT
from stores.errors import CannotWrite

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows does not say whether a disk is read-only")

READ_ONLY = """
import os, sys
from types import SimpleNamespace
from embedctl import cli
os.statvfs = lambda path: SimpleNamespace(f_flag=os.ST_RDONLY)
for words in (["predict", "a-run"], ["interpret"]):
    sys.argv = ["embedctl", *words]
    try:
        cli.app()
    except SystemExit as end:
        print(words[0], end.code, "torch" in sys.modules)
"""


def test_what_writes_is_refused_before_pytorch_is_loaded(tmp_path):
    (tmp_path / "runs").mkdir()
    words = [sys.executable, "-c", READ_ONLY]
    ended = subprocess.run(words, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert ended.stdout.splitlines() == ["predict 7 False", "interpret 7 False"]
    assert ended.stderr.count("the disk is read-only") == 2


def test_a_picture_of_quality_is_refused_before_anything_is_measured(tmp_path, monkeypatch):
    line = SubjectReport(subject=1, state="already there")
    report = PreprocessReport(dataset="things-eeg2", recipe="clean", store=tmp_path / "epochs.zarr", subjects=[line])
    monkeypatch.setattr("os.statvfs", lambda path: SimpleNamespace(f_flag=os.ST_RDONLY))
    monkeypatch.setattr("stores.epochs.EpochStore.open", lambda path: pytest.fail("it was read"))
    with pytest.raises(CannotWrite, match="epochs-quality/things-eeg2': the disk is read-only"):
        draw_pages(report, SILENT)
