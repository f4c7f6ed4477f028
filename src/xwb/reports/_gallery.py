"""The gallery: layers that everybody knows, each as one formula, derived and proved at the moment it is shown."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ..algebra import Derivation, Size
    from ..proof import Proof

NOTHING: Mapping[str, int] = MappingProxyType({})


class Entry(NamedTuple):
    """A layer of the gallery."""

    kind: str
    name: str  # the word to type, and the name of its page
    title: str
    formula: str
    sizes: Mapping[str, Size]  # of the proof, by letter; the axes of one tensor all differ
    about: str
    given: Mapping[str, int] = NOTHING  # sizes that no array says, as those of a window

    def derive(self) -> Derivation:
        """The derivation of the formula."""
        from ..algebra import derive

        return derive(self.formula, self.given)

    def show(self) -> Shown:
        """The entry derived, and proved at its sizes: against loops and against finite differences."""
        from ..proof import prove

        started = time.perf_counter()
        derivation = self.derive()
        proof = prove(derivation, at=self.sizes, conduct=False)  # the conduct is that of derive, not of one formula
        return Shown(self, derivation, proof, time.perf_counter() - started)


class Shown(NamedTuple):
    """An entry with its derivation and its proof."""

    entry: Entry
    derivation: Derivation
    proof: Proof
    seconds: float

    @property
    def gradients(self) -> list[str]:
        """The gradients of the inputs and what they name, each below what it names."""
        from ..algebra import closed_forms

        return closed_forms(self.derivation)

    @property
    def drawn(self) -> str:
        """The formula, as the plain one says it beside, and the gradients in MathML."""
        return self.derivation.mathml()


LINEAR, LOSSES, NORMS, ATTENTION = "Linear maps", "Losses", "Norms", "Attention"
WINDOWS, UNITS, FORMS = "Convolution and pooling", "Units and cells", "Other forms"

GALLERY = (
    Entry(
        LINEAR,
        "linear",
        "Linear layer",
        "Y[n,m] = X[n,d] W[d,m] + b[m]",
        {"n": 2, "d": 3, "m": 4},
        "Examples are rows of X, outputs are columns of W, and the sum never touches b.",
    ),
    Entry(
        LINEAR,
        "linear-without-bias",
        "Linear layer without a bias",
        "Y[n,m] = X[n,d] W[d,m]",
        {"n": 2, "d": 3, "m": 4},
        "The layer of Johnson's notes (source 004), which write it out for N = 2, D = 2, M = 3.",
    ),
    Entry(
        LINEAR,
        "linear-ones",
        "Linear layer, the bias as a row of W",
        "Y[n,m] = X[n,d] W[zero(d),m] + W[size(d),m]",
        {"n": 2, "d": 3, "m": 5},
        "The slides (source 000) append a 1 to each input, and W gets one row more, the bias. zero() lets W be longer "
        "than X is wide; the last row of dW is the gradient of the bias.",
    ),
    Entry(
        LINEAR,
        "linear-outputs-first",
        "Linear layer, outputs first",
        "Y[k,i] = W[i,j] X[k,j] + b[i]",
        {"k": 2, "i": 3, "j": 4},
        "The letters of the handwritten notes (source 001), y_i = Σ_j w_ij x_j + b_i for each of k examples; W is laid "
        "out as PyTorch's. Their mean over the batch belongs to the loss.",
    ),
    Entry(
        LINEAR,
        "linear-numerator",
        "Linear layer of the notes in numerator layout",
        "y[i,j] = x[i,l] W[l,j] + b[0,j]",
        {"i": 2, "l": 3, "j": 4},
        "The notes with Kronecker deltas (source 002), where b is a matrix of one row. Their ∂L/∂W is the transpose of "
        "this dW, and their gradient ∇L is this dW: here every gradient has the shape of its variable.",
    ),
    Entry(
        LINEAR,
        "linear-columns",
        "Linear layer, examples as columns",
        "Y[m,n] = X[d,n] W[d,m]",
        {"m": 2, "n": 3, "d": 4},
        "The derivation by hand (source 003) counts components first and examples second.",
    ),
    Entry(
        LINEAR,
        "linear-leading-axes",
        "Linear layer with leading axes",
        "Y[...,m] = X[...,d] W[d,m] + b[m]",
        {"...": (2, 3), "d": 4, "m": 5},
        "Examples along any number of axes; where n was summed, all of them are.",
    ),
    Entry(
        LINEAR,
        "low-rank",
        "Low-rank adapter",
        "H[n,r] = X[n,d] A[d,r]\nY[n,m] = X[n,d] W[d,m] + s*H[n,r] B[r,m]",
        {"n": 2, "r": 3, "d": 4, "m": 5},
        "W stays as it is, and the product A B of low rank, scaled by s, is learned beside it.",
    ),
    Entry(
        LINEAR,
        "bilinear",
        "Bilinear form",
        "Y[n,o] = X[n,i] W[o,i,j] V[n,j] + b[o]",
        {"n": 2, "i": 3, "o": 4, "j": 5},
        "Linear in X and linear in V. W has three axes, for which matrices have no notation.",
    ),
    Entry(
        LINEAR,
        "embedding",
        "Embedding",
        "Y[n,t,d] = E[k[n,t],d]",
        {"n": 2, "t": 3, "d": 4, "size(E,0)": 5},
        "Rows of a table, chosen by integers. A row that is chosen twice gets the sum of both gradients.",
    ),
    Entry(
        LOSSES,
        "softmax-cross-entropy",
        "Softmax cross-entropy",
        "L = mean[n](log(sum[m](exp(Z[n,m]))) - Z[n,y[n]])",
        {"n": 4, "m": 3},
        "Scores Z of the classes, and the right class y of each example. The gradient is the probabilities minus 1 at "
        "the right class.",
    ),
    Entry(
        LOSSES,
        "cross-entropy-of-probabilities",
        "Cross-entropy with probabilities as targets",
        "S[n] = log(sum[m](exp(Z[n,m])))\nL = mean[n](sum[m](T[n,m]*(S[n] - Z[n,m])))",
        {"n": 2, "m": 3},
        "The target of each example is a distribution T over the classes, as label smoothing makes it.",
    ),
    Entry(
        LOSSES,
        "hinge-weston-watkins",
        "Multiclass hinge of Weston and Watkins",
        "M[n,m] = [m != y[n]]*(1 + Z[n,m] - Z[n,y[n]])\nL = mean[n](sum[m](max(0, M[n,m])))",
        {"n": 4, "m": 3},
        "Every wrong class that comes within 1 of the right one costs; each pulls down its own score and lifts that of "
        "the right class.",
    ),
    Entry(
        LOSSES,
        "hinge-crammer-singer",
        "Multiclass hinge of Crammer and Singer",
        "S[n,m] = Z[n,m] + [m != y[n]]\nL = mean[n](max[m](S[n,m]) - Z[n,y[n]])",
        {"n": 4, "m": 3},
        "Only the worst class costs. Classes that tie share the gradient equally.",
    ),
    Entry(
        LOSSES,
        "squared-error",
        "Squared error",
        "L = mean[n](sum[m]((Y[n,m] - T[n,m])**2))",
        {"n": 2, "m": 3},
        "The mean is over the examples, never over the outputs.",
    ),
    Entry(
        LOSSES,
        "kullback-leibler",
        "Kullback-Leibler divergence",
        "L = sum[n,m](P[n,m]*(log(P[n,m]) - log(Q[n,m])))",
        {"n": 2, "m": 3},
        "How far a distribution Q is from P, in each row; P and Q are positive.",
    ),
    Entry(
        LOSSES,
        "logistic",
        "Logistic loss",
        "L = mean[n](log(1 + exp(-t[n]*z[n])))",
        {"n": 3},
        "Two classes, t = 1 and t = -1.",
    ),
    Entry(
        LOSSES,
        "huber",
        "Huber loss",
        "R[n,m] = abs(Y[n,m] - T[n,m])\nL = mean[n,m](where(R[n,m] <= 1, R[n,m]**2/2, R[n,m] - 1/2))",
        {"n": 2, "m": 3},
        "Squares near the target and absolute values far from it, so that no outlier pulls harder than 1.",
    ),
    Entry(
        NORMS,
        "layer-norm",
        "Layer norm",
        "mu[n] = mean[d](X[n,d])\nv[n] = mean[d]((X[n,d] - mu[n])**2)\n"
        "Z[n,d] = (X[n,d] - mu[n])/sqrt(v[n] + 1e-5)\nY[n,d] = g[d]*Z[n,d] + b[d]",
        {"n": 2, "d": 3},
        "Mean mu, variance v, the normalised value Z, then gain g and bias b.",
    ),
    Entry(
        NORMS,
        "rms-norm",
        "RMS norm",
        "r[n] = sqrt(mean[d](X[n,d]**2) + 1e-5)\nY[n,d] = g[d]*X[n,d]/r[n]",
        {"n": 2, "d": 3},
        "Divided by the root of the mean square; no mean is taken off.",
    ),
    Entry(
        NORMS,
        "batch-norm",
        "Batch norm",
        "mu[c] = mean[n,p](X[n,c,p])\nv[c] = mean[n,p]((X[n,c,p] - mu[c])**2)\n"
        "Z[n,c,p] = (X[n,c,p] - mu[c])/sqrt(v[c] + 1e-5)\nY[n,c,p] = g[c]*Z[n,c,p] + b[c]",
        {"n": 2, "c": 3, "p": 4},
        "Each channel c normalised over all examples and positions, as in training.",
    ),
    Entry(
        NORMS,
        "group-norm",
        "Group norm",
        "mu[n,j] = mean[c,p](X[n,j,c,p])\nv[n,j] = mean[c,p]((X[n,j,c,p] - mu[n,j])**2)\n"
        "Z[n,j,c,p] = (X[n,j,c,p] - mu[n,j])/sqrt(v[n,j] + 1e-5)\nY[n,j,c,p] = g[j,c]*Z[n,j,c,p] + b[j,c]",
        {"n": 2, "j": 3, "c": 4, "p": 5},
        "The channels are group j, and c within it; each example is normalised by itself.",
    ),
    Entry(
        NORMS,
        "softmax",
        "Softmax",
        "P[n,m] = exp(Z[n,m]) / sum[k](exp(Z[n,k]))",
        {"n": 2, "m": 3},
        "Every output depends on every score of its row. It is evaluated without overflow, however large the scores.",
    ),
    Entry(
        ATTENTION,
        "attention",
        "Attention, queries to keys",
        "S[t,u] = Q[t,d] K[u,d] / sqrt(size(d))\nP[t,u] = exp(S[t,u]) / sum[w](exp(S[t,w]))\nY[t,e] = P[t,u] V[u,e]",
        {"t": 2, "u": 3, "d": 4, "e": 5},
        "Query t asks every key u; the values come back weighted by P, whose rows sum to 1.",
    ),
    Entry(
        ATTENTION,
        "attention-self",
        "Self-attention",
        "Q[t,k] = X[t,d] A[d,k]\nK[t,k] = X[t,d] B[d,k]\nV[t,e] = X[t,d] C[d,e]\n"
        "S[t,u] = Q[t,k] K[u,k] / sqrt(size(k))\nP[t,u] = exp(S[t,u]) / sum[w](exp(S[t,w]))\nY[t,e] = P[t,u] V[u,e]",
        {"t": 3, "k": 2, "d": 4, "e": 5},
        "Queries, keys and values are three linear maps of the same X, so its gradient has three parts.",
    ),
    Entry(
        ATTENTION,
        "attention-masked",
        "Masked attention",
        "S[t,u] = Q[t,d] K[u,d] / sqrt(size(d))\n"
        "P[t,u] = [u <= t]*exp(S[t,u]) / sum[w]([w <= t]*exp(S[t,w]))\nY[t,e] = P[t,u] V[u,e]",
        {"t": 2, "u": 3, "d": 4, "e": 5},
        "No position looks ahead: the bracket is 1 where u is at most t, and 0 elsewhere, in the sum as well.",
    ),
    Entry(
        ATTENTION,
        "attention-multi-head",
        "Multi-head self-attention",
        "Q[h,t,k] = X[t,d] A[h,d,k]\nK[h,t,k] = X[t,d] B[h,d,k]\nV[h,t,e] = X[t,d] C[h,d,e]\n"
        "S[h,t,u] = Q[h,t,k] K[h,u,k] / sqrt(size(k))\nP[h,t,u] = exp(S[h,t,u]) / sum[w](exp(S[h,t,w]))\n"
        "O[h,t,e] = P[h,t,u] V[h,u,e]\nY[t,m] = O[h,t,e] W[h,e,m]",
        {"h": 2, "t": 3, "d": 4, "k": 5, "e": 3, "m": 4},
        "Every head h has maps of its own; the last line adds what the heads found.",
    ),
    Entry(
        WINDOWS,
        "convolution-1d",
        "Convolution over one axis",
        "Y[n,o,p] = X[n,c,p+r] K[o,c,r] + b[o]",
        {"n": 2, "c": 3, "o": 4, "r": 2, "p": 5},
        "At each place p the kernel, r wide, is laid over X; c are the channels that come in, o those that go out.",
    ),
    Entry(
        WINDOWS,
        "convolution-2d",
        "Convolution over two axes, padded with zeros",
        "Y[n,o,i,j] = X[n,c,zero(i+p-1),zero(j+q-1)] K[o,c,p,q] + b[o]",
        {"n": 2, "o": 3, "c": 4, "p": 2, "q": 5, "i": 4, "j": 5},
        "zero() reads zeros outside X: padding by 1. The gradient of X is a convolution of dY.",
    ),
    Entry(
        WINDOWS,
        "convolution-strided",
        "Strided convolution",
        "Y[n,o,p] = X[n,c,2*p+r] K[o,c,r] + b[o]",
        {"n": 2, "c": 3, "o": 4, "r": 2, "p": 5},
        "The kernel moves by 2 from one place to the next.",
    ),
    Entry(
        WINDOWS,
        "convolution-dilated",
        "Dilated convolution",
        "Y[n,o,p] = X[n,c,p+2*r] K[o,c,r] + b[o]",
        {"n": 2, "c": 3, "o": 4, "r": 2, "p": 5},
        "The entries of the kernel are laid 2 apart.",
    ),
    Entry(
        WINDOWS,
        "convolution-grouped",
        "Grouped convolution",
        "Y[n,g,o,p] = X[n,g,c,p+r] K[g,o,c,r] + b[g,o]",
        {"n": 5, "g": 2, "c": 3, "o": 4, "r": 5, "p": 3},
        "Group g of the channels that go out sees group g of those that come in, and no other.",
    ),
    Entry(
        WINDOWS,
        "convolution-depthwise",
        "Depthwise convolution",
        "Y[n,c,i,j] = X[n,c,i+p,j+q] K[c,p,q]",
        {"n": 2, "c": 3, "p": 2, "q": 5, "i": 4, "j": 5},
        "Every channel has a kernel of its own, and c, which stands on the left, is not summed.",
    ),
    Entry(
        WINDOWS,
        "convolution-transposed",
        "Transposed convolution",
        "Y[n,o,t] = X[n,c,p] K[c,o,r] [t == 2*p+r] + b[o]",
        {"n": 2, "c": 3, "o": 4, "p": 5, "r": 2},
        "Each entry of X lays down a kernel, 2 apart: the gradient of a strided convolution, read as a layer.",
        given={"t": 10},
    ),
    Entry(
        WINDOWS,
        "average-pooling",
        "Average pooling",
        "Y[...,i,j] = mean[p,q](X[...,2*i+p,3*j+q])",
        {"...": (5,), "i": 2, "j": 3},
        "Windows of 2 by 3 that lie side by side, in every image of a batch.",
        given={"p": 2, "q": 3},
    ),
    Entry(
        WINDOWS,
        "max-pooling",
        "Max pooling",
        "Y[...,i,j] = max[p,q](X[...,2*i+p,2*j+q])",
        {"...": (4,), "i": 2, "j": 3},
        "Windows of 3 by 3 that overlap. The gradient goes to the largest entry; ties share it.",
        given={"p": 3, "q": 3},
    ),
    Entry(
        UNITS,
        "two-layers",
        "Two linear layers and a relu",
        "A[n,h] = X[n,d] W[d,h] + b[h]\nH[n,h] = relu(A[n,h])\nY[n,m] = H[n,h] V[h,m] + c[m]",
        {"n": 2, "d": 3, "h": 4, "m": 5},
        "The smallest network. What comes back through the relu is dH where A is positive.",
    ),
    Entry(
        UNITS,
        "gated-linear",
        "Gated linear unit",
        "A[n,m] = X[n,d] W[d,m]\nB[n,m] = X[n,d] V[d,m]\nY[n,m] = A[n,m]*sigmoid(B[n,m])",
        {"n": 2, "d": 3, "m": 4},
        "One linear map says what goes through, the other how much of it.",
    ),
    Entry(
        UNITS,
        "gated-swish",
        "Gated block with swish (SwiGLU)",
        "A[n,h] = X[n,d] W[d,h]\nB[n,h] = X[n,d] V[d,h]\n"
        "H[n,h] = A[n,h]*sigmoid(A[n,h])*B[n,h]\nY[n,m] = H[n,h] U[h,m]",
        {"n": 2, "d": 3, "h": 4, "m": 5},
        "The feed-forward block of many language models.",
    ),
    Entry(
        UNITS,
        "gelu-block",
        "Two linear layers and a gelu",
        "A[n,h] = X[n,d] W[d,h] + b[h]\nY[n,m] = gelu(A[n,h]) V[h,m] + c[m]",
        {"n": 2, "d": 3, "h": 4, "m": 5},
        "gelu(x) is x times the probability that a standard normal number is below x.",
    ),
    Entry(
        UNITS,
        "lstm",
        "LSTM cell",
        "A[n,j,h] = X[n,d] W[j,d,h] + H[n,k] U[j,k,h] + b[j,h]\n"
        "I[n,h] = sigmoid(A[n,0,h])\nF[n,h] = sigmoid(A[n,1,h])\nG[n,h] = tanh(A[n,2,h])\nO[n,h] = sigmoid(A[n,3,h])\n"
        "M[n,h] = F[n,h]*C[n,h] + I[n,h]*G[n,h]\nY[n,h] = O[n,h]*tanh(M[n,h])",
        {"n": 3, "j": 4, "h": 2, "d": 5, "k": 6},
        "The gates for input I, forgetting F and output O, the new content G, the memory C before and M after. H is "
        "the output of the step before.",
    ),
    Entry(
        FORMS,
        "factorisation",
        "Matrix factorisation",
        "R[e] = U[u[e],k] V[v[e],k] - A[e]\nL = mean[e](R[e]**2)",
        {"e": 4, "k": 3, "size(U,0)": 2, "size(V,0)": 5},
        "Known entries A[e] of a large matrix, in row u[e] and column v[e], are approached by products of short "
        "vectors.",
    ),
    Entry(
        FORMS,
        "gram",
        "Gram matrix",
        "G[i,j] = X[n,i] X[n,j]",
        {"n": 2, "i": 3},
        "X stands in it twice, so its gradient has two parts: X (dG + dGᵀ).",
    ),
    Entry(
        FORMS,
        "quadratic",
        "Quadratic form",
        "q[n] = X[n,i] A[i,j] X[n,j]",
        {"n": 2, "i": 3},
        "One number for each row x of X: x A xᵀ.",
    ),
    Entry(
        FORMS,
        "distances",
        "Squared distances",
        "D[i,j] = sum[d]((A[i,d] - B[j,d])**2)",
        {"i": 2, "j": 3, "d": 4},
        "Between every row of A and every row of B.",
    ),
    Entry(
        FORMS,
        "cosine",
        "Cosine similarity",
        "a[i] = sqrt(sum[d](A[i,d]**2))\nb[j] = sqrt(sum[d](B[j,d]**2))\nS[i,j] = A[i,d] B[j,d] / (a[i] b[j])",
        {"i": 2, "j": 3, "d": 4},
        "The cosine of the angle between every row of A and every row of B.",
    ),
    Entry(
        FORMS,
        "product",
        "Product",
        "Y[n] = prod[k](X[n,k])",
        {"n": 2, "k": 3},
        "The slope of a product is the product of all the others, never a quotient: zeros do no harm.",
    ),
    Entry(
        FORMS,
        "resampling",
        "Bilinear resampling",
        "Y[c,p] = X[c,i,j]*relu(1 - abs(u[p] - i))*relu(1 - abs(v[p] - j))",
        {"c": 2, "i": 3, "j": 4, "p": 5},
        "Image X read at points (u, v) between its pixels, each pixel weighted by a hat of width 1; the points get "
        "gradients too.",
    ),
    Entry(
        FORMS,
        "upsampling",
        "Bilinear upsampling to twice the size",
        "A[c,i,r,j] = (3*X[c,i,j] + X[c,clamp(i+2*r-1),j])/4\n"
        "Y[c,i,r,j,s] = (3*A[c,i,r,j] + A[c,i,r,clamp(j+2*s-1)])/4",
        {"c": 3, "i": 4, "j": 5},
        "Pixel i becomes the pixels 2i+r, for r = 0 and 1, each three parts its own and one part of the neighbour on "
        "that side; clamp() repeats the edge. The rows first, then the columns.",
        given={"r": 2, "s": 2},
    ),
)
