"""Interpretation: when, at which frequencies and where in a recording the evidence for the right image lies."""
