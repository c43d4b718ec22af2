"""`--workers` and `--scheduler`: a dask cluster writes the bytes of one process."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from distributed import LocalCluster

import embedctl
from pipelines.cluster import check_cluster
from pipelines.extract import forms
from pipelines.extract.extract import extract
from pipelines.extract.forward import Networks
from pipelines.extract.provenance import provenance
from pipelines.extract.request import ExtractRequest
from stores.embeddings import EmbeddingStore
from stores.errors import EmbedctlError, StoreLocked, StoreMismatch
from stores.parts import Part
from tests.clusters import Heard, Killer, one_worker, scheduler_apart
from tests.photos import write_photographs
from tests.stored_files import files

MODELS = ("pixels", "colour-histogram")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images whose rows make three blocks, one of them bad, and a store that one process wrote."""
    folder = tmp_path_factory.mktemp("distributed")
    write_photographs(folder / "images", 5, sizes=False)
    for store in ("whole.zarr", "workers.zarr", "scheduler.zarr"):
        extract(request_for(folder, store))
    write_photographs(folder / "images", 135, first=5, sizes=False)
    (folder / "images/concept_001/photo_0009.jpg").write_bytes(b"no image")
    extract(request_for(folder, "whole.zarr"))
    return folder


def request_for(folder, store: str) -> ExtractRequest:
    return ExtractRequest(models=MODELS, images=folder / "images", store=folder / store, batch_size=16)


@pytest.mark.slow
def test_two_workers_write_the_files_of_one_process_and_progress_shows_them(folder):
    heard, environment = Heard(), dict(os.environ)
    report = extract(replace(request_for(folder, "workers.zarr"), workers=2), heard)
    assert os.environ.get("PYTHONSAFEPATH") == environment.get("PYTHONSAFEPATH")
    assert report.written == 2 * 134 and list(report.skipped) == ["concept_001/photo_0009.jpg"]
    assert heard.n == report.n_read == 135 and heard.workers == {"2"}
    assert files(folder / "workers.zarr") == files(folder / "whole.zarr")


@pytest.fixture(scope="module")
def scheduler():
    """A cluster of one worker in this process, where its parts can be replaced."""
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, protocol="tcp://", dashboard_address=":0"
    ) as cluster:
        yield cluster.scheduler_address


@pytest.mark.slow
def test_progress_shows_what_workers_say_and_the_memory_of_their_gpus(folder, scheduler, monkeypatch):
    monkeypatch.setattr(Networks, "gpu_bytes", lambda self: 2_000_000_000)
    heard = Heard()
    write_photographs(folder / "two", 2, sizes=False)
    request = replace(request_for(folder, "gpu.zarr"), models=("mobilenetv3-small-tv",), weights="random:7")
    monkeypatch.setattr(forms, "_found", {})
    monkeypatch.setattr(forms, "choose_form", lambda encoder, n_images: ("plain", "as the test says"))
    extract(replace(request, images=folder / "two", scheduler=scheduler), heard)
    assert heard.gpu == "2.0 GB" and "mobilenetv3-small-tv: as the test says" in heard.said


@pytest.mark.slow
def test_a_store_from_before_forms_were_recorded_is_gone_on_with(folder, scheduler, monkeypatch):
    request = replace(request_for(folder, "old.zarr"), images=folder / "few")
    write_photographs(request.images, 3)
    monkeypatch.setattr("pipelines.extract.extract.provenance", lambda *given: older(provenance(*given)))
    extract(request)
    monkeypatch.undo()
    write_photographs(request.images, 1, first=3)
    assert extract(replace(request, scheduler=scheduler)).written == len(MODELS)


def older(facts: dict) -> dict:
    return {name: fact for name, fact in facts.items() if name not in ("form", "threads", "device")}


@pytest.mark.slow
def test_a_worker_with_another_version_of_what_changes_the_numbers_is_refused(folder, scheduler, monkeypatch):
    monkeypatch.setattr(
        "pipelines.extract.distributed.versions_that_matter", lambda *of: {"torch": "0.1", "pillow": "0.1"}
    )
    with pytest.raises(StoreMismatch, match=r"is 0\.1 on a worker on .*, not \d"):
        extract(replace(request_for(folder, "versions.zarr"), scheduler=scheduler))
    assert not (folder / "versions.zarr").exists()


