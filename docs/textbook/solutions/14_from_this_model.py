"""Solutions to the exercises of chapter 14."""

from functools import cache

PARTNER = {"A": "U", "U": "A", "C": "G", "G": "C"}
LOOP = 3


def kept_bytes(N, d, n, bytes_a_number=2):
    """Of the keys and values of n tokens."""
    return 2 * N * d * n * bytes_a_number


@cache
def can_end(rna, j, opened):
    """Whether the letters from j on can be folded; `opened` are the places of the brackets that wait for a partner."""
    if j == len(rna):
        return not opened
    if (
        opened
        and j - opened[-1] > LOOP
        and rna[j] == PARTNER[rna[opened[-1]]]
        and can_end(rna, j + 1, opened[:-1])
    ):
        return True
    return can_end(rna, j + 1, opened) or can_end(rna, j + 1, (*opened, j))


def next_signs(rna, folded):
    """Which signs may follow those of a folding that has been begun."""
    opened = []
    for i, sign in enumerate(folded):
        if sign == "(":
            opened.append(i)
        elif sign == ")":
            opened.pop()
    j, opened = len(folded), tuple(opened)
    after = {".": opened, "(": (*opened, j)}
    if opened and j - opened[-1] > LOOP and rna[j] == PARTNER[rna[opened[-1]]]:
        after[")"] = opened[:-1]
    return {sign for sign, still_open in after.items() if can_end(rna, j + 1, still_open)}


def operations_a_token(N, d, n, V):
    """Of the matrix products of forward and backward, a decoder alone with d_ff = 4 d reading n tokens."""
    projections, feed_forward, scores_and_context = 4 * d**2, 8 * d**2, 2 * n * d
    multiplications = N * (projections + feed_forward + scores_and_context) + V * d
    return 3 * 2 * multiplications
