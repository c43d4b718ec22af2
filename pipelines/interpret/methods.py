"""The ways to explain a run, by name."""

__all__ = ["METHODS"]

METHODS = ("integrated-gradients", "gradient-x-input", "paper-gradcam")
