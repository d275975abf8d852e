"""`pocket`, the embedded model: block-transform autoencoder, small Wan transformer, byte-level UMT5 encoder."""
