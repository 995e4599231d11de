"""Training. This folder owns the one recipe that every training script runs (read, choose, encode, train, evaluate,
save), the training loop, its checkpoints, batches and objectives, online sampling, the recording of training dynamics,
and the evaluation of a split.

Others use `finetune.run` with a `finetune.Choice`, and `schemes.SCHEMES`, the records of the online schemes, which need no
torch.
"""
