"""What can be removed and how: the channel graph, its costs, and exact physical removal."""
