"""Out of the stores: brain embeddings, scores, epochs and embeddings as plain files for other programs."""
