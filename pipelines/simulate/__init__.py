"""Simulated stimuli and recordings with a known answer, for the demo and for tests."""
