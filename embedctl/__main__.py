"""``python -m embedctl`` is the same program as ``embedctl``."""

from embedctl.cli import main

if __name__ == "__main__":
    main()
