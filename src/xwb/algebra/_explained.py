"""What the rules of a derivation say, for a reader who meets them for the first time."""

RULES = {
    "read": "The formula as it was written, with every sum made visible: an index that is repeated in a product and "
    "does not stand on the left is summed.",
    "chain rule over entries": "The loss depends on one entry through every entry of the value that is computed from "
    "it. Each of them adds what the loss owes to it, times what it owes to the entry.",
    "sum rule": "The derivative of a sum is the sum of the derivatives; terms that the entry does not occur in are 0.",
    "product rule": "The factors of a product are differentiated one at a time, while all others stay as they are. "
    "What does not depend on the entry is a constant factor.",
    "power rule": "The derivative of a power x**a is a x**(a-1), times the derivative of x. A quotient is a product "
    "with a negative power.",
    "function rule": "The derivative of f(u) is the slope of f at u, times the derivative of u: the chain rule for a "
    "function of one number.",
    "reduction rule": "A maximum, a minimum or a product over an index has a slope in each of the entries it is taken "
    "over; the entry at hand is looked for among them.",
    "branch rule": "Where a condition chooses between two branches, the one that is taken is differentiated. The "
    "condition itself is constant, as its jumps have no slope.",
    "Kronecker delta": "An entry changes itself at the rate 1, and no other entry of its tensor. That is a bracket "
    "for each index, 1 where both are equal and 0 elsewhere.",
    "collapse": "Of a sum over an index with a bracket such as [h == d], only the term where d is h is left. The sum "
    "is gone, and so is the Jacobian, which was never formed.",
    "regroup": "What all occurrences of the tensor contribute is added up, and the indices get the names back that "
    "they have in the formula.",
    "reuse": "What the forward pass has computed already is called by its name instead of being computed again; then "
    "what stands above and below a fraction bar drops out.",
    "cancel": "A factor that stands above and below a fraction bar drops out, and so do two equal terms of opposite "
    "sign.",
    "factor": "What several terms have in common as a factor is written once, in front of their sum in parentheses.",
    "substitute": "The gradient of a value is replaced by what it is, where all together become shorter that way.",
}
