"""Where a clip lies in its picture: all of the picture, or a region around the face; and the face's landmarks there."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fye_rt import media
from fye_rt.clips.cache import ClipCache
from fye_rt.clips.driving import is_drawn, searches
from fye_rt.clips.resume import digest
from fye_rt.errors import FaceNotFoundError, InputError, OptionError
from fye_rt.landmarks import Drawn, LandmarkImages, Motion, detect_image, find_landmarker, load_points, load_template
from fye_rt.landmarks.geometry import face_angle, face_box, load_geometry, recover
from fye_rt.media.crop import Region
from fye_rt.media.paste import MAX_SIDE, Paste, feathered, shape_of
from fye_rt.options import ClipRequest, Crop

SMALL_FACE = 0.2  # of the clip's shorter side; in a clip of 192 that is a face of 38 pixels, 5 latents wide
BY_HAND = "give its portrait_landmarks, for instance points set by hand in a JSON or CSV file"
UPRIGHT = 10.0  # degrees; a face that is turned by less counts as upright

Image = NDArray[np.uint8]
Size = tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A clip's place in its picture.

    Attributes:
        picture: uint8 (h, w, 3).
        region: the part of it that is animated.
        portrait: uint8 (H, W, 3), that part as the clip shows it.
        landmarks: returns the portrait's landmarks; may have to detect them, and then raises FaceNotFoundError.
        notices: messages for the user.
    """

    picture: Image
    region: Region
    portrait: Image
    landmarks: Callable[[], Motion]
    notices: tuple[str, ...] = ()


def check_place(request: ClipRequest, picture: Image) -> None:
    """Refuse a crop that no landmarks can make possible, before they are looked for.

    Raises:
        InputError: the crop is outside of the picture, or has no size.
        OptionError: finished landmark images, which fit the whole picture, with a setting of a crop to the face.
    """
    if request.crop.box is not None:
        _inside(request.crop.box, picture)
    asked = ["Crop.area='face'"] if request.crop.area == "face" else request.crop.changed("scale", "rotate", "face")
    if asked and is_drawn(request.motion):
        raise OptionError(f"{asked[0]} concerns landmarks, and landmark images are finished; leave it out")


def place(
    request: ClipRequest, picture: Image, size: Size, face_share: float, cache: ClipCache, move: bool = True
) -> Place:
    """Choose the part of a picture that is animated.

    Args:
        request: the requested clip.
        picture: its portrait, uint8 (h, w, 3).
        size: height and width of the clip.
        face_share: longer side of the face's box divided by the clip's shorter side, below which "auto" crops.
        cache: keeps the landmarks of pictures.
        move: whether a motion is moved onto the portrait; finished landmark images fit the whole picture.

    Raises:
        InputError: the crop is outside of the picture, or has no size.
        FaceNotFoundError: an automatic crop finds no face.
    """
    crop, faces = request.crop, _Faces(request, picture, size, cache)
    if crop.box is not None:
        _inside(crop.box, picture)
        region = Region.of_shape(crop.box, size)
        portrait = region.cut(picture, size)
        return Place(picture, region, portrait, partial(faces.within, region, portrait))
    portrait = media.fit_image(picture, *size)
    region = Region.fitted((picture.shape[0], picture.shape[1]), size)
    whole = Place(picture, region, portrait, partial(faces.of_whole, region, portrait))
    if crop.area == "none" or request.options.windows == "reference" or not move:
        return whole
    landmarks = whole.landmarks()
    whole = replace(whole, landmarks=lambda: landmarks)
    longer = max(face_box(landmarks.points[0], size)[2:])
    tilted = abs(face_angle(landmarks.points[0], size)) > UPRIGHT
    small = longer < face_share * min(size) or (crop.rotate and tilted)
    if crop.area == "auto" and (not small or (request.portrait_landmarks is not None and not has_landmarker(request))):
        return whole
    landmarks = faces.in_picture()
    region = around(landmarks, crop.scale, size, crop.rotate)
    cropped = faces.seen_in(landmarks, region)
    pixels = round(max(face_box(landmarks.points[0], landmarks.source_size)[2:]))
    text = f"the portrait: cropped to its face, which is {pixels} pixels large in a picture of {_sides(picture)}: "
    text += f"{region.width:.0f}x{region.height:.0f} at {region.left:.0f},{region.top:.0f}"
    turned = f", turned by {region.angle:.0f} degrees" if region.angle else ""
    return Place(picture, region, region.cut(picture, size), lambda: cropped, (text + turned,))


