"""What the scripts share, one folder a subject.

`errors` shows errors to the user as one line, `files` writes files completely or not at all, `command_line` holds the
argument parser and the types of flags, `flags` the settings that several scripts share as dataclasses, `run_directory`
the output folder of one run, `costs` what a forward pass costs. The folders are data, models, selection, training, sweep
and report. Imports point one way only; CONTRIBUTING.md says which, and `make quality` checks it.
"""
