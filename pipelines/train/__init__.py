"""Train brain encoders on frozen image embeddings, score them, and compare the image encoders."""
