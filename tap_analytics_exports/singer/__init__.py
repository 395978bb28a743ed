"""The tap: what Singer sees of the core."""
