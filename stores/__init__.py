"""What is kept: the embedding store, the epoch store, results, and the integrity of all three."""
