"""What people run beside storing: maintenance, forgetting, dead letters, the overview. Stands on sink and merge."""
