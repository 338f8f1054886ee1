"""Ways in: deliveries, polls and the schedule that decides when to look."""
