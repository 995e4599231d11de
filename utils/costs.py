"""The unit in which the project counts cost: training passes over examples."""

# A forward pass costs a third of a training pass: a training pass is a forward pass and a backward pass, and the backward
# pass does twice the work of the forward one (it computes gradients of the inputs and of the weights).
FORWARD = 1 / 3
