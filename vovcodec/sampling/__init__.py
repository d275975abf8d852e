"""Sampling: exact random streams, schedules, samplers and steering. Import the module you need; nothing loads here."""
