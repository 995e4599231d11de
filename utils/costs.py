"""The unit in which costs are counted: training passes over examples, so that a figure does not depend on the machine."""

FORWARD = (
    1 / 3
)  # a forward pass costs a third of a training pass: the backward pass takes twice as long as the forward one
