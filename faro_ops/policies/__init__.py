"""Policies that wrap those of the library: earned authority, and bounds of autoscalers."""
