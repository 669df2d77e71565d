"""What training learns from: sources of pictures and masks, their near-copies, samplers and batches."""
