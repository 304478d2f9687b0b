"""Changed configuration: one Unit at a time, replicas before masters, masters after a hand-over."""
