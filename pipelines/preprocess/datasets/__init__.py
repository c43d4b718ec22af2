"""One file per dataset; see `pipelines.preprocess.dataset` for what a file must provide."""
