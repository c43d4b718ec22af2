"""Images to embeddings: each image is read, hashed and decoded once, for every encoder of the pass."""
