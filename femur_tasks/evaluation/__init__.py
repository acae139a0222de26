"""Per-case metrics, their intervals, and pictures of where two masks disagree."""
