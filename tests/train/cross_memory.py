"""Print what reading subjects for a run across them is told to take in memory, and what it takes.

python -m tests.train.cross_memory FOLDER norm-then-mean|none|trials
"""

import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipelines.train import cross
from pipelines.train.brain_encoders import brain_encoder
from pipelines.train.recipes import read_recipe
from stores.epochs import EpochStore

folder, what = Path(sys.argv[1]), sys.argv[2]
rng, store = np.random.default_rng(0), EpochStore.open(folder / "epochs.zarr", create=True)
names = [f"E{c}" for c in range(63)]
info = {"ch_names": names, "times": [t / 250 for t in range(250)], "sfreq": 250.0, "units": "a.u."}
some = rng.standard_normal((50, 3, 63, 250)).astype(np.float16)
for subject in range(1, 6):
    with store.writer("d", subject, recipe={"name": "clean"}, modality="eeg", info=info, arrays={}) as writer:
        for split, n in (("train", 1500), ("test", 20)):
            ids = [f"{split}/c{i // 10}/{i}.jpg" for i in range(n)]
            concepts = [i.split("/")[1] for i in ids]
            out = writer.split(split, ids, concepts, 3, (63, 250), "float16", pa.table({"image": ids}))
            for block in out.missing():
                here = some[np.arange(len(out.images(block))) % 50]
                out.write_block(block, here, np.ones(here.shape[:2], bool), np.zeros(here.shape[:2], np.int16))
        writer.done()
recipe = read_recipe("paper", "eeg", "", "cross")
if what == "none":
    recipe = recipe.with_(trial_norm="none", channels=tuple(names[:17]))
if what == "trials":
    recipe = recipe.with_(train_on="trials")
cross.FLOAT16_ABOVE = 1e6
subjects = [store["d", s] for s in range(1, 6)]
kind = brain_encoder(recipe.brain_encoder)
told = cross.memory_of(subjects[:3], recipe)[0]


def anonymous():
    return 1024 * int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0])


before, most, done = anonymous(), 0, False


def watch():
    global most
    while not done:
        most = max(most, anonymous())
        time.sleep(0.001)


watching = threading.Thread(target=watch)
watching.start()
found = cross.load_cross(subjects[4], subjects[:3], subjects[3], recipe, kind)
done = True
watching.join()
print(told, most - before)
