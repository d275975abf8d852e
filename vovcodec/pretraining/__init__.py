"""Pre-training of the embedded model: corpus → block transform → flow-matching transformer → model folder."""
