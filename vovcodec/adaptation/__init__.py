"""Adaptation: how one short vector becomes the low-rank factors of a backbone. Nothing loads here."""
