"""The adaptive code of docs/format.md 3.13, written from that page in its own letters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import naive_encoder as naive


def clamp(x: int, a: int) -> int:
    return max(-a, min(a, x))


X = [2**32]
for _ in range(2047):
    X.append(X[-1] * 4278222805 >> 32)
P = {0: 32768}
for u in range(1, 2048):
    P[u] = 2**48 // (2**32 + X[u])
    P[-u] = 65536 - P[u]
L = []
for i in range(4096):
    d = L[-1] if L else -2047
    while d < 2047 and P[d + 1] <= 16 * i + 8:
        d += 1
    L.append(d)
F = [L[min(4095, x >> 20)] for x in X]


def log(v: int) -> int:
    b = v.bit_length() - 1
    return 16 * b + v * 16 // 2**b % 16


class Code:
    """Bits to a number of any length, whose bytes are the code."""

    def __init__(self) -> None:
        self.low, self.range, self.size = 0, 2**32 - 1, 4

    def bit(self, probability: int, y: int) -> None:
        bound = self.range * probability >> 16
        if not y:
            self.low += bound
        self.range = bound if y else self.range - bound
        while self.range < 2**24:
            self.range, self.low, self.size = self.range << 8, self.low << 8, self.size + 1

    def bytes(self) -> bytes:
        end = -(-self.low >> 24)
        assert self.low <= end << 24 < self.low + self.range
        return end.to_bytes(self.size - 3, "big")


class Nodes:
    def __init__(self) -> None:
        self.w = defaultdict(lambda: [2**17] * 8)
        self.t = defaultdict(int)
        self.slots: dict[tuple[int, int], tuple[int, int]] = {}
        self.contexts: list[int] = []
        self.code = Code()

    def model(self, node: int, d: int, y: int) -> None:
        slots = [self.slots.get((node, j), (P[d] * 64, 1)) for j in self.contexts]
        s = [L[v >> 10] for v, _ in slots] + [d]
        w = self.w[node]
        total = sum(
            x * max(-32768, min(32767, weight >> 7)) for x, weight in zip(s, w, strict=True)
        )
        p = P[clamp(total >> 13, 2047)]
        self.code.bit(p, y)
        E = (65536 * y - p) * max(24, 3200 // (self.t[node] + 16)) >> 9
        self.t[node] = min(self.t[node] + 1, 120)
        for j in range(8):
            w[j] = (w[j] + (s[j] * E + 256 >> 9) + 2**31) % 2**32 - 2**31
        for j, (v, k) in zip(self.contexts, slots, strict=True):
            v += (2**22 * y - v) * (131072 // (2 * k + 3)) >> 16
            self.slots[node, j] = v, min(k + 1, 1023)

    def level(self, q: int, parity: int, slope: int) -> None:
        def u(k: int) -> int:
            return min(2047, slope * 2**k >> 13)

        self.model(parity, F[u(0)], int(q != 0))
        if q == 0:
            return
        self.model(2, 0, int(q < 0))
        top = abs(q).bit_length() - 1
        for e in range(min(top + 1, 28)):
            self.model(4 + e if e else 3 + parity, F[u(e + 1)], int(e < top))
        for k in range(top, 0, -1):
            y = abs(q) >> (k - 1) & 1
            if k == top:
                self.model(31 + top, -u(k), y)
            else:
                self.code.bit(P[-u(k)], y)


def adaptive_code(
    levels: Sequence[int], c: int, o: int, states: Sequence[int], g: int = 88
) -> bytes:
    """`states`: of the trellis before each level, all 0 if they are not dependent."""
    q, n = list(levels), len(levels)
    G = (8 + g % 8) * 2 ** (g // 8 + 1)
    columns = defaultdict(lambda: [G, 0, 2])  # M, V, m
    A = B = R = G
    ratio, r, T = 65536, 8, [0] * 8
    nodes = Nodes()
    for i, S in enumerate(states):
        if (o + i) % c == 0 and i > 0:
            r = min(r, 8)
        M, V, m = columns[i % c]
        at = i % c
        low = columns[at - 1][0] if at else M
        high = columns[at + 1][0] if at + 1 < min(c, n) else M
        U = 2 * M + low + high >> 2
        scale, own = max(1, U * ratio >> 16), max(1, M * ratio >> 16)
        slope, inverse = 2**32 // scale, 2**32 // (scale + 1229)

        def back(k: int, i: int = i) -> int:
            return q[i - k] if k <= i else 0

        def norm(x: int, inverse: int = inverse) -> int:
            return clamp(x * inverse >> 12, 768)

        def rel(v: int, k: int, most: int) -> int:
            return max(0, min(most, (log(v) - log(G) + 64) // k))

        def near(x: int) -> int:
            return [0, 1, 2, 3, 4, 4, 5, 5, 5, 6, 6, 6, 6, 6, 7][
                min(14, abs(x) >> max(0, log(G) // 16 - 13))
            ]

        def sign(x: int) -> int:
            return 0 if x == 0 else 1 if x < 0 else 2

        a = [norm(back(k)) for k in (1, 2, 3, c)]
        a += [norm(back(c - 1)) if c > 1 else 0, norm(back(c + 1)), norm(back(2 * c))]
        a.append(clamp(V * inverse >> 24, 768))
        predicted = clamp(sum(t * x for t, x in zip(T, a, strict=True)) >> 16, 1024)
        step = sum(x <= abs(predicted) + 8 >> 4 for x in (1, 2, 3, 5, 8, 12, 18))
        step = -step if predicted < 0 else step
        one, two, above = back(1), back(2), back(c)
        nodes.contexts = [
            rel(scale, 2, 63),
            64 + 64 * (S >> 1) + rel(own, 2, 63),
            320 + rel(max(1, M), 2, 63),
            384 + 16 * (7 + step) + rel(scale, 8, 15),
            624 + 16 * rel(own, 8, 15) + rel(max(1, R), 8, 15),
            880 + 64 * near(one) + 8 * near(two) + near(above),
            1392 + 16 * (9 * sign(one) + 3 * sign(two) + sign(above)) + rel(scale, 8, 15),
        ]
        nodes.level(q[i], S % 2, slope)
        error = norm(q[i]) - predicted
        T = [t + (x * error + 512 >> 10) for t, x in zip(T, a, strict=True)]
        z = 2 * clamp(q[i], 2**18) - (q[i] > 0) * (S % 2) + (q[i] < 0) * (S % 2)
        x = abs(z) * 2048
        R += x - R >> 4
        A += (x - A) * (65536 // r) >> 16
        B += (U - B) * (65536 // r) >> 16
        r = min(r + 1, 256)
        ratio = min(2**24, (A + 256) * 65536 // (B + 256))
        M += (x - M) * (65536 // m) >> 16
        V += (2048 * z - V) * (65536 // m) >> 16
        columns[i % c] = [M, V, min(m + 1, 100)]
    code = bytes([g]) + nodes.code.bytes()
    return naive.varint(len(code)) + code
