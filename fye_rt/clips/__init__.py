"""Whole clips: from a portrait and any kind of motion to a video file."""
