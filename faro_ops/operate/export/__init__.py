"""What others see of a run: metrics and explanations."""
