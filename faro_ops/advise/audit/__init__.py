"""What autoscalers and dry runs did, and what other policies would have done instead."""
