"""``python -m embedctl`` is the same program as ``embedctl``."""

import os
import sys

# Python looks for modules in the current folder first, which is a workspace and may come from anybody.
if sys.path[0] == os.getcwd() and not os.path.samefile(os.path.dirname(os.path.dirname(__file__)), sys.path[0]):
    del sys.path[0]

from embedctl.cli import main  # noqa: E402

if __name__ == "__main__":
    main()
