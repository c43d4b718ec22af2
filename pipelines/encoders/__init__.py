"""Frozen image networks: a registry of data, one builder file per family, every tap out of one forward pass."""
