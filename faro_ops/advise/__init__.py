"""What is decided without a cluster: sources of load, recommendations, audits, calibration."""