@pytest.mark.slow
def test_neither_the_program_nor_its_workers_import_what_lies_in_the_workspace(folder, tmp_path):
    for name in ("multiprocessing", "torch", "random"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'a').write('{name}\\n')\n1 / 0\n")
    words = ["extract", "--model", "pixels", "--images", str(folder / "images"), "--workers", "1"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}
    environment["PYTHONPATH"] = str(Path(embedctl.__file__).parents[1])
    ran = subprocess.run(
        [sys.executable, "-m", "embedctl", *words], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert ran.returncode == 3, ran.stderr  # one image is bad
    assert not (tmp_path / "imported").exists() and len(EmbeddingStore.open(tmp_path / "embeddings.zarr").image_ids) > 1


TOLD = {  # Ctrl-C, and a cluster's manager that ends a job, tell all processes; who types `kill` tells one
    "Ctrl-C": (signal.SIGINT, os.killpg, 130),
    "scancel": (signal.SIGTERM, os.killpg, 143),
    "kill": (signal.SIGTERM, os.kill, 143),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", TOLD)
def test_a_command_that_is_told_to_end_ends_its_workers_and_the_next_run_goes_on(folder, what):
    (number, tell, code), store = TOLD[what], folder / f"{what}.zarr"
    words = ["extract", "--model", "resnet18-tv", "--weights", "random:7", "--batch-size", "8", "--workers", "2"]
    words += ["--images", str(folder / "images"), "--store", str(store)]
    environment = {**os.environ, "PYTHONPATH": str(Path(embedctl.__file__).parents[1])}
    running = subprocess.Popen(
        [sys.executable, "-m", "embedctl", *words],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while running.poll() is None and len(list(store.glob("resnet18-tv-*/values/.embedctl/**/*.json"))) < 2:
        time.sleep(0.05)
    tell(running.pid, number)
    _, said = running.communicate(timeout=180)
    assert running.returncode == code and "Error" not in said and "Traceback" not in said, said
    left = [process for process in psutil.process_iter() if _session(process) == running.pid]
    _, alive = psutil.wait_procs(left, timeout=30)  # who looks after resources ends last
    assert all(process.status() == psutil.STATUS_ZOMBIE for process in alive)
    request = replace(request_for(folder, store.name), models=("resnet18-tv",), weights="random:7", batch_size=8)
    report = extract(request)
    assert report.already >= 8 and report.written + report.already == 139


def _session(process: psutil.Process) -> int:
    try:
        return os.getsid(process.pid)
    except OSError:
        return -1


@pytest.mark.slow
def test_a_killed_worker_costs_nothing_but_time(folder):
    request = request_for(folder, "scheduler.zarr")
    with one_worker() as (address, pids):
        killer = Killer(pids, lambda n: n < 100)  # the first block is done, and its worker is at the next
        report = extract(replace(request, scheduler=address), killer)
    assert not pids and report.written == 2 * 134
    assert files(request.store) == files(folder / "whole.zarr")


@pytest.mark.slow
def test_a_scheduler_that_dies_is_told_in_two_lines_and_the_next_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(forms, "_found", {})
    monkeypatch.setattr(forms, "choose_form", lambda encoder, n_images: ("plain", "as the test says"))
    write_photographs(tmp_path / "images", 5, sizes=False)
    request = replace(request_for(tmp_path, "lost.zarr"), models=("mobilenetv3-small-tv",), weights="random:7")
    extract(request)
    shutil.copytree(request.store, tmp_path / "whole.zarr")
    write_photographs(tmp_path / "images", 135, first=5, sizes=False)
    words = ["extract", "--model", "mobilenetv3-small-tv", "--weights", "random:7", "--images", str(request.images)]
    with scheduler_apart(tmp_path) as (address, scheduler):
        running = subprocess.Popen(
            [sys.executable, "-m", "embedctl", *words, "--store", str(request.store), "--scheduler", address],
            env={**os.environ, "PYTHONPATH": str(Path(embedctl.__file__).parents[1])},
            stderr=subprocess.PIPE,
            text=True,
        )
        while running.poll() is None and len(EmbeddingStore.open(request.store)["mobilenetv3-small-tv"].image_ids) == 5:
            time.sleep(0.05)
        scheduler.kill()
        _, said = running.communicate(timeout=120)
    assert running.returncode == 2 and "Traceback" not in said and "distributed" not in said, said
    assert f"the scheduler at {address} is gone" in said and "run the same command: it goes on" in said
    report = extract(request)
    assert report.already > 5 and report.written > 0
    extract(replace(request, store=tmp_path / "whole.zarr"))
    assert files(request.store) == files(tmp_path / "whole.zarr")


@pytest.mark.slow
def test_a_cluster_and_a_shard_do_not_write_one_store(folder):
    write_photographs(folder / "more", 70)
    request = replace(request_for(folder, "beside.zarr"), images=folder / "more")
    store = EmbeddingStore.open(request.store, create=True)
    with store.part(Part(1, 2)), pytest.raises(StoreLocked, match="shard 1/2"):
        extract(replace(request, workers=1))


def test_what_is_no_address_or_two_clusters_is_refused_also_when_nothing_is_to_do(folder):
    for address in ("foo", "tcp://127.0.0.1", "127.0.0.1:x", "tcp://127.0.0.1:70000", "tcp://:8786", "tcp://a b:1"):
        with pytest.raises(EmbedctlError, match=re.escape(f"'{address}' is no address of a dask scheduler")):
            extract(replace(request_for(folder, "whole.zarr"), scheduler=address))
    with pytest.raises(EmbedctlError, match="--scheduler names one"):
        extract(replace(request_for(folder, "whole.zarr"), scheduler="tcp://127.0.0.1:9", workers=2))
    check_cluster("tls://[::1]:8786")
    check_cluster("login-1.cluster:8786")


def test_where_no_scheduler_answers_no_client_is_made_to_wait_for_one(folder, monkeypatch):
    monkeypatch.setattr("distributed.Client", None)
    monkeypatch.setattr("pipelines.cluster._SECONDS_TO_ANSWER", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        somebody = f"tcp://127.0.0.1:{mute.getsockname()[1]}"
        for address in ("tcp://127.0.0.1:9", "127.0.0.1:9", somebody, "foo://127.0.0.1:9"):
            with pytest.raises(EmbedctlError, match=re.escape(f"no dask scheduler at '{address}'")):
                extract(replace(request_for(folder, "none.zarr"), scheduler=address))


@pytest.mark.parametrize("two", [{"workers": 2, "scheduler": "tcp://a:1"}, {"workers": 2, "shard": Part(0, 2)}])
def test_two_ways_to_divide_the_work_are_refused(folder, two):
    with pytest.raises(EmbedctlError, match="leave one|divides|names one"):
        extract(replace(request_for(folder, "two.zarr"), **two))
