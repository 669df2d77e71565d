"""The ML back end of Label Studio: a small server that asks a running service for the masks of a project's tasks."""
