"""What runs services: the loop, its limits and memory, clusters, and what it exports."""
