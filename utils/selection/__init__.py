"""Choosing training examples. This folder owns the Selection file and its weights, the files that strategies read
(embeddings, clusters, training dynamics), k-means and its report, the strategies themselves, and the making of inputs that
a user did not supply. It needs no torch: models run in scripts of their own, which it starts and whose files it reads.

Others use `selection.Selection` and `selection.budget`, `choosing.choose`, `embeddings.load_embeddings`,
`embedding_writer.EmbeddingWriter`, `clusters.Clusters`, `dynamics.Dynamics`, `ingredients.InputMaker`, `card.subset_card`, and
`strategies.select` with the registry `strategies.STRATEGIES`.
"""
