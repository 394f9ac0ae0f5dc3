"""What limits a live policy: orders, trouble, nodes, bounds of autoscalers, the brake, trust."""
