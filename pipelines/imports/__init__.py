"""Embeddings that other programs computed, brought into an embedding store."""
