"""Archives: the pictures in a zip or multipart form, and how they are segmented."""
