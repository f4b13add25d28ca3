"""What a job costs, where, and whether it fits: memory, time, prices, comparison, budget."""
