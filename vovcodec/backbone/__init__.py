"""Backbones: frozen diffusion models behind one protocol (`protocol.Backbone`)."""
