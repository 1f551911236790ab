"""What the search costs and finds, side by side with what it competes with."""
