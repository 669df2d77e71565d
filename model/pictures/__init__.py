"""Pictures and masks as files: the one home for reading them, for the service, for training and for evaluation."""
