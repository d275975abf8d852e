"""Measurements on a folder of real clips and pictures: `python -m vovcodec.bench.rate_distortion`."""
