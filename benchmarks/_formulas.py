"""The layers that the benchmarks derive, in index notation."""

FORMULAS = {
    "linear": "Y[n,m] = X[n,d] W[d,m] + b[m]",
    "softmax cross-entropy": "L = mean[n](log(sum[k](exp(Z[n,k]))) - Z[n,y[n]])",
    "attention": """S[h,i,j] = Q[h,i,e] K[h,j,e]/sqrt(size(e))
P[h,i,j] = exp(S[h,i,j])/sum[k](exp(S[h,i,k]))
O[h,i,e] = P[h,i,j] V[h,j,e]""",
    "low-rank adapter": "Y[n,m] = X[n,d] W[d,m] + X[n,d] A[d,r] B[r,m]",
    "convolution": "Y[n,o,p,q] = X[n,c,zero(p+r-1),zero(q+s-1)] K[o,c,r,s]",
    "layer norm": """mu[n] = mean[d](X[n,d])
v[n] = mean[d]((X[n,d] - mu[n])**2)
H[n,d] = (X[n,d] - mu[n])/sqrt(v[n] + 1e-5)
Y[n,d] = H[n,d] g[d] + b[d]""",
    "layer norm in one line": "Y[n,d] = (X[n,d] - mean[k](X[n,k]))/sqrt(mean[k]((X[n,k] - mean[j](X[n,j]))**2) + 1e-5)"
    "*g[d] + b[d]",
    "multi-head attention": """Q[n,h,i,e] = X[n,i,d] WQ[d,h,e]
K[n,h,j,e] = X[n,j,d] WK[d,h,e]
V[n,h,j,e] = X[n,j,d] WV[d,h,e]
S[n,h,i,j] = Q[n,h,i,e] K[n,h,j,e]/sqrt(size(e))
P[n,h,i,j] = exp(S[n,h,i,j])/sum[k](exp(S[n,h,i,k]))
A[n,h,i,e] = P[n,h,i,j] V[n,h,j,e]
Y[n,i,d] = A[n,h,i,e] WO[h,e,d]""",
    "LSTM cell": """I[n,h] = sigmoid(X[n,d] Wi[d,h] + H[n,k] Ui[k,h] + bi[h])
F[n,h] = sigmoid(X[n,d] Wf[d,h] + H[n,k] Uf[k,h] + bf[h])
G[n,h] = tanh(X[n,d] Wg[d,h] + H[n,k] Ug[k,h] + bg[h])
O[n,h] = sigmoid(X[n,d] Wo[d,h] + H[n,k] Uo[k,h] + bo[h])
M[n,h] = F[n,h] C[n,h] + I[n,h] G[n,h]
Y[n,h] = O[n,h] tanh(M[n,h])""",
}