def around(landmarks: Motion, scale: float, size: Size, upright: bool = False) -> Region:
    """Return the region around a face.

    Args:
        landmarks: those of a picture, one frame.
        scale: shorter side of the region divided by the longer side of the face's box.
        size: height and width of the clip, whose shape the region has.
        upright: whether the region is turned with the face.
    """
    height, width = landmarks.source_size
    points = landmarks.points[0, :, :2] * (width, height)
    angle = face_angle(landmarks.points[0], landmarks.source_size) if upright else 0.0
    if abs(angle) <= UPRIGHT:
        return Region.around(face_box(landmarks.points[0], landmarks.source_size), size, scale)
    turn = math.radians(angle)
    axes = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    straight = points @ axes.T
    low, high = straight.min(axis=0), straight.max(axis=0)
    x, y = axes.T @ ((low + high) / 2)
    across, down = high - low
    return Region.around((x - across / 2, y - down / 2, across, down), size, scale, angle)


def small_face(portrait: Motion, size: Size, request: ClipRequest) -> tuple[str, ...]:
    """Warn of a face with too few pixels in a clip of `size` (height, width); () if it is large enough."""
    width = float(np.ptp(portrait.points[0, :, 0])) * size[1]
    if width >= SMALL_FACE * min(size):
        return ()
    remedy = "crop the picture to head and shoulders"
    if request.crop.area == "face" or request.crop.changed("scale"):
        remedy = "use a smaller Crop.scale"
    elif request.crop.box is None and request.options.windows != "reference":
        remedy = f"use Crop.area='face', or {remedy}"
    return (
        f"the portrait: its face is {width:.0f} pixels wide in a clip of {size[1]}x{size[0]}, too small to show "
        f"expressions; {remedy}",
    )


class _Faces:
    """The face of a request's picture, in the picture and in parts of it."""

    def __init__(self, request: ClipRequest, picture: Image, size: Size, cache: ClipCache) -> None:
        self._request, self._picture, self._size, self._cache = request, picture, size, cache
        self._shape = picture.shape[0], picture.shape[1]
        self._whole = Region(0, 0, self._shape[1], self._shape[0])

    def of_whole(self, region: Region, portrait: Image) -> Motion:
        """Return the landmarks in the fitted picture.

        To choose one of several faces, they are looked for in the picture itself: a clip may be too small to show all.
        """
        request = self._request
        if request.crop.face == "largest" or request.portrait_landmarks is not None or not searches(request):
            return self.within(region, portrait)
        return self.seen_in(self.in_picture(), region)

    def within(self, region: Region, portrait: Image) -> Motion:
        """Return the landmarks in a region: the given ones, those detected there, or those found in the picture."""
        given = self._given(region)
        if given is not None:
            motion, seen = given
            return motion if seen == region else self.seen_in(motion, region, seen)
        try:
            return self._detected(portrait, search=False)
        except FaceNotFoundError as error:
            if not searches(self._request):
                raise
            found = self.seen_in(self.in_picture(), region)
            centre = (found.points[0, :, :2].min(axis=0) + found.points[0, :, :2].max(axis=0)) / 2
            if not ((centre >= 0) & (centre <= 1)).all():
                raise FaceNotFoundError(f"{error}; the picture's face is outside of this part") from error
            return found

    def in_picture(self) -> Motion:
        """Return the landmarks in the picture, the given ones or those that a search finds."""
        given = self._given(Region.fitted(self._shape, self._size))
        if given is not None:
            motion, seen = given
            return motion if seen == self._whole else self.seen_in(motion, self._whole, seen)
        return self._detected(self._picture, search=True)

    def seen_in(self, landmarks: Motion, region: Region, seen: Region | None = None) -> Motion:
        """Move landmarks of the picture, or of its region `seen`, to another region."""
        seen = seen or self._whole
        pixels = seen.to_picture(landmarks.points[..., :2], (1, 1))
        depth = landmarks.points[..., 2:] * seen.width
        points = np.concatenate([region.from_picture(pixels, (1, 1)), depth / region.width], axis=-1)
        size = self._shape if region == self._whole else self._size
        mesh, pose = recover(points, size, load_geometry(find_landmarker(self._request.landmarker)))
        return replace(landmarks, points=points, mesh=mesh, pose=pose, source_size=size)

    def _given(self, shown: Region) -> tuple[Motion, Region] | None:
        """Return the request's landmarks and the region that they were seen in, or None if they are to be detected.

        That is the picture if they have its size, else what the clip shows of it.
        """
        source = self._request.portrait_landmarks
        if source is None:
            return None
        if isinstance(source, Motion):
            motion = source
        else:
            match media.kind_of(source):
                case "points":  # in pixels of the picture as it is
                    motion = load_points(source, self._shape, self._request.landmarker)
                case "template":
                    motion = load_template(source)
                case _:
                    motion = Motion.load(source)
        of_picture = tuple(motion.source_size) == self._shape and not shown.covers(self._shape)
        return motion, self._whole if of_picture else shown

    def _detected(self, image: Image, search: bool) -> Motion:
        """Detect landmarks, once for each image."""
        landmarker, face = self._request.landmarker, self._request.crop.face

        def detect() -> Motion:
            try:
                return detect_image(image, find_landmarker(landmarker), "the portrait", face=face, search=search)
            except FaceNotFoundError as error:
                raise FaceNotFoundError(f"{error}, or {BY_HAND}") from error

        return self._cache.portrait((digest([image]), search, face, landmarker), detect)


