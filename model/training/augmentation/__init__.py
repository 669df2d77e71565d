"""How a picture and its mask are varied: geometry, colour, what an endoscope adds, and polyps taken out or put in."""
