"""PraNet's masks as pre-annotations: the polyps of an answer one by one, and a function for CVAT."""
