"""Write the variables of a small SavedModel with TensorFlow. Runs in the environment of the Harmonization references.

::

    tf/bin/python tests/references/alignet/make_bundle.py    # writes variables.index and variables.data-00000-of-00001
"""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf

SHAPES = [(3,), (2, 3), (1, 1, 4), (), (2, 2, 3, 1), (3,), (4,), (2,), (3, 2), (1,), (2,), (64, 5)]


def main() -> None:
    draw = np.random.RandomState(0)
    model = tf.__internal__.tracking.AutoTrackable()
    model.variables = [tf.Variable(draw.standard_normal(shape).astype("float32")) for shape in SHAPES]
    model.steps = tf.Variable(7, dtype=tf.int64)  # not one of the weights
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(model, folder)
        for file in Path(folder, "variables").iterdir():
            shutil.copy(file, Path(__file__).parent / file.name)


if __name__ == "__main__":
    main()