def pasting(placed: Place, crop: Crop, landmarks: LandmarkImages) -> tuple[Paste, tuple[str, ...]]:
    """Prepare the pasting of frames into a clip's picture, and say if the picture has to become smaller for it.

    Raises:
        OptionError: a mask around the face of finished landmark images, which have no points.
    """
    picture, region, notices = placed.picture, placed.region, tuple[str, ...]()
    if max(picture.shape[:2]) > MAX_SIDE:
        scale = MAX_SIDE / max(picture.shape[:2])
        size = round(picture.shape[0] * scale), round(picture.shape[1] * scale)
        picture = Region(0, 0, picture.shape[1], picture.shape[0]).cut(picture, size)
        region = region.scaled(scale)
        text = f"the result is scaled down to {_sides(picture)} from the picture's {_sides(placed.picture)}, as videos "
        notices = (f"{text}have at most {MAX_SIDE} pixels a side",)
    points = landmarks.points.reshape(-1, 2) if isinstance(landmarks, Drawn) else None
    if crop.mask == "face" and points is None:
        raise OptionError("Crop.mask='face' needs landmarks, and landmark images have none; use 'box' or 'oval'")
    shape = shape_of(crop.mask, (placed.portrait.shape[0], placed.portrait.shape[1]), points)
    if not shape.any():
        raise InputError("Crop.mask='face' finds no face within the clip; use 'box' or 'oval'")
    mask = feathered(shape, crop.feather)
    return Paste(picture, region, placed.portrait, mask, crop.color), notices


def has_landmarker(request: ClipRequest) -> bool:
    """Return whether MediaPipe's model file, which has the canonical face, is at hand."""
    try:
        return find_landmarker(request.landmarker).is_file()
    except InputError:
        return False


def _inside(box: tuple[int, int, int, int], picture: Image) -> None:
    """Refuse a named crop that is not in the picture."""
    left, top, width, height = box
    name = f"Crop.area='{','.join(map(str, box))}'"
    if not width or not height:
        raise InputError(f"{name} has no size; give left, top, width and height in pixels")
    if left + width > picture.shape[1] or top + height > picture.shape[0]:
        raise InputError(f"{name} reaches outside of the picture, which is {_sides(picture)} pixels")


def _sides(image: Image) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
