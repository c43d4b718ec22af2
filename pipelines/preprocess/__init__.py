"""Stage two: recordings become whitened, image-ordered epochs."""
