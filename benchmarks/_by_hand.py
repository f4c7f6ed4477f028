"""Layers by hand in NumPy, the yardstick of derived.py: the fastest that was found of several ways to write each.

All have one form: ``forward(each, *arrays) -> (Y, saved)`` and ``backward(each, dY, saved) -> gradients``, which may be
called once, as autograd's: it may overwrite what forward saved. ``each(body, count, size)`` calls ``body`` with slices
of ``size`` rows until ``count`` are done, one after the other or in several threads.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import ThreadpoolController

Each = Callable[[Callable[[slice], Any], int, int], list[Any]]


class Pair(NamedTuple):
    forward: Callable[..., tuple[Any, Any]]
    backward: Callable[..., tuple[Any, ...]]
    pieces: bool = True  # whether they use ``each``


def _slices(count: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def in_turn(body: Callable[[slice], Any], count: int, size: int) -> list[Any]:
    return [body(piece) for piece in _slices(count, size)]


def in_threads(threads: int) -> Each:
    """A pool of Python threads; meanwhile BLAS has one each, for it has them wait for each other."""
    pool, blas = ThreadPoolExecutor(threads), ThreadpoolController().select(user_api="blas")

    def each(body: Callable[[slice], Any], count: int, size: int) -> list[Any]:
        with blas.limit(limits=1):
            return list(pool.map(body, _slices(count, size)))

    return each


# Linear. NumPy's product and SciPy's in every layout, transposed or not, the bias added by BLAS (beta = 1 on rows that
# hold it), dY's sum as a product with ones or by einsum, `X @ W + b`: all take the same time within 5 %.


def linear_forward(each: Each, X: Any, W: Any, b: Any) -> tuple[Any, Any]:
    Y = X @ W
    Y += b
    return Y, (X, W)


def linear_backward(each: Each, dY: Any, saved: Any) -> tuple[Any, ...]:
    X, W = saved
    return dY @ W.T, X.T @ dY, dY.sum(axis=0)


# Softmax cross-entropy. Four rows of 32,000 stay in the cache between the passes; 1 to 16 rows differ by less than the
# noise, all rows at once take a fifth more. Sums as products with ones are faster than np.sum. Backward scales the
# exponentials in place; into a fresh array it takes a quarter more, and to save the logarithm of the sum alone and to
# compute the exponentials again a half more.


def cross_entropy_forward(each: Each, Z: Any, y: Any) -> tuple[Any, Any]:
    N, M = Z.shape
    E, top, total, ones = np.empty_like(Z), np.empty_like(Z[:, 0]), np.empty_like(Z[:, 0]), np.ones(M, Z.dtype)

    def rows(n: slice) -> None:
        z, e = Z[n], E[n]
        np.max(z, axis=1, out=top[n])
        np.subtract(z, top[n, None], out=e)
        np.exp(e, out=e)
        np.matmul(e, ones, out=total[n])

    each(rows, N, 4)
    return (np.log(total) + top - Z[np.arange(N), y]).mean(), (E, total, y)


def cross_entropy_backward(each: Each, dL: Any, saved: Any) -> tuple[Any, ...]:
    E, total, y = saved
    N = len(E)
    scale = np.asarray(dL / N, E.dtype)
    factors = scale / total[:, None]

    def rows(n: slice) -> None:
        E[n] *= factors[n]

    each(rows, N, 32)
    E[np.arange(N), y] -= scale
    return (E,)


# Attention. One head at a time, so that its 512 × 512 scores stay in the cache. The exponentials are never divided by
# their sums: O and dO are, which are an eighth of their size; and sum[j](P dP) is sum[e](dO O). Slower: all heads at
# once; np.sum for the product with ones; the difference of dP and that sum within the product, as a 65th column; the
# exponentials computed again in backward.


def attention_forward(each: Each, Q: Any, K: Any, V: Any) -> tuple[Any, Any]:
    H, N, width = Q.shape
    scale = np.asarray(width**-0.5, Q.dtype)
    scaled = Q * scale
    E, O, total = np.empty((H, N, len(K[0])), Q.dtype), np.empty_like(Q), np.empty_like(Q[..., :1])
    ones = np.ones_like(K[0, :, :1])

    def heads(h: slice) -> None:
        e, o, t = E[h.start], O[h.start], total[h.start]
        np.matmul(scaled[h.start], K[h.start].T, out=e)
        e -= e.max(axis=1, keepdims=True)
        np.exp(e, out=e)
        np.matmul(e, ones, out=t)
        np.matmul(e, V[h.start], out=o)
        o /= t

    each(heads, H, 1)
    return O, (scaled, K, V, E, total, O, scale)


def attention_backward(each: Each, dO: Any, saved: Any) -> tuple[Any, ...]:
    scaled, K, V, E, total, O, scale = saved
    G = dO / total
    both = np.vecdot(G, O)[..., None]
    dQ, dK, dV = np.empty_like(scaled), np.empty_like(K), np.empty_like(V)

    def heads(h: slice) -> None:
        i = h.start
        np.matmul(E[i].T, G[i], out=dV[i])
        dS = G[i] @ V[i].T
        dS -= both[i]
        dS *= E[i]
        np.matmul(dS, K[i], out=dQ[i])
        np.matmul(dS.T, scaled[i], out=dK[i])

    each(heads, len(E), 1)
    dQ *= scale
    return dQ, dK, dV


# Low-rank adapter. The product of rank 8 by SciPy's BLAS into the sum (beta = 1) takes two to three times as long in
# all; W + AB formed once instead, a third more, also when dA and dB are taken from dW.


def adapter_forward(each: Each, X: Any, W: Any, A: Any, B: Any) -> tuple[Any, Any]:
    U = X @ A
    Y = X @ W
    Y += U @ B
    return Y, (X, W, A, B, U)


def adapter_backward(each: Each, dY: Any, saved: Any) -> tuple[Any, ...]:
    X, W, A, B, U = saved
    G = dY @ B.T
    dX = dY @ W.T
    dX += G @ A.T
    return dX, X.T @ dY, X.T @ G, U.T @ dY


# Convolution, odd filters, as large an output as input. im2col one example at a time, but of the shifts along the last
# axis alone, which is a third of the copying: a shift along the axis before is a slice of the same columns. One product
# for each such shift, and dX and dK share the columns of dY. As fast at best, and with far larger spread: all nine
# shifts copied, one product. Slower: columns of windows, dX by adding shifts up (a third more); columns in the order
# height, width, channels; no columns, and nine products with slices of the padded image.


def _shifted(columns: Any, image: Any) -> None:
    """Into ``columns[s,c,p,q]``, whose margins are zero: ``image[c,zero(p-r),zero(q+s-s0)]``."""
    S, _, rows, width = columns.shape
    top = (rows - image.shape[1]) // 2
    for s in range(S):
        left = S // 2 - s
        target = columns[s, :, top : rows - top]
        if left >= 0:
            target[:, :, left:] = image[:, :, : width - left]
        else:
            target[:, :, :left] = image[:, :, -left:]


def _products(matrices: Any, flat: Any, width: int, out: Any, spare: Any) -> None:
    for r, matrix in enumerate(matrices):
        into = spare if r else out
        np.matmul(matrix, flat[:, r * width : r * width + out.shape[1]], out=into)
        if r:
            out += spare


def convolution_forward(each: Each, X: Any, K: Any) -> tuple[Any, Any]:
    N, C, height, width = X.shape
    O, _, R, S = K.shape
    matrices = K.transpose(2, 0, 3, 1).reshape(R, O, S * C)
    Y = np.empty((N, O, height, width), X.dtype)

    def examples(piece: slice) -> None:
        columns = np.zeros((S, C, height + R - 1, width), X.dtype)
        spare = np.empty((O, height * width), X.dtype)
        for x, y in zip(X[piece], Y[piece], strict=True):
            _shifted(columns, x)
            _products(matrices, columns.reshape(S * C, -1), width, y.reshape(O, -1), spare)

    each(examples, N, N // 2)
    return Y, (X, K)


def convolution_backward(each: Each, dY: Any, saved: Any) -> tuple[Any, ...]:
    X, K = saved
    N, C, height, width = X.shape
    O, _, R, S = K.shape
    matrices = K[:, :, ::-1, ::-1].transpose(2, 1, 3, 0).reshape(R, C, S * O)
    dX = np.empty_like(X)

    def examples(piece: slice) -> Any:
        columns = np.zeros((S, O, height + R - 1, width), X.dtype)
        flat = columns.reshape(S * O, -1)
        spare, product = np.empty((C, height * width), X.dtype), np.empty((S * O, C), X.dtype)
        dK = np.zeros((R, S * O, C), X.dtype)
        for x, dx, dy in zip(X[piece], dX[piece], dY[piece], strict=True):
            _shifted(columns, dy)
            for r in range(R):
                np.matmul(flat[:, r * width : (r + height) * width], x.reshape(C, -1).T, out=product)
                dK[r] += product
            _products(matrices, flat, width, dx.reshape(C, -1), spare)
        return dK

    dK = sum(each(examples, N, N // 2))
    return dX, dK.reshape(R, S, O, C)[::-1, ::-1].transpose(2, 3, 0, 1)


# Layer norm. 256 rows at a time; 64 and 128 are 5 to 10 % slower, 16 a third, all at once a half. The normalised rows
# are not saved but made again in the cache; saving them takes 5 % more. Sums are products with ones or with g: np.mean,
# np.sum and einsum take 10 % more.


def norm_forward(each: Each, X: Any, g: Any, b: Any) -> tuple[Any, Any]:
    N, D = X.shape
    Y, mean, inverse = np.empty_like(X), np.empty_like(X[:, :1]), np.empty_like(X[:, :1])
    share = np.full((D, 1), 1 / D, X.dtype)

    def rows(n: slice) -> None:
        y, r = Y[n], inverse[n]
        np.matmul(X[n], share, out=mean[n])
        np.subtract(X[n], mean[n], out=y)
        np.vecdot(y, y, out=r[:, 0])
        r /= D
        r += 1e-5
        np.sqrt(r, out=r)
        np.divide(1, r, out=r)
        y *= r
        y *= g
        y += b

    each(rows, N, 256)
    return Y, (X, g, mean, inverse)


def norm_backward(each: Each, dY: Any, saved: Any) -> tuple[Any, ...]:
    X, g, mean, inverse = saved
    N, D = X.shape
    dX, average = np.empty_like(X), (g / -D)[:, None]

    def rows(n: slice) -> Any:
        dy, dx, r = dY[n], dX[n], inverse[n]
        ones = np.ones(len(dy), X.dtype)
        h = X[n] - mean[n]
        h *= r
        np.multiply(dy, h, out=dx)
        sums = np.stack([ones @ dx, ones @ dy])
        h *= dx @ average
        h += dy @ average
        np.multiply(dy, g, out=dx)
        dx += h
        dx *= r
        return sums

    dg, db = sum(each(rows, N, 256))
    return dX, dg, db


BY_HAND = {
    "linear": Pair(linear_forward, linear_backward, pieces=False),
    "softmax cross-entropy": Pair(cross_entropy_forward, cross_entropy_backward),
    "attention": Pair(attention_forward, attention_backward),
    "low-rank adapter": Pair(adapter_forward, adapter_backward, pieces=False),
    "convolution": Pair(convolution_forward, convolution_backward),
    "layer norm": Pair(norm_forward, norm_backward),
}
