"""Screening: ridge regression from recordings to every embedding, scored on training concepts that were held out."""
