"""How the weights are made: data, augmentation, loss, schedules and the training loop. Serving never imports it."""
