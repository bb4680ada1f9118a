"""Many clips in one run: jobs from a file, made by one worker or many, here or on a Ray cluster."""
