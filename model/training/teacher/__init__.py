"""A network with features of ImageNet that teaches PraNet, and how it does (knowledge distillation)."""
