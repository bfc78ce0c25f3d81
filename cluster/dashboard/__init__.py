"""The dashboard: a separate process that reads the files of runs and nothing else."""
