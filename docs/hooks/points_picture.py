"""Draw the names of the points of a face for the guide, and the template to start from.

python docs/hooks/points_picture.py face_landmarker.task
"""

import json
import sys
from pathlib import Path

import numpy as np

from fye_rt.landmarks.draw import EDGES
from fye_rt.landmarks.geometry import load_geometry
from fye_rt.landmarks.points_file import REQUIRED, VERTICES

DOCS = Path(__file__).resolve().parents[1]
SCALE, WIDTH, TOP, HEIGHT = 66, 1300, 8.9, 1230  # pixels per centimetre, pixels, centimetres, pixels
TEMPLATE_SIDE, TEMPLATE_SCALE = 512, 18  # pixels of the template's picture, and per centimetre
BELOW = ("right_eye_lower", "left_eye_lower", "right_brow_inner", "left_brow_inner", "lower_lip", "chin")
ABOVE = ("right_eye_upper", "left_eye_upper", "right_brow_middle", "left_brow_middle", "forehead", "upper_lip")
INWARD = ("right_eye_inner", "left_eye_inner")


def main() -> None:
    """Write docs/pictures/points.svg and docs/guide/points.json."""
    geometry = load_geometry(Path(sys.argv[1]))
    flat = geometry.mesh[:, :2] * (1.0, -1.0)
    pixels = flat * SCALE + (WIDTH / 2, TOP * SCALE)
    (DOCS / "pictures" / "points.svg").write_text("\n".join(_svg(pixels, geometry.triangles)) + "\n")
    placed = np.round(flat * TEMPLATE_SCALE + TEMPLATE_SIDE / 2).astype(int).tolist()
    points = ",\n".join(f'  "{name}": {json.dumps(placed[vertex])}' for name, vertex in VERTICES.items())
    size = json.dumps([TEMPLATE_SIDE, TEMPLATE_SIDE])
    (DOCS / "guide" / "points.json").write_text(f'{{"size": {size}, "points": {{\n{points}\n}}}}\n')


def _svg(pixels: np.ndarray, triangles: np.ndarray) -> list[str]:
    style = "text{font:15px sans-serif;paint-order:stroke;stroke:#fff;stroke-width:4px}"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"><style>{style}</style>',
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    edges = {tuple(sorted((a, b))) for t in triangles.tolist() for a, b in zip(t, (*t[1:], t[0]), strict=True)}
    features = {tuple(sorted((a, b))) for a, b, colour in EDGES if any(colour)}
    for chosen, colour, width in ((edges - features, "#d4dde4", 1), (features, "#5a7d95", 2)):
        path = "".join("M{:.0f} {:.0f}L{:.0f} {:.0f}".format(*pixels[a], *pixels[b]) for a, b in sorted(chosen))
        lines.append(f'<path d="{path}" stroke="{colour}" stroke-width="{width}" fill="none"/>')
    for name, vertex in VERTICES.items():
        x, y = pixels[vertex]
        colour = "#c22" if name in REQUIRED else "#333"
        if name in BELOW or name in ABOVE:
            anchor, dx, dy = "middle", 0, 20 if name in BELOW else -9
        else:
            outward = -1 if x < WIDTH / 2 else 1
            side = -outward if name in INWARD else outward
            anchor, dx, dy = "end" if side < 0 else "start", 9 * side, 5
        lines.append(f'<circle cx="{x:.0f}" cy="{y:.0f}" r="5" fill="{colour}"/>')
        label = f'text-anchor="{anchor}" fill="{colour}">{name}</text>'
        lines.append(f'<text x="{x + dx:.0f}" y="{y + dy:.0f}" {label}')
    return [*lines, "</svg>"]


if __name__ == "__main__":
    main()
