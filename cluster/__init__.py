"""Where it all runs: Ray, the loop, recovery, the run directory, the command line."""
