"""The offline demo: a generated NLI corpus, a tiny ALBERT, and the run that shows everything on them."""
