"""Archives: what a zip or a multipart form holds, and how its pictures are worked through."""
