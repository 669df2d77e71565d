"""Who may call the service: bearer tokens, their rate limits, and TLS."""
