"""What runs and embeddings look like from near: what was retrieved, which concepts, learning curves, health."""
