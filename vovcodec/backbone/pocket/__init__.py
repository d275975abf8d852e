"""`pocket`, the embedded model: a block-transform autoencoder, a small Wan transformer and a byte-level UMT5 encoder."""
