"""A tree ensemble as flat arrays, and its compiled evaluator: the sum of one leaf a tree.

An inner node sends a row left when `row[feature] <= threshold`. A child that is not negative is a node, a negative one is leaf
`~child`. Rows hold no NaN (trading.features.vector writes 0 where a feature is not ready), so there is no way for missing values.

What this module is not: it trains nothing; procs.learning turns a trained model into `Node`s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from trading.features.model_layout import FEATURES, MAX_LEAVES, MAX_NODES, MAX_TREES, TREES
from trading.jit import Floats, Ints, Recs, lean

MAX_DEPTH: Final = 64
"""A path longer than this is a loop."""


class TreeError(ValueError):
    """Trees that cannot be evaluated; the message names tree and remedy."""


@dataclass(frozen=True, slots=True)
class Node:
    """An inner node; children as described above, counted within its own tree."""

    feature: int
    threshold: float
    left: int
    right: int


@dataclass(frozen=True, slots=True)
class Tree:
    """Its nodes, root first (none: the tree is its first leaf), and its leaves' values."""

    nodes: tuple[Node, ...]
    leaves: tuple[float, ...]


@lean
def evaluate(
    count: int, root: Ints, feature: Ints, left: Ints, right: Ints, threshold: Floats, leaf: Floats, row: Floats
) -> float:
    """Sum of the leaves that the row (n_features,) falls into."""
    total = 0.0
    for t in range(count):
        at = root[t]
        while at >= 0:
            at = left[at] if row[feature[at]] <= threshold[at] else right[at]
        total += leaf[~at]
    return total


def _check(number: int, tree: Tree) -> None:
    if not tree.leaves or not all(np.isfinite(tree.leaves)):
        raise TreeError(f"tree {number} has no leaf, or one that is no number: train the model anew")
    for node in tree.nodes:
        if not 0 <= node.feature < FEATURES or not np.isfinite(node.threshold):
            raise TreeError(f"tree {number} asks for feature {node.feature} of {FEATURES}: train the model anew")
        for child in (node.left, node.right):
            if not -len(tree.leaves) <= child < len(tree.nodes):
                raise TreeError(f"tree {number} leads to node {child}, which it has not: train the model anew")
    met = set()
    waiting = [(0, 0)] if tree.nodes else []
    while waiting:
        at, depth = waiting.pop()
        if at in met or depth > MAX_DEPTH:
            raise TreeError(f"tree {number} meets itself or is deeper than {MAX_DEPTH}: train a shallower model")
        met.add(at)
        waiting += [(child, depth + 1) for child in (tree.nodes[at].left, tree.nodes[at].right) if child >= 0]


def install(image: Recs, trees: Sequence[Tree]) -> None:
    """Write the trees into MODEL_IMAGE (1,). Raises TreeError; then nothing is written."""
    nodes, leaves = sum(len(t.nodes) for t in trees), sum(len(t.leaves) for t in trees)
    if len(trees) > MAX_TREES or nodes > MAX_NODES or leaves > MAX_LEAVES:
        raise TreeError(
            f"{len(trees)} trees with {nodes} nodes are more than {MAX_TREES} with {MAX_NODES}: train fewer or smaller trees"
        )
    for number, tree in enumerate(trees):
        _check(number, tree)
    p = image[0]
    node_at = leaf_at = 0
    for number, tree in enumerate(trees):

        def moved(child: int, node_at: int = node_at, leaf_at: int = leaf_at) -> int:
            return child + node_at if child >= 0 else ~(~child + leaf_at)

        p["tree_root"][number] = node_at if tree.nodes else ~leaf_at
        for node in tree.nodes:
            p["tree_feature"][node_at], p["tree_threshold"][node_at] = node.feature, node.threshold
            p["tree_left"][node_at], p["tree_right"][node_at] = moved(node.left), moved(node.right)
            node_at += 1
        p["tree_leaf"][leaf_at : leaf_at + len(tree.leaves)] = tree.leaves
        leaf_at += len(tree.leaves)
    p["tree_count"], p["batch_kind"] = len(trees), TREES
