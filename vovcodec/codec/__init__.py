"""The codec itself: one straight-line function per verb, built from the parts."""
