"""The clients of the endurance test: what they send, and what they know of how it ended."""
