"""A second, plain implementation of All-Pairs, one image at a time: the reference for the fast generator.

Its lines are walked pixel by pixel, its ink is grown by SciPy's dilation, its chance is NumPy's: nothing is shared with
the code under test but the names of the classes.
"""

import math

import numpy as np
from scipy.ndimage import grey_dilation


def line(image, start, end):
    (y0, x0), (y1, x1) = start, end
    length = math.hypot(y1 - y0, x1 - x0)
    for y in range(min(y0, y1), max(y0, y1) + 1):
        for x in range(min(x0, x1), max(x0, x1) + 1):
            away = abs((y - y0) * (x1 - x0) - (x - x0) * (y1 - y0)) / length if length else 0.0
            if away < 1:
                image[y, x] += 1 - away


def ring(image, centre, radius):
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            low, high = sorted((abs(y - centre[0]), abs(x - centre[1])))
            if low <= radius:
                image[y, x] += max(0.0, 1 - abs(high - math.sqrt(radius**2 - low**2)))


def dot(image, centre):
    image[centre[0] - 1 : centre[0] + 2, centre[1] - 1 : centre[1] + 2] += 1


class Plain:
    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def r(self, low, high):
        return int(self.rng.integers(low, high + 1))

    def inset(self, size, border):
        return self.r(border, size - 1 - border)

    def inner(self, image):
        size = len(image)
        y, x = self.inset(size, 5), self.inset(size, 5)
        radius = min(y, x, size - 1 - y, size - 1 - x)
        while radius > 4 and self.r(0, 1):
            radius -= 1
        ring(image, (y, x), radius)
        return y, x, radius

    def rays(self, image, start):
        size = len(image)
        ends = [(0, self.inset(size, 3)), (size - 1, self.inset(size, 3))]
        ends += [(self.inset(size, 3), 0), (self.inset(size, 3), size - 1)]
        for place in self.rng.permutation(4)[:3]:
            line(image, start, ends[place])

    def corners(self, size):
        radius, turn = self.r(size // 4, size // 3), self.rng.uniform(0, 2 * math.pi)
        half = self.rng.uniform(math.pi / 8, math.pi / 4)
        angles = (turn + half, turn - half, turn + half + math.pi, turn - half + math.pi)
        return [self.at(size, radius, angle) for angle in angles]

    def at(self, size, radius, angle):
        return round(size / 2 + radius * math.sin(angle)), round(size / 2 + radius * math.cos(angle))

    def draw(self, name):
        size = self.r(15, 18)
        image = np.zeros((size, size))
        last = size - 1
        edges = {
            "box": "01 12 23 30", "box_diag": "01 12 23 30 02", "zshape": "01 13 32",
            "triangle_lid": "01 12 23 31", "hourglass": "01 13 32 20",
        }  # fmt: skip
        dots = {"barbell": "se", "dot_line": "s", "dot_on_line": "m"}
        if name == "circle":
            ring(image, (self.inset(size, 4), self.inset(size, 4)), self.r(4, size // 2 - 1))
        elif name in ("line", "cross"):
            border = 1 if name == "line" else 3
            both = [((0, self.inset(size, border)), (last, self.inset(size, border)))]
            both.append(((self.inset(size, border), 0), (self.inset(size, border), last)))
            for start, end in both if name == "cross" else [both[self.r(0, 1)]]:
                line(image, start, end)
        elif name == "angle":
            middle = self.inset(size, 4), self.inset(size, 4)
            line(image, middle, (last * self.r(0, 1), self.inset(size, 4)))
            line(image, middle, (self.inset(size, 4), last * self.r(0, 1)))
        elif name == "three_star":
            self.rays(image, (self.inset(size, 4), self.inset(size, 4)))
        elif name in ("phi", "theta"):
            y, x, radius = self.inner(image)
            half = radius // 2
            middle = y + self.r(-1, 1), x + self.r(-1, 1)
            line(image, middle, (max(0, y - radius - self.r(0, 3)), x + self.r(-half, half)))
            line(image, middle, (min(last, y + radius + self.r(0, 3)), x + self.r(-half, half)))
            image = image.T if name == "theta" else image
        elif name == "double_circle":
            y, x, radius = self.inner(image)
            turn = self.rng.uniform(0, 2 * math.pi)
            ring(image, (round(y + radius * math.sin(turn)), round(x + radius * math.cos(turn))), self.r(3, radius))
        elif name == "circle_3star":
            y, x, _ = self.inner(image)
            self.rays(image, (y + self.r(-2, 3), x + self.r(-2, 3)))
        elif name in edges:
            corners = self.corners(size)
            for start, end in edges[name].split():
                line(image, corners[int(start)], corners[int(end)])
        elif name in dots:
            radius, turn = self.r(size // 4, size // 3), self.rng.uniform(0, 2 * math.pi)
            start, end = self.at(size, radius, turn), self.at(size, radius, turn + math.pi)
            points = {"s": start, "e": end, "m": tuple(round((a + b) / 2) for a, b in zip(start, end, strict=True))}
            line(image, start, end)
            for place in dots[name]:
                dot(image, points[place])
        else:
            radius, turn = self.r(size // 4, size // 3), self.rng.uniform(0, 2 * math.pi)
            ahead, behind = self.rng.uniform(math.pi / 4, 3 * math.pi / 4, 2)
            a, b, c = (self.at(size, radius, angle) for angle in (turn, turn + ahead, turn - behind))
            for start, end in ((a, b), (b, c), (c, a)):
                line(image, start, end)
        return image

    def image(self, names, side):
        """Return an image of these symbols and how often it was begun anew."""
        redrawn = -1
        while True:
            redrawn += 1
            image, refused = np.zeros((side, side)), 0
            for name in names:
                patch = self.draw(name)
                grown = grey_dilation(np.pad(patch, 2), size=5, mode="constant", cval=0.0)
                span = len(grown)
                while refused < 40:
                    y, x = self.r(0, side - span), self.r(0, side - span)
                    if not (grown * image[y : y + span, x : x + span]).any():
                        image[y + 2 : y + span - 2, x + 2 : x + span - 2] += patch
                        break
                    refused += 1
            if refused < 40:
                return image.clip(0, 1), redrawn

    def contents(self, pairs, types):
        """Return the label and the symbols' classes."""
        label = self.r(0, 1)
        drawn = [self.r(0, types - 1) for _ in range(pairs)]
        symbols = [*drawn, *drawn]
        if not label:
            symbols[0] = (symbols[0] + self.r(1, types - 1)) % types
        self.rng.shuffle(symbols)
        return label, symbols
