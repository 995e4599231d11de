"""Classifiers and their forward passes. This folder owns loading and saving with class names, the records of encoder
families, the making of batches as tensors, packed and padded passes, precision, dropout masks, the cached outputs of frozen
layers, and the processes of a distributed run.

Others use `session.open_session` and its `Session` (a checkpoint that is ready to encode and predict),
`classifier.Classifier`, `inference` for predictions and embeddings of many examples, `pack` for the Hugging Face Trainer, `frozen.FrozenOutputs`, `families.FAMILIES`, `forward.choose_precision`, and
`distributed.start` and `stop`.
"""
