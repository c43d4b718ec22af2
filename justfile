# The recipes of a working day. `just` runs tests and linters.
default: test lint

# everything that is not slow
test:
    python -m pytest

# the longer proofs
slow:
    python -m pytest -m slow

lint:
    ruff check .
    ruff format --check .
    mypy

# write the pages that the program writes
docs:
    PYTHONPATH=. python docs/make_cli.py

# an install without extras still lists and shows
bare:
    python -m venv --clear build/bare
    build/bare/bin/pip install -q -c constraints.txt .
    cd build && bare/bin/embedctl --help && bare/bin/embedctl models list

# run the notebooks in the workspace of a demo, and take the pictures of the README there
pictures WORKSPACE:
    PYTHONPATH="$PWD" python docs/make_pictures.py {{WORKSPACE}}
