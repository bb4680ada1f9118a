"""What clips are measured with: pictures, motion, faces, seams."""
