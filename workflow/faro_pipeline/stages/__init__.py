"""What each stage declares: its settings, and what is checked of them. One module per rule file."""
