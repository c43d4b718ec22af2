"""One file per command: read what was asked, call a pipeline, show what it said."""
