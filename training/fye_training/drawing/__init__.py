"""Drawing of portraits: geometry, shading and the parts of a head."""
