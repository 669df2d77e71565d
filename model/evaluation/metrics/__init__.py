"""What a mask or a map is judged by: overlap with the truth, distance of outlines, metrics of saliency."""
