"""What can be trained: each task composes a network, a loss and metrics into pure functions."""
