"""One module per verb of the console command; each holds a click `command`."""
