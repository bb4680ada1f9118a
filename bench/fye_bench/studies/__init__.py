"""One-off studies, each with a script that repeats it."""
