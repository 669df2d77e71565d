"""What each command takes, and its help, without a library that takes long to import."""
