"""What the figures of several stages share: bars, axes, captions."""
