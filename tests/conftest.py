"""What holds for every test: no network, reproducible property tests."""

from __future__ import annotations

import os

import hypothesis

# Before any library reads them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"

# Shared machines make single examples slow now and then; a deadline would only make the suite flaky.
hypothesis.settings.register_profile("suite", deadline=None, derandomize=True)
hypothesis.settings.load_profile("suite")
