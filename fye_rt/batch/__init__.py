"""Many clips in one run: reads jobs from a file and gives them to workers, here or on a Ray cluster."""
