"""Metrics of clips: pictures, motion, faces, seams."""
