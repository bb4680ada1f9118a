"""How a drawn portrait comes onto the canvas: geometry, shading and the parts of a head."""
