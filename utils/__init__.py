"""What the scripts share, one folder a subject.

`errors` shows errors to the user as one line, `files` writes files completely or not at all, `command_line` holds the
argument parser and the types of flags, `settings` makes flags of dataclasses, `flags` holds those that several scripts share,
`moments` says in which steps something is due, `run_directory` is the output folder of one run, `costs` what a forward pass
costs, `figure_style` how figures look. The folders are data, models, selection, training, sweep, explore and report. Imports
point one way only; CONTRIBUTING.md says which, and `make quality` checks it.
"""
